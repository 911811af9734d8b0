package relay

import (
	"fmt"
	"slices"
	"sort"

	"github.com/phxsql/phxsql/internal/gtid"
	"github.com/phxsql/phxsql/paxos"
)

// Limits of the index.
const (
	// checkpointBytes and checkpointInstances say how far apart checkpoints
	// are while the index is small. A replica re-reads at most that much.
	checkpointBytes     = 4 << 20
	checkpointInstances = 4096
	// maxIndexCost limits the memory of the index, in intervals of its GTID
	// sets plus a constant for each checkpoint (about 16 bytes each). At the
	// limit every other checkpoint is dropped and new ones are made half as
	// often, so a log of any length costs at most some 16 MiB.
	maxIndexCost   = 1 << 20
	checkpointCost = 16
)

// checkpoint is the state before an instance. It is never changed.
type checkpoint struct {
	next     paxos.Instance // the first instance that is not in the state
	fold     fold
	executed *gtid.Set
	members  []byte // the newest membership, encoded
	bytes    uint64 // of the values that the journal had followed
	// undecided is where the first transaction begins that is prepared by XA and
	// not decided; 0 if there is none.
	undecided paxos.Instance
	settings  *Settings // not changed
}

func (c *checkpoint) base() Base {
	return Base{Next: c.next, Executed: c.executed.Clone(), Epoch: c.fold.epoch, Members: c.members, Settings: c.settings}
}

func (c *checkpoint) cost() int { return checkpointCost + c.executed.Intervals() }

// index is the sparse index from a GTID set to the place in the log that a
// replica with that set must read from. The first checkpoint is the journal's
// own beginning.
type index struct {
	list   []checkpoint
	cost   int
	stride uint64 // how many times further apart than the constants say

	bytes     uint64 // since the newest checkpoint
	instances uint64
}

// note counts a value and reports whether a checkpoint is due.
func (x *index) note(bytes int) bool {
	x.bytes += uint64(bytes)
	x.instances++
	return x.bytes >= checkpointBytes*x.stride || x.instances >= checkpointInstances*x.stride
}

func (x *index) add(c checkpoint) {
	x.list = append(x.list, c)
	x.cost += c.cost()
	x.bytes, x.instances = 0, 0
	x.stride = max(x.stride, 1)
	if x.cost > maxIndexCost && len(x.list) > 2 {
		x.thin()
	}
}

// thin drops every other checkpoint but keeps the first.
func (x *index) thin() {
	kept := x.list[:0]
	x.cost = 0
	for i, c := range x.list {
		if i%2 == 0 {
			kept = append(kept, c)
			x.cost += c.cost()
		}
	}
	clear(x.list[len(kept):])
	x.list = kept
	x.stride *= 2
}

// forget drops the checkpoints before an instance, but the newest.
func (x *index) forget(first paxos.Instance) {
	n := 0
	for n < len(x.list)-1 && x.list[n].next < first {
		x.cost -= x.list[n].cost()
		n++
	}
	x.list = slices.Delete(x.list, 0, n)
}

// within returns how many of the checkpoints hold nothing that the set lacks: they
// are the first ones.
func (x *index) within(set *gtid.Set) int {
	return sort.Search(len(x.list), func(i int) bool { return !set.ContainsSet(x.list[i].executed) })
}

// find returns the newest checkpoint whose transactions are all in set and
// whose log is still there.
//
// If there is none it may be that the replica has forgotten transactions that are
// trimmed, which it has executed: see holes and undecided. It has if it holds something
// that stands behind them. Find then returns the oldest checkpoint that can be
// read, and those transactions. What is prepared and not decided is not trimmed.
func (x *index) find(set *gtid.Set, first paxos.Instance) (at checkpoint, forgotten *gtid.Set, err error) {
	n := x.within(set)
	if n > 0 && x.list[n-1].next >= first {
		return x.list[n-1], &gtid.Set{}, nil
	}
	missing := x.missing(set, first)
	for _, c := range x.list {
		if c.next < first {
			continue
		}
		if c.executed.ContainsSet(set) || tagged(missing) {
			break
		}
		return c, missing, nil
	}
	return checkpoint{}, nil, &TrimmedError{First: first, Missing: missing}
}

// tagged reports whether a GTID of the set has a tag: an empty transaction with one
// cannot be made without the original.
func tagged(set *gtid.Set) bool {
	for s := range set.Sources() {
		if s.Tag != "" {
			return true
		}
	}
	return false
}

// missing is what a replica lacks before the oldest checkpoint that can be read.
func (x *index) missing(set *gtid.Set, first paxos.Instance) *gtid.Set {
	for _, c := range x.list {
		if c.next >= first {
			m := c.executed.Clone()
			m.Subtract(set)
			return m
		}
	}
	return &gtid.Set{}
}

// TrimmedError says that the log does not reach back far enough for a replica.
type TrimmedError struct {
	First   paxos.Instance // oldest instance that is kept
	Missing *gtid.Set      // what the replica lacks and the log cannot give
}

func (e *TrimmedError) Error() string {
	return fmt.Sprintf("find start in log: instances before %d are trimmed and the replica lacks %s from them; rebuild it from another member",
		e.First, clipSet(e.Missing))
}

// clipSet keeps a GTID set short in a message.
func clipSet(s *gtid.Set) string {
	text := s.String()
	if len(text) > 300 {
		return text[:300] + "..."
	}
	return text
}
