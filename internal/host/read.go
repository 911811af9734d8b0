package host

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"

	"github.com/phxsql/phxsql/paxos"
)

// reads collects those who wait for a read index. One question at a time is out, for
// all who came before it was asked; who comes later waits for the next, because the
// answer says nothing about what happened after its question.
type reads struct {
	mu      sync.Mutex
	token   uint64 // of the question that is out; drawn anew by each process
	asked   paxos.Time
	flying  []chan paxos.Instance
	waiting []chan paxos.Instance
}

// drawToken begins the tokens of a process, so that answers to the process before
// are answers to nobody.
func drawToken() uint64 { return rand.Uint64() >> 1 }

// ReadIndex returns an instance with this property: a local state that has everything
// through it has all that was answered to any proposer or reader of the group before
// the call. Any member may ask, learners included; a leader under its lease answers
// itself, others ask it. The caller reads after WaitChosen and after having applied
// the instance. While nobody leads under a lease it waits, until ctx ends.
func (g *Group) ReadIndex(ctx context.Context) (paxos.Instance, error) {
	got := make(chan paxos.Instance, 1)
	g.reads.mu.Lock()
	g.reads.waiting = append(g.reads.waiting, got)
	g.reads.mu.Unlock()
	g.poke()
	select {
	case i := <-got:
		return i, nil
	case <-ctx.Done():
		g.reads.forget(got)
		return 0, fmt.Errorf("ask for read index of group %d: %w", g.id, ctx.Err())
	case <-g.host.stop:
		return 0, ErrClosed
	}
}

func (r *reads) forget(got chan paxos.Instance) {
	r.mu.Lock()
	defer r.mu.Unlock()
	is := func(c chan paxos.Instance) bool { return c == got }
	r.flying = slices.DeleteFunc(r.flying, is)
	r.waiting = slices.DeleteFunc(r.waiting, is)
}

// due returns the token of a question to be asked now: a new one, or one whose answer
// has not come for a heartbeat.
func (r *reads) due(now paxos.Time, patience paxos.Time) (token uint64, ask bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case len(r.flying) > 0 && now < r.asked+patience:
		return 0, false
	case len(r.flying) == 0 && len(r.waiting) == 0:
		return 0, false
	case len(r.flying) == 0:
		r.flying, r.waiting = r.waiting, nil
		r.token++
	}
	r.asked = now
	return r.token, true
}

// answered ends the question that is out, if the answer is its own, and reports
// whether another one waits.
func (r *reads) answered(a paxos.ReadIndex) (more bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if a.Token != r.token {
		return false
	}
	for _, c := range r.flying {
		c <- a.Instance
	}
	r.flying = nil
	return len(r.waiting) > 0
}

// stepReads asks for a read index if somebody waits for one. The clock is read again
// behind those who wait: a lease that ran when the turn began says nothing to who came
// after it was over.
func (g *Group) stepReads(now paxos.Time) {
	if token, ask := g.reads.due(now, paxos.Time(g.cfg.Heartbeat)); ask {
		g.rep.Step(g.host.opt.Clock(), paxos.Event{Kind: paxos.EventReadIndex, Token: token})
	}
}

func (g *Group) answerReads(as []paxos.ReadIndex) {
	for _, a := range as {
		if g.reads.answered(a) {
			g.work.Store(true)
		}
	}
}
