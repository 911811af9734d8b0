package host

import (
	"sync"

	"github.com/phxsql/phxsql/paxos"
)

// defaultRecent is Options.RecentBytes where it is not given.
const defaultRecent = 16 << 20

// recent keeps the newest chosen entries, a run of instances.
type recent struct {
	limit int // bytes
	mu    sync.RWMutex
	ents  []paxos.Entry
	bytes int
}

func (r *recent) add(es []paxos.Entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range es {
		r.ents = append(r.ents, e)
		r.bytes += len(e.Data) + 64
	}
	n := 0
	for r.bytes > r.limit && n < len(r.ents)-1 {
		r.bytes -= len(r.ents[n].Data) + 64
		n++
	}
	clear(r.ents[:n])
	r.ents = r.ents[n:]
}

func (r *recent) reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ents, r.bytes = nil, 0
}

func (r *recent) get(i paxos.Instance) (paxos.Entry, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if len(r.ents) == 0 || i < r.ents[0].Instance || i > r.ents[len(r.ents)-1].Instance {
		return paxos.Entry{}, false
	}
	return r.ents[i-r.ents[0].Instance], true
}
