package node

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/phxsql/phxsql/internal/host"
	"github.com/phxsql/phxsql/paxos"
	"golang.org/x/sync/semaphore"
)

// gateWidth is all of a group's gate.
const gateWidth = 1 << 30

// callSize is what a proposal costs in memory beyond its value, roughly.
const callSize = 256

// call is one Propose that waits for its answer.
type call struct {
	size  int64
	done  chan outcome // room for one
	state atomic.Int32
}

// The states of a call.
const (
	waits  int32 = iota
	deputy       // it was asked to apply
	gone         // it waits no more
)

type outcome struct {
	instance paxos.Instance
	result   any
	err      error
	apply    bool // no outcome yet: apply what is chosen
}

var calls = sync.Pool{New: func() any { return &call{done: make(chan outcome, 1)} }}

// told is a call whose value is chosen but perhaps not applied yet.
type told struct {
	instance paxos.Instance
	call     *call
}

// group is one group of a node: the replicated log and what applies it.
//
// Three goroutines meet here. The proposers queue values. The group's loop in
// package host tells, in one go, which of them are chosen (chosen, advanced). The
// applier reads the log in order and answers the proposers; a proposer that is alone
// does that itself as its deputy, which spares the way there and back.
type group struct {
	node   *Node
	opt    Group
	log    *host.Group
	space  *semaphore.Weighted // bytes between Propose and its answer
	gate   *semaphore.Weighted // 1 to queue a value, gateWidth to queue pieces with nothing between
	window *semaphore.Weighted // bytes of pieces on their way
	fresh  []told              // touched by the loop only

	mu     sync.Mutex
	queue  []told         // ascending; guarded by mu
	target paxos.Instance // apply through here; guarded by mu
	over   bool           // nobody applies any more; guarded by mu
	wake   chan struct{}

	applying sync.Mutex     // held by who applies
	batch    []told         // guarded by applying
	base     paxos.Instance // where the state machine stood at Open or Restore; guarded by applying
	known    paxos.Instance // where the log stood then; guarded by applying
	unread   paxos.Instance // what is behind known and not behind base is not read from here on; guarded by applying
	chapters []chapter      // memberships since then, ascending; guarded by applying

	ended   atomic.Bool // the same as over, for the applier
	applied atomic.Uint64
	given   atomic.Uint64 // newest instance that the state machine knows of: <= applied, where some carry no value
	saved   atomic.Uint64 // of the newest checkpoint
	moved   notice        // applied has advanced

	candidacy atomic.Pointer[candidacy]
}

// candidacy says whether this member may lead, and how long it lets others go first.
type candidacy struct {
	able  bool
	delay time.Duration
}

// stand tells the log the candidacy. It forgets it when it is opened anew.
func (g *group) stand() {
	c := g.candidacy.Load()
	g.log.SetCandidacy(c.able, c.delay)
}

func (n *Node) startGroup(o Group) (*group, error) {
	g := &group{
		node: n, opt: o, space: semaphore.NewWeighted(n.opt.MaxInFlight), gate: semaphore.NewWeighted(gateWidth),
		window: semaphore.NewWeighted(pieceWindow), wake: make(chan struct{}, 1),
	}
	g.moved.init()
	g.candidacy.Store(&candidacy{!o.Never, o.Delay})
	var err error
	if g.log, err = n.host.StartObserved(o.ID, n.opt.config(), g.advanced); err != nil {
		return nil, err
	}
	if err := g.checkLog(); err != nil {
		return nil, err
	}
	if o.Machine != nil {
		at := o.Machine.Applied()
		if first := g.log.First(); at+1 < first {
			return nil, fmt.Errorf("replay from instance %d, but the log begins at %d (hint: restore a newer checkpoint): %w", at+1, first, ErrTrimmed)
		}
		g.applied.Store(uint64(at))
		if _, ok := o.Machine.(Checkpointer); ok {
			g.saved.Store(uint64(at))
		}
	} else {
		g.applied.Store(uint64(g.log.Chosen()))
	}
	g.begin(paxos.Instance(g.applied.Load()), g.log.Chosen(), g.log.Leader().Members)
	g.raise(g.log.Chosen())
	return g, nil
}

