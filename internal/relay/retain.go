package relay

import (
	"github.com/phxsql/phxsql/internal/gtid"
	"github.com/phxsql/phxsql/paxos"
)

// Held returns the newest instance through which a server that has executed the set
// needs nothing from the log. It is exact for a server that has executed all that is
// followed, and at most the distance of two checkpoints too low for others.
func (j *Journal) Held(set *gtid.Set) paxos.Instance {
	j.mu.Lock()
	defer j.mu.Unlock()
	if set.ContainsSet(j.executed) {
		if j.fold.open {
			return j.fold.first - 1
		}
		return j.next - 1
	}
	if n := j.index.within(set); n > 0 {
		return j.index.list[n-1].next - 1
	}
	return 0
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

// Locate returns the newest state of the log that holds nothing which the set lacks,
// if the log behind it is still there: a server with that set goes on from it.
func (j *Journal) Locate(set *gtid.Set) (Base, error) {
	c, err := j.start(set)
	if err != nil {
		return Base{}, err
	}
	return c.base(), nil
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
