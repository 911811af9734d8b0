package relay

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/phxsql/phxsql/internal/binlog"
	"github.com/phxsql/phxsql/internal/gtid"
)

// A server executes DROP PROCEDURE, DROP FUNCTION and DROP LIBRARY in two steps. The first
// is one transaction of the engine with the statement's GTID. Only when it is committed does
// the second remove what accounts were granted on the routine, in a transaction that has
// no GTID and stands in no binary log. A server that ends between the two has executed
// the statement and keeps the grants: they would count for the next routine of that name.
//
// Grants on a routine that does not exist are no proof of that: DROP DATABASE leaves them,
// on every member. What tells is the log. Nobody can be granted anything on a routine that
// does not exist, so the server has a grant too much if the newest statement about the
// routine that it has executed has dropped it. A DROP IF EXISTS of one that was not
// there does nothing, not even to grants; it has no transaction of the engine, and its
// event says so.

// The types of a Routine.
const (
	Procedure = "PROCEDURE"
	Function  = "FUNCTION"
	Library   = "LIBRARY" // of MySQL 9.2 and newer
)

// Routine names a stored procedure or function, or a library of code for them.
type Routine struct {
	Type, Schema, Name string
}

const (
	// maxRoutineScan is how many bytes of the log are read for dropped routines: the
	// newest ones that the server has. What a server loses in a crash is the work of
	// seconds.
	maxRoutineScan = 256 << 20
	// maxRoutineHead is how much of a transaction is looked at: enough for its GTID and
	// the names in its statement.
	maxRoutineHead = 64 << 10
)

// ErrLogShort says that a server holds transactions that are not known to be chosen.
var ErrLogShort = errors.New("the server holds what the log does not know yet")

// Dropped returns the routines of which the newest statement that a server has executed
// is an effective DROP, from the newest maxRoutineScan bytes of the log that the server
// holds. Their number is bounded by that.
func (j *Journal) Dropped(ctx context.Context, have *gtid.Set) ([]Routine, error) {
	if err := j.WaitThrough(ctx, j.log.Chosen()); err != nil {
		return nil, err
	}
	if !j.Contains(have) {
		return nil, fmt.Errorf("find dropped routines: %w", ErrLogShort)
	}
	at := j.behind(have, maxRoutineScan)
	d := dropped{holes: newHoles(have, at.executed), found: map[Routine]bool{}, head: make([]byte, maxRoutineHead)}
	w := walk{log: j.log, fold: at.fold}
	for i, end := at.next, j.Through(); i <= end && d.holes.within(); i++ {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("find dropped routines: %w", err)
		}
		if err := w.step(i, d.pass); err != nil {
			return nil, fmt.Errorf("find dropped routines at instance %d: %w", i, err)
		}
	}
	list := make([]Routine, 0, len(d.found))
	for r := range d.found {
		list = append(list, r)
	}
	return list, nil
}

// behind returns a checkpoint so old that about as many bytes of the log that a server
// holds stand behind it; the oldest one that can be read if there are fewer.
func (j *Journal) behind(have *gtid.Set, bytes uint64) checkpoint {
	first := j.log.First()
	j.mu.Lock()
	defer j.mu.Unlock()
	list := j.index.list
	n := max(0, j.index.within(have)-1)
	newest := list[n].bytes
	for n > 0 && list[n-1].next >= first && list[n].bytes+bytes > newest {
		n--
	}
	for n < len(list)-1 && list[n].next < first {
		n++
	}
	return list[n]
}

// dropped follows the statements about routines.
type dropped struct {
	holes holes
	found map[Routine]bool
	head  []byte // maxRoutineHead bytes, reused
}