// checkLog refuses a directory that is not the one this member joined with.
func (g *group) checkLog() error {
	m, ok := g.log.Leader().Members.Find(g.node.opt.ID)
	if ok && m.Log != "" && m.Log != g.node.log.Identity() {
		return fmt.Errorf("member %d joined with log %s, the directory holds %s (hint: a copy of another node's directory?): %w",
			m.ID, m.Log, g.node.log.Identity(), ErrWrongLog)
	}
	return nil
}

// Propose gives a value to the group and returns when it was chosen and applied
// here, with its instance and what Apply returned. ErrNotLeader, ErrTooLarge,
// ErrOverload, ErrNoGroup and ErrClosed mean that it was not proposed; ErrUnknown that
// nobody here knows. The node keeps the value, which must not be changed any more.
func (n *Node) Propose(ctx context.Context, id paxos.Group, value []byte) (paxos.Instance, any, error) {
	g, err := n.group(id)
	if err != nil {
		return 0, nil, fmt.Errorf("propose: %w", err)
	}
	if len(value) > MaxValue {
		return 0, nil, fmt.Errorf("propose %d bytes, limit %d: %w", len(value), MaxValue, ErrTooLarge)
	}
	o := g.propose(ctx, value)
	if o.err != nil {
		return 0, nil, fmt.Errorf("propose to group %d: %w", id, o.err)
	}
	return o.instance, o.result, nil
}

func (g *group) propose(ctx context.Context, value []byte) outcome {
	if !g.leads() {
		return outcome{err: ErrNotLeader}
	}
	if count := split(value); count > 0 {
		return g.proposePieces(ctx, value, count)
	}
	if err := g.gate.Acquire(ctx, 1); err != nil {
		return outcome{err: fmt.Errorf("%w: %w", ErrOverload, err)}
	}
	return g.proposeOne(ctx, value, 1)
}

// proposeOne proposes what fits into one instance. The caller has so much of the
// gate, which is given back when the value is queued. Who waits for space has the gate
// already: those who have space never wait for it.
func (g *group) proposeOne(ctx context.Context, value []byte, width int64) outcome {
	size := int64(len(value)) + callSize
	if err := g.space.Acquire(ctx, size); err != nil {
		g.gate.Release(width)
		return outcome{err: fmt.Errorf("%w: %w", ErrOverload, err)}
	}
	c := calls.Get().(*call)
	c.size = size
	c.state.Store(waits)
	err := g.log.ProposeHere(value, func(i paxos.Instance, err error) { g.chosen(c, i, err) })
	g.gate.Release(width)
	if err != nil {
		g.space.Release(size)
		return outcome{err: err}
	}
	var o outcome
	select {
	case o = <-c.done:
	case <-ctx.Done():
		if c.state.CompareAndSwap(waits, gone) {
			return outcome{err: fmt.Errorf("%w: %w", ErrUnknown, ctx.Err())}
		}
		o = <-c.done
	}
	if o.apply {
		g.applyChosen()
		o = <-c.done
	}
	calls.Put(c)
	return o
}

func (g *group) leads() bool { return g.log.Leader().Leader == g.node.opt.ID }

func (g *group) answer(c *call, o outcome) {
	g.space.Release(c.size)
	c.done <- o
}

// chosen is called by the loop once for each proposal, in order.
func (g *group) chosen(c *call, i paxos.Instance, err error) {
	switch {
	case err != nil:
		g.answer(c, outcome{err: fmt.Errorf("%w: %w", ErrUnknown, err)})
	case g.opt.Machine == nil:
		g.answer(c, outcome{instance: i})
	default:
		g.fresh = append(g.fresh, told{i, c})
	}
}

