package relay

import (
	"encoding/binary"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/phxsql/phxsql/internal/binlog"
	"github.com/phxsql/phxsql/internal/entry"
	"github.com/phxsql/phxsql/internal/gtid"
)

// A server keeps a GTID on disk together with the transaction's rows. What has
// no rows of its own there is remembered in the binary log only, and the restart
// recipe removes that: DROP TABLE IF EXISTS of a table that is not there, CREATE
// DATABASE IF NOT EXISTS of one that is, FLUSH TABLES, an XA PREPARE on a
// replica. After a crash the server asks for such a statement again although it
// has what came later, and executing it then would do harm: the DROP TABLE
// before a CREATE TABLE drops the table that has been made since.
//
// A server commits in the order of its log, and so does a replica of ours. A
// statement that is missing before one that is there has therefore been
// executed. The server gets an empty transaction of the same GTID for it.
// Missing rows are no such case and are sent as they are: they are what a server
// never forgets alone. XA has rules of its own: see undecided.

// holes knows, while a dump proceeds, whether the replica holds something that
// is still to come.
type holes struct {
	have   *gtid.Set // what the replica has
	passed *gtid.Set // the part of it that the dump has passed
	left   uint64    // how many of them it has not
}

// newHoles returns the holes of a replica that has a set, for a dump that begins
// behind the transactions of before.
func newHoles(have, before *gtid.Set) holes {
	later := have.Clone()
	later.Subtract(before)
	return holes{have: have, passed: before.Clone(), left: later.Count()}
}

// has reports whether the replica has a transaction, which the dump passes now.
func (h *holes) has(g gtid.GTID) bool {
	if !h.have.Contains(g) {
		return false
	}
	if h.left > 0 && h.passed.Add(g) {
		h.left--
	}
	return true
}

// within reports whether the dump stands before something that the replica has.
func (h *holes) within() bool { return h.left > 0 }

// isStatement reports whether the events of a transaction, of which at least the
// second is there, are those of a statement: anything but rows between BEGIN and
// COMMIT, or XA.
func isStatement(events []byte) bool {
	h, err := binlog.ParseHeader(events)
	if err != nil || int(h.Size) > len(events) {
		return false
	}
	sql, ok := querySQL(events[h.Size:])
	return ok && !strings.EqualFold(sql, "BEGIN") && !strings.HasPrefix(sql, "XA ")
}

// forgotten reports whether the replica has executed a transaction that it lacks
// although it has later ones. All events come from r; first are at least the two
// that it begins with.
func (d *dump) forgotten(t *entry.Txn, r io.Reader, first []byte) (bool, error) {
	if isStatement(first) {
		d.s.logger.Info("statement_not_repeated", "gtid", t.GTID.String(), "reason", "the replica has later transactions")
		return true, nil
	}
	_, kind, err := d.xa.read(r)
	if err != nil {
		return false, err
	}
	if kind != xaPrepared {
		d.s.logger.Warn("rows_missing", "gtid", t.GTID.String(), "reason", "the replica has later transactions; sent")
		return false, nil
	}
	if d.lost == nil {
		if d.lost, err = findUndecided(d.s.log, d.at, d.holes.have); err != nil {
			return false, err
		}
		d.s.logger.Info("xa_prepare_missing", "undecided", d.lost.Count(), "reason", "replicas keep decisions only; the undecided are sent again")
	}
	return !d.lost.Contains(t.GTID), nil
}

// sendEmpty sends an empty transaction instead of the one that begins with events.
func (d *dump) sendEmpty(events []byte) error {
	empty, err := appendEmpty(nil, events, d.s.o.ServerID, time.Now())
	if err != nil {
		return fmt.Errorf("imitate transaction: %w", err)
	}
	return d.out.write(empty)
}

// The body of a query event.
//
//	 0           4           8           9            11                 13
//	+-----------+-----------+-----------+------------+------------------+-----------+----------+-----+
//	| thread id | exec time | size of   | error code | size of status   | status    | database | SQL |
//	| u32       | u32       | name u8   | u16        | variables u16    | variables | 0-ended  |     |
//	+-----------+-----------+-----------+------------+------------------+-----------+----------+-----+
const queryFixed = 13