func (d *dropped) pass(g gtid.GTID, events io.Reader) error {
	if !d.holes.has(g) {
		return nil
	}
	n, err := io.ReadFull(events, d.head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	switch r, change := routineOf(d.head[:n]); change {
	case routineDropped:
		d.found[r] = true
	case routineCreated:
		for f := range d.found { // whatever the server's rules for capital letters are
			if f.Type == r.Type && strings.EqualFold(f.Schema, r.Schema) && strings.EqualFold(f.Name, r.Name) {
				delete(d.found, f)
			}
		}
	case routineUnreadable:
		clear(d.found) // it may have created any of them
	}
	return nil
}

// routineOf tells what the transaction that begins with events does to a routine. A DROP
// without effect does nothing.
func routineOf(events []byte) (Routine, routineChange) {
	h, err := binlog.ParseHeader(events)
	if err != nil || int(h.Size) > len(events) || h.Type != binlog.GTID && h.Type != binlog.GTIDTagged {
		return Routine{}, routineUntouched
	}
	events = events[h.Size:]
	h, err = binlog.ParseHeader(events)
	if err != nil || h.Type != binlog.Query || h.Size < binlog.HeaderSize+binlog.ChecksumSize {
		return Routine{}, routineUntouched
	}
	body, cut := events[binlog.HeaderSize:], int(h.Size) > len(events)
	if !cut {
		body = events[binlog.HeaderSize : h.Size-binlog.ChecksumSize]
	}
	text := queryBytes(body)
	if text == nil {
		return Routine{}, routineUntouched
	}
	st := readStatus(body)
	r, change := parseRoutine(string(text), cut)
	if change == routineUntouched || change == routineDropped && !st.effective {
		return Routine{}, routineUntouched
	}
	if r.Schema == "" {
		end := len(body) - len(text) - 1
		r.Schema = string(body[end-int(body[8]) : end]) // the server's own characters: UTF-8
	}
	if !st.readable(r.Schema) || !st.readable(r.Name) {
		return Routine{}, routineUnreadable
	}
	return r, change
}

// The status variables of a query event each begin with their type; what follows has a
// length that the type tells. They stand in the order of their numbers, but for a few.
// Source: Query_event in MySQL's libs/mysql/binlog/event/statement_events.h.
const (
	statusCharset   = 4  // u16 collation of the client, and two more
	statusTimeZone  = 5  // length u8, text
	statusCatalog   = 6  // the same
	statusInvoker   = 11 // twice the same: user, host
	statusDatabases = 12 // count u8, 0-ended names; none if the count is above 16
	statusXID       = 17 // u64: the statement is one transaction of the engine
)

// statusSizes are those of the others.
var statusSizes = map[byte]int{0: 4, 1: 8, 3: 4, statusCharset: 6, 7: 2, 8: 2, 9: 8, 10: 4, 13: 3, 16: 1, statusXID: 8, 18: 2, 19: 1, 20: 1}

const maxStatusDatabases = 16

// queryStatus is what is needed of them.
type queryStatus struct {
	effective bool   // the statement has changed something in the engine
	client    []byte // collation of the client, u16 where it stands in the event; nil if it is not told
}

// readStatus reads the status variables in the body of a query event that has a text, up to
// one that it does not know.
func readStatus(body []byte) queryStatus {
	var st queryStatus
	b := body[queryFixed : queryFixed+int(binary.LittleEndian.Uint16(body[11:]))]
	for len(b) > 0 {
		kind := b[0]
		n := statusSize(b)
		if n == 0 || n > len(b) {
			return st
		}
		switch kind {
		case statusCharset:
			st.client = b[1:3]
		case statusXID:
			st.effective = true
		}
		b = b[n:]
	}
	return st
}

// statusSize is how many bytes the first variable takes, with its type; 0 if that is not
// known.
func statusSize(b []byte) int {
	text := func(at int) int { // the end of a text with its length before it
		if at == 0 || at >= len(b) {
			return 0
		}
		return at + 1 + int(b[at])
	}
	switch b[0] {
	case statusTimeZone, statusCatalog:
		return text(1)
	case statusInvoker:
		return text(text(1))
	case statusDatabases:
		if len(b) < 2 {
			return 0
		}
		if b[1] > maxStatusDatabases {
			return 2
		}
		at := 2
		for range b[1] {
			end := bytes.IndexByte(b[at:], 0)
			if end < 0 {
				return 0
			}
			at += end + 1
		}
		return at
	}
	if n, ok := statusSizes[b[0]]; ok {
		return 1 + n
	}
	return 0
}

// readable reports whether it is known which characters a name has: its bytes are ASCII,
// or the client's characters are UTF-8.
func (st queryStatus) readable(name string) bool {
	for i := range len(name) {
		if name[i] >= utf8.RuneSelf {
			return utf8.ValidString(name) && st.isUTF8()
		}
	}
	return true
}

// isUTF8 reports whether the client's collation is one of utf8mb3 or utf8mb4, by its id in
// information_schema.collations.
func (st queryStatus) isUTF8() bool {
	if st.client == nil {
		return false
	}
	switch id := binary.LittleEndian.Uint16(st.client); {
	case id == 33, id == 76, id == 83, id >= 192 && id <= 215, id == 223: // utf8mb3
		return true
	case id == 45, id == 46, id >= 224 && id <= 247, id >= 255 && id <= 323: // utf8mb4
		return true
	}
	return false
}
