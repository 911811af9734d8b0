package host

import (
	"sync"
	"sync/atomic"

	"github.com/phxsql/phxsql/paxos"
)

// defaultKeep is Options.KeepBytes where it is not given.
const defaultKeep = 16 << 20

// memory is what the groups of a host keep of what was chosen, together. Below the limit
// a group keeps as much as it likes, so one that is busy alone has it all. Above it,
// each that has more than an even share goes down to that share in its next turn.
type memory struct {
	limit  int64
	used   atomic.Int64
	groups atomic.Int64
}

// share is what a group that now has so many bytes may keep.
func (m *memory) share(had, has int64) int64 {
	if m.used.Add(has-had) <= m.limit {
		return has
	}
	return min(has, m.limit/max(m.groups.Load(), 1))
}

// fit brings the group within its share of the memory. The turn that calls it is
// the only one that touches kept.
func (g *Group) fit(chosen []paxos.Entry) {
	core, m := g.rep.Core(), &g.host.memory
	has := core.Kept()
	share := m.share(g.kept, has)
	if share < has {
		core.Shed(share)
		m.used.Add(core.Kept() - has)
	}
	g.kept = core.Kept()
	g.recent.slide(chosen, core.KeptFrom())
}

// recent keeps, for readers, the chosen entries that the core keeps: a run of
// instances. Both refer to the same data.
type recent struct {
	mu   sync.RWMutex
	ents []paxos.Entry
}

// slide adds what was chosen and drops what is before an instance.
func (r *recent) slide(chosen []paxos.Entry, from paxos.Instance) {
	if len(chosen) == 0 && (len(r.ents) == 0 || r.ents[0].Instance >= from) { // nobody else writes
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ents = append(r.ents, chosen...)
	n := 0
	for n < len(r.ents) && r.ents[n].Instance < from {
		n++
	}
	clear(r.ents[:n])
	r.ents = r.ents[n:]
}

func (r *recent) reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ents = nil
}

func (r *recent) get(i paxos.Instance) (paxos.Entry, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if len(r.ents) == 0 || i < r.ents[0].Instance || i > r.ents[len(r.ents)-1].Instance {
		return paxos.Entry{}, false
	}
	return r.ents[i-r.ents[0].Instance], true
}
