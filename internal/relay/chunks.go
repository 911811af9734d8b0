package relay

import (
	"fmt"
	"io"

	"github.com/phxsql/phxsql/internal/entry"
	"github.com/phxsql/phxsql/paxos"
)

// chunks reads the chunks of a transaction a second time, when the last one is
// chosen, one at a time.
type chunks struct {
	log  Log
	fold fold // with the chunk that is due
	at   paxos.Instance
	last paxos.Instance
	v    entry.Value
	rest []byte // of the newest chunk, for Read
}

// newChunks returns the chunks of a transaction that is completed by the value at
// last, to which the fold has just been applied.
func newChunks(log Log, f fold, t entry.Txn, last paxos.Instance) *chunks {
	f.open, f.txn, f.next = true, t, 0
	return &chunks{log: log, fold: f, at: f.first, last: last}
}

// next returns the events of the next chunk, which are valid until the next call,
// and io.EOF behind the last one.
func (c *chunks) next() ([]byte, error) {
	for ; c.at <= c.last; c.at++ {
		e, err := c.log.Read(c.at)
		if err != nil {
			return nil, fmt.Errorf("read chunk at %d: %w", c.at, err)
		}
		if e.Kind != paxos.Normal {
			continue
		}
		if err := c.v.Decode(e.Data); err != nil {
			return nil, fmt.Errorf("read chunk at %d: %w", c.at, err)
		}
		if !c.fold.continues(&c.v) {
			continue // a void value in between
		}
		c.at++
		c.fold.next += uint64(len(c.v.Events))
		return c.v.Events, nil
	}
	if t := &c.fold.txn; c.fold.next != t.Size {
		return nil, fmt.Errorf("chunks of %v hold %d bytes, want %d: %w", t.GTID, c.fold.next, t.Size, entry.ErrMalformed)
	}
	return nil, io.EOF
}

// Read gives the events of all chunks.
func (c *chunks) Read(p []byte) (int, error) {
	for len(c.rest) == 0 {
		var err error
		if c.rest, err = c.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}
