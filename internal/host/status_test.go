package host

import (
	"runtime"
	"testing"

	"github.com/phxsql/phxsql/paxos"
)

// TestStatusIsOfOneMoment: a leader is asked in the very turn in which it hands leadership
// over. It says that it leads and what it knows of the others, or neither.
func TestStatusIsOfOneMoment(t *testing.T) {
	_, nodes := startInMemory(t)
	lead := waitLeader(t, nodes...)
	g := lead.group
	g.turning.Lock() // no turn before both have come
	g.command(paxos.Event{Kind: paxos.EventTransfer, To: g.cfg.Self%3 + 1})
	got := make(chan Status, 1)
	go func() {
		st, err := g.Status(t.Context())
		if err != nil {
			t.Error(err)
		}
		got <- st
	}()
	for asked := false; !asked; runtime.Gosched() {
		g.mu.Lock()
		asked = len(g.looks) > 0
		g.mu.Unlock()
	}
	g.turning.Unlock()
	g.poke()
	if st := <-got; st.Ready != (st.Progress != nil) || st.Ready != (st.Leader == g.cfg.Self) {
		t.Errorf("leader %d, ready %v, knows of %d members", st.Leader, st.Ready, len(st.Progress))
	}
}