// querySQL returns the text of a query event.
func querySQL(event []byte) (string, bool) {
	h, err := binlog.ParseHeader(event)
	if err != nil || h.Type != binlog.Query || int(h.Size) > len(event) || h.Size < binlog.HeaderSize+binlog.ChecksumSize {
		return "", false
	}
	return queryText(event[binlog.HeaderSize : h.Size-binlog.ChecksumSize])
}

// queryText returns the text in the body of a query event.
func queryText(body []byte) (string, bool) {
	b := queryBytes(body)
	return string(b), b != nil
}

// queryBytes returns the text in the body of a query event, nil if there is none.
func queryBytes(body []byte) []byte {
	if len(body) < queryFixed {
		return nil
	}
	at := queryFixed + int(binary.LittleEndian.Uint16(body[11:])) + int(body[8]) + 1
	if at > len(body) {
		return nil
	}
	return body[at:]
}

// appendEmpty appends an empty transaction with the GTID and the logical clock of
// the one that begins with the event.
func appendEmpty(b, event []byte, serverID uint32, now time.Time) ([]byte, error) {
	h, err := binlog.ParseHeader(event)
	if err != nil {
		return b, err
	}
	if int(h.Size) > len(event) {
		return b, fmt.Errorf("%v event of %d bytes has %d: %w", h.Type, h.Size, len(event), binlog.ErrMalformed)
	}
	t, err := binlog.ParseGTID(event[:h.Size])
	if err != nil {
		return b, err
	}
	size := func(b []byte) uint32 { return uint32(len(b)) }
	begin := size(appendQuery(nil, "BEGIN", serverID, now, 0))
	commit := size(appendQuery(nil, "COMMIT", serverID, now, 0))
	if t.GTID.Tag != "" {
		// The event passes as it is. It tells the length that was; replicas
		// find the end of a transaction by its events.
		b = append(b, event[:h.Size]...)
		b = appendQuery(b, "BEGIN", serverID, now, h.LogPos)
		return appendQuery(b, "COMMIT", serverID, now, h.LogPos+begin), nil
	}
	t.Length = 0 // of one byte in its encoding, as is the length of all this
	head := size(binlog.AppendGTID(nil, t, serverID, now, 0))
	t.Length = uint64(head + begin + commit)
	// The replica shows where the events end; they end where the statement did.
	at := max(h.LogPos, head) - head
	b = binlog.AppendGTID(b, t, serverID, now, at)
	b = appendQuery(b, "BEGIN", serverID, now, at+head)
	return appendQuery(b, "COMMIT", serverID, now, at+head+begin), nil
}

// remind sends empty transactions for what the replica has executed and forgotten,
// and the log has trimmed. They have no logical clock: each waits for all before it.
func (d *dump) remind(forgotten *gtid.Set) error {
	if forgotten.Empty() {
		return nil
	}
	d.s.logger.Info("transactions_not_repeated", "count", forgotten.Count(), "reason", "they are trimmed, the replica has later ones")
	now, id := time.Now(), d.s.o.ServerID
	var b []byte
	for g := range forgotten.All() {
		t := binlog.Transaction{GTID: g}
		at := uint32(d.out.pos)
		head := len(binlog.AppendGTID(b[:0], t, id, now, at))
		body := len(appendQuery(appendQuery(b[:0], "BEGIN", id, now, 0), "COMMIT", id, now, 0))
		t.Length = uint64(head + body)
		b = binlog.AppendGTID(b[:0], t, id, now, at)
		b = appendQuery(b, "BEGIN", id, now, at+uint32(len(b)))
		b = appendQuery(b, "COMMIT", id, now, at+uint32(len(b)))
		if err := d.out.write(b); err != nil {
			return err
		}
		if err := d.sent(&entry.Txn{GTID: g, Size: t.Length}); err != nil {
			return err
		}
	}
	return nil
}

func appendQuery(b []byte, sql string, serverID uint32, now time.Time, position uint32) []byte {
	body := append(make([]byte, queryFixed+1), sql...)
	return binlog.AppendEvent(b, binlog.Header{Timestamp: uint32(now.Unix()), Type: binlog.Query, ServerID: serverID}, body, position)
}
