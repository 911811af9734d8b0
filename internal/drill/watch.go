package drill

import (
	"context"
	"sync"
	"time"

	"github.com/phxsql/phxsql/internal/api"
)

// The watch over the nodes.
const (
	watchEvery = 200 * time.Millisecond
	watchLimit = 600 * time.Millisecond // a node that does not answer within is silent
)

// stateSilent is the state of a node that says nothing.
const stateSilent = api.State("silent")

// Change is a node's change of state.
type Change struct {
	At    int64     `json:"at"` // nanoseconds since the drill began
	Node  int       `json:"node"`
	State api.State `json:"state"`
}

// watch asks each node for its state, again and again, and keeps the changes.
type watch struct {
	*crew
	mu      sync.Mutex
	changes []Change
}

// startWatch starts a watch over the nodes that there are now.
func startWatch(ctx context.Context, c *Cluster, now func() int64) *watch {
	w := &watch{crew: newCrew(ctx)}
	for _, n := range c.Nodes {
		client, id := n.client, n.ID
		w.wg.Go(func() {
			last := api.State("")
			for w.ctx.Err() == nil {
				state := ask(w.ctx, client, id)
				if state != last && w.ctx.Err() == nil {
					w.note(Change{now(), id, state})
					last = state
				}
				wait(w.ctx, watchEvery)
			}
		})
	}
	return w
}

func ask(ctx context.Context, client *api.Client, id int) api.State {
	ctx, cancel := context.WithTimeout(ctx, watchLimit)
	defer cancel()
	st, err := client.Status(ctx)
	if err != nil {
		return stateSilent
	}
	for _, m := range st.Members {
		if int(m.ID) == id {
			return m.State
		}
	}
	return stateSilent
}

func (w *watch) note(c Change) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.changes = append(w.changes, c)
}

// Changes returns what was seen.
func (w *watch) Changes() []Change {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]Change(nil), w.changes...)
}
