// Package evidence keeps what a node takes back: the transactions at the end of a
// server's binary log that were never chosen. The restart recipe deletes them; a
// copy stays on the node, with the judgement whether anything of it had been
// acknowledged.
//
// Life of a file: before a start of the server its newest binary log gets a second
// name in the folder, beside a Life that says whose it is. When the node knows the
// log again, Judge compares the two. What was chosen is dropped, the rest stays as
// a folder of its own:
//
//	discarded/1-binlog.000007           waits to be judged (a link, no copy)
//	discarded/1-binlog.000007.life      whose it is: JSON
//	discarded/2026-11-22T20.01.02-2/    judged
//	    tail.binlog                     the transactions, readable by mysqlbinlog
//	    evidence.json                   the judgement
//
// Invariants: only whole transactions count; a file that is torn ends where it is
// torn. The folder is bounded by MaxOne, MaxAll and MaxFolders; the oldest goes.
package evidence

import (
	"bufio"
	"errors"
	"fmt"
	"io"

	"github.com/phxsql/phxsql/internal/binlog"
	"github.com/phxsql/phxsql/internal/gtid"
)

// Txn is a whole transaction of a binary log and where it stands.
type Txn struct {
	GTID       gtid.GTID
	Start, End int64 // offsets in the file
}

// The largest GTID event and the largest transaction that are believed.
const (
	maxGTIDEvent = 4 << 10
	maxTxn       = 1 << 50
)

// Scan calls f for every whole transaction of a binary log, in order, and returns
// how long the head of the file is: everything before the first transaction. A file
// that ends within something, or holds what is no event, ends there.
func Scan(r io.Reader, f func(Txn) error) (head int64, err error) {
	s := scanner{r: bufio.NewReaderSize(r, 1<<20)}
	magic := make([]byte, binlog.MagicSize)
	if _, err := io.ReadFull(s.r, magic); err != nil || string(magic) != "\xfebin" {
		return 0, fmt.Errorf("scan binary log: it does not begin as one: %w", binlog.ErrMalformed)
	}
	s.at, head = int64(len(magic)), int64(len(magic))
	for {
		t, found, err := s.next()
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, binlog.ErrMalformed) {
			return head, nil
		}
		if err != nil {
			return head, fmt.Errorf("scan binary log: %w", err)
		}
		if !found {
			if !s.any {
				head = s.at
			}
			continue
		}
		s.any = true
		if err := f(t); err != nil {
			return head, err
		}
	}
}

type scanner struct {
	r   *bufio.Reader
	at  int64
	any bool // a transaction was found
}

// next passes one event, or the whole transaction that begins there.
func (s *scanner) next() (t Txn, found bool, err error) {
	b, err := s.r.Peek(binlog.HeaderSize)
	if err != nil {
		return t, false, io.ErrUnexpectedEOF
	}
	h, err := binlog.ParseHeader(b)
	if err != nil {
		return t, false, err
	}
	size := int64(h.Size)
	if h.Type == binlog.GTID || h.Type == binlog.GTIDTagged {
		if size > maxGTIDEvent {
			return t, false, fmt.Errorf("gtid event of %d bytes: %w", size, binlog.ErrMalformed)
		}
		event, err := s.r.Peek(int(size))
		if err != nil {
			return t, false, io.ErrUnexpectedEOF
		}
		if !binlog.Verify(event) {
			return t, false, fmt.Errorf("gtid event: checksum: %w", binlog.ErrMalformed)
		}
		txn, err := binlog.ParseGTID(event)
		if err != nil {
			return t, false, err
		}
		if txn.Length > maxTxn {
			return t, false, fmt.Errorf("transaction of %d bytes: %w", txn.Length, binlog.ErrMalformed)
		}
		size = int64(txn.Length)
		t = Txn{GTID: txn.GTID, Start: s.at, End: s.at + size}
		found = true
	}
	if n, err := io.CopyN(io.Discard, s.r, size); err != nil {
		return t, false, fmt.Errorf("%d of %d bytes: %w", n, size, io.ErrUnexpectedEOF)
	}
	s.at += size
	return t, found, nil
}

// Judgement is what a binary log holds beyond the log that was chosen.
type Judgement struct {
	Head   int64     // size of the file's head
	From   int64     // where the first transaction that was not chosen begins; 0: there is none
	To     int64     // where the last one ends
	Set    *gtid.Set // of those that were not chosen
	Count  uint64    // of those
	Chosen uint64    // of all others
	// InEngine are those of the set that the server holds, BeforeAck those that stand
	// before the acknowledged position.
	InEngine, BeforeAck uint64
}

// Known is what a binary log is compared with.
type Known struct {
	Log    *gtid.Set // everything that is in the log and counts
	Engine *gtid.Set // everything that the server holds; nil: not known
	Acked  int64     // everything before it in the file was acknowledged; 0: not known
}

// Judge compares a binary log with what is known. Most often what was not chosen is the
// end of the file. But a transaction may be chosen behind one that was not: a leader in
// between had something else chosen at the instance of the latter, and a later one found
// the former. No client was told of either, and neither could see what the other did: both
// waited in their COMMIT.
func Judge(r io.Reader, k Known) (Judgement, error) {
	j := Judgement{Set: &gtid.Set{}}
	head, err := Scan(r, func(t Txn) error {
		if k.Log.Contains(t.GTID) {
			j.Chosen++
			return nil
		}
		if j.From == 0 {
			j.From = t.Start
		}
		j.To = t.End
		j.Count++
		j.Set.Add(t.GTID)
		if k.Engine != nil && k.Engine.Contains(t.GTID) {
			j.InEngine++
		}
		if t.End <= k.Acked {
			j.BeforeAck++
		}
		return nil
	})
	j.Head = head
	return j, err
}