// advanced is called by the loop after the proposers of everything through i were
// told. Both become visible to the applier at once: it can never pass an instance
// whose proposer it does not know yet.
func (g *group) advanced(i paxos.Instance) {
	g.mu.Lock()
	g.queue = append(g.queue, g.fresh...)
	g.target = i
	over := g.over
	alone := len(g.queue) == 1 && len(g.fresh) == 1 && !over
	g.mu.Unlock()
	if alone {
		if c := g.fresh[0].call; c.state.CompareAndSwap(waits, deputy) {
			c.done <- outcome{apply: true}
			g.fresh = g.fresh[:0]
			return
		}
	}
	clear(g.fresh)
	g.fresh = g.fresh[:0]
	if over {
		g.abandon(nil)
		return
	}
	g.signal()
}

func (g *group) raise(i paxos.Instance) {
	g.mu.Lock()
	g.target = max(g.target, i)
	g.mu.Unlock()
	g.signal()
}

func (g *group) signal() {
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

// apply is the applier's goroutine.
func (g *group) apply() {
	for {
		select {
		case <-g.node.ctx.Done():
			g.abandon(nil)
			return
		case <-g.wake:
			g.applyChosen()
		}
	}
}

// applyChosen applies what was chosen until now and answers those who wait for it.
func (g *group) applyChosen() {
	g.applying.Lock()
	defer g.applying.Unlock()
	g.applyWaiting()
}

// applyWaiting is applyChosen for who holds applying.
func (g *group) applyWaiting() {
	g.mu.Lock()
	g.batch, g.queue = g.queue, g.batch[:0]
	target := g.target
	g.mu.Unlock()
	rest, err := g.applyThrough(target, g.batch)
	if err != nil {
		g.abandon(rest)
		if g.node.ctx.Err() == nil {
			g.node.fail(fmt.Errorf("apply group %d: %w", g.opt.ID, err))
		}
		return
	}
	clear(g.batch)
	g.checkpoint()
}

// applyThrough applies everything chosen through target and answers those who
// wait for it. It returns those it did not get to.
func (g *group) applyThrough(target paxos.Instance, waiting []told) ([]told, error) {
	i := paxos.Instance(g.applied.Load())
	for len(waiting) > 0 && waiting[0].instance <= i { // it came with a snapshot
		g.answer(waiting[0].call, outcome{err: fmt.Errorf("what came of instance %d: %w", waiting[0].instance, ErrUnknown)})
		waiting = waiting[1:]
	}
	for i < target {
		if g.isOver() {
			return waiting, ErrClosed
		}
		i++
		o := outcome{instance: i}
		if g.opt.Machine != nil {
			e, err := g.log.Read(i)
			if err != nil {
				return waiting, err
			}
			switch e.Kind {
			case paxos.Normal:
				if o, err = g.applyEntry(e); err != nil {
					return waiting, err
				}
			case paxos.Membership:
				g.turnPage(i, e.Data)
			}
		} else {
			g.given.Store(uint64(i))
		}
		g.applied.Store(uint64(i))
		if len(waiting) > 0 && waiting[0].instance == i {
			g.answer(waiting[0].call, o)
			waiting = waiting[1:]
		}
	}
	g.moved.send()
	return waiting, nil
}

// applyEntry applies the value that an entry completes, if it completes one.
func (g *group) applyEntry(e paxos.Entry) (outcome, error) {
	value, ok, err := g.whole(e, paxos.Instance(g.given.Load()))
	if err != nil {
		return outcome{}, err
	}
	if !ok {
		return outcome{err: errVoid}, nil // only a last piece is waited for
	}
	result := g.opt.Machine.Apply(e.Instance, value)
	g.given.Store(uint64(e.Instance))
	return outcome{instance: e.Instance, result: result}, nil
}

func (g *group) isOver() bool { return g.ended.Load() || g.node.ctx.Err() != nil }

// abandon answers those who wait for the applier when it ends.
func (g *group) abandon(rest []told) {
	g.mu.Lock()
	rest = append(rest, g.queue...)
	g.queue, g.over = nil, true
	g.ended.Store(true)
	g.mu.Unlock()
	for _, t := range rest {
		g.answer(t.call, outcome{err: fmt.Errorf("chosen at instance %d but not applied here: %w: %w", t.instance, ErrUnknown, ErrClosed)})
	}
}
