package relay

import (
	"github.com/phxsql/phxsql/internal/gtid"
	"github.com/phxsql/phxsql/paxos"
)

// Held returns the newest instance through which a server that has executed the set
// needs nothing from the log, if the set is on its disk. It is exact for a server that
// has executed all that is followed, and at most the distance of two checkpoints too
// low for others. What is prepared by XA and not decided is needed: a replica that is
// killed rolls it back.
func (j *Journal) Held(set *gtid.Set) paxos.Instance {
	j.mu.Lock()
	defer j.mu.Unlock()
	held, undecided := paxos.Instance(0), paxos.Instance(0)
	if set.ContainsSet(j.executed) {
		held, undecided = j.next-1, j.undecided()
		if j.fold.open {
			held = j.fold.first - 1
		}
	} else if n := j.index.within(set); n > 0 {
		c := &j.index.list[n-1]
		held, undecided = c.next-1, c.undecided
	}
	if undecided != 0 {
		held = min(held, undecided-1)
	}
	return held
}

// Undecided is where the first of the transactions begins that are prepared by XA and
// not decided; 0 if there is none.
func (j *Journal) Undecided() paxos.Instance {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.undecided()
}

// Cut returns the newest state that the log may be trimmed to: it is not beyond
// through, and at least keep bytes of values follow it. False: there is none
// beyond the log's present beginning.
func (j *Journal) Cut(through paxos.Instance, keep uint64) (Base, bool) {
	first := j.log.First()
	j.mu.Lock()
	defer j.mu.Unlock()
	for n := len(j.index.list) - 1; n >= 0; n-- {
		c := &j.index.list[n]
		if c.next <= first {
			break
		}
		if c.next-1 <= through && j.bytes-c.bytes >= keep {
			return c.base(), true
		}
	}
	return Base{}, false
}

// Locate returns a state of the log, as new as can be, that holds nothing which a
// server with the set needs again, if the log behind it is still there: the server
// goes on from it, even if it was killed. Something of the set stands behind it
// where that is possible: it shows how far the server is. See find.
func (j *Journal) Locate(set *gtid.Set) (Base, error) {
	first := j.log.First()
	j.mu.Lock()
	defer j.mu.Unlock()
	x := &j.index
	at, forgotten, err := x.find(set, first)
	if err != nil || !forgotten.Empty() {
		return at.base(), err
	}
	n := x.within(set)
	undecided := x.list[n-1].undecided
	before := func() bool { return n > 1 && x.list[n-2].next >= first }
	if x.list[n-1].executed.ContainsSet(set) && before() {
		n--
	}
	for undecided != 0 && x.list[n-1].next > undecided && before() {
		n--
	}
	return x.list[n-1].base(), nil
}

// Distance returns how many bytes of values follow the place where a server with the set
// begins to read: about what it has to execute; and how many precede it, counted from
// where this journal began. A *TrimmedError says that the log does not reach back so far.
func (j *Journal) Distance(set *gtid.Set) (left, passed uint64, err error) {
	first := j.log.First()
	j.mu.Lock()
	defer j.mu.Unlock()
	at, _, err := j.index.find(set, first)
	if err != nil {
		return 0, 0, err
	}
	return j.bytes - at.bytes, at.bytes, nil
}

// Newest returns the newest state that a journal can begin from.
func (j *Journal) Newest() Base {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.index.list[len(j.index.list)-1].base()
}

// Forget drops what the journal remembers of the log before an instance.
func (j *Journal) Forget(first paxos.Instance) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.index.forget(first)
}
