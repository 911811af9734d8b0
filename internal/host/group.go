package host

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/phxsql/phxsql/internal/replica"
	"github.com/phxsql/phxsql/paxos"
	"github.com/phxsql/phxsql/wal"
)

// maxQueued limits the bytes of proposals that wait for room in the core. At
// the limit Propose blocks.
const maxQueued = 32 << 20

// Group is one running member. Its methods may be called from any goroutine,
// except that a Done callback must not call Propose, Close or anything that waits.
type Group struct {
	host *Host
	id   paxos.Group
	cfg  paxos.Config
	rep  *replica.Replica // guarded by turning

	signal  chan struct{}
	turning sync.Mutex   // held during a turn
	over    bool         // no more turns; guarded by turning
	kept    int64        // this group's part of Host.memory; guarded by turning
	batch   []proposal   // of the turn; guarded by turning
	work    atomic.Bool  // something came in after the last turn had begun
	owes    atomic.Bool  // a sync of the log lets this group go on
	due     atomic.Int64 // when the next tick is

	mu       sync.Mutex // guards the inbox
	inbox    []paxos.Message
	urgent   []paxos.Message
	commands []paxos.Event
	looks    []func(*paxos.Core)
	queue    proposals
	ticked   bool
	closed   bool
	leads    bool // Propose is welcome
	spare    []paxos.Message
	room     *sync.Cond // the queue has shrunk, or leads or closed changed

	view   atomic.Pointer[View]
	lease  atomic.Int64
	chosen atomic.Uint64

	waitMu  sync.Mutex
	waiters int
	advance chan struct{} // closed when chosen advances and somebody waits
	changed chan struct{} // closed at the next change of the view
	mended  chan struct{} // closed when a damaged entry is repaired next

	recent   recent
	reads    reads
	advanced func(paxos.Instance) // nil, or called when chosen has advanced
}

// View is what a group knows of itself; it is a snapshot.
type View struct {
	paxos.Leadership
	Members paxos.Members
}

// Progress is a leader's knowledge of one member.
type Progress = paxos.Progress

// Status is a view with numbers, for people.
type Status struct {
	View
	Chosen   paxos.Instance
	Proposed paxos.Instance // newest proposal of this leader
	Heard    paxos.Instance // newest instance that a leader said to be chosen
	Lacking  paxos.Instance // oldest instance that others still have, where this member needs older ones: it needs a snapshot; else 0
	Promised paxos.Ballot
	Lease    time.Duration // what is left of the own one
	Length   time.Duration // of the leases that this member grants
	First    paxos.Instance
	Progress []Progress // of a leader
}

func newGroup(h *Host, id paxos.Group, cfg paxos.Config, r *replica.Replica) *Group {
	g := &Group{
		host: h, id: id, cfg: cfg, rep: r,
		signal: make(chan struct{}, 1), advance: make(chan struct{}), changed: make(chan struct{}), mended: make(chan struct{}),
	}
	g.room = sync.NewCond(&g.mu)
	g.reads.token = drawToken()
	g.view.Store(&View{Members: r.Core().Members()})
	g.chosen.Store(uint64(r.Core().Chosen()))
	return g
}

func (g *Group) tick() {
	g.mu.Lock()
	g.ticked = true
	g.mu.Unlock()
	g.poke()
}

func (g *Group) receive(msgs []paxos.Message) {
	g.mu.Lock()
	for i := range msgs {
		if k := msgs[i].Kind; k == paxos.MsgRenew || k == paxos.MsgRenewed {
			g.urgent = append(g.urgent, msgs[i]) // the lease does not wait behind entries
			continue
		}
		g.inbox = append(g.inbox, msgs[i])
	}
	g.mu.Unlock()
	g.poke()
}

func (g *Group) command(ev paxos.Event) {
	g.mu.Lock()
	g.commands = append(g.commands, ev)
	g.mu.Unlock()
	g.wake()
}

// Propose queues a value to be chosen, behind all that were queued before. It
// blocks while too much is queued. The group keeps data. After an error done is
// not called; else it is called once, in order, during a turn of the group.
func (g *Group) Propose(data []byte, done func(paxos.Instance, error)) error {
	if len(data) > paxos.MaxEntryData {
		return fmt.Errorf("propose %d bytes: the limit is %d; split the value", len(data), paxos.MaxEntryData)
	}
	err := g.enqueue(proposal{data, done}, true)
	if err == nil {
		g.wake()
	}
	return err
}

// ProposeHere is Propose for callers that hold no lock which a Done callback of
// this group takes: it may run a turn, and so call them. It does not wait for a full
// disk, but fails with ErrDiskFull.
func (g *Group) ProposeHere(data []byte, done func(paxos.Instance, error)) error {
	if len(data) > paxos.MaxEntryData {
		return fmt.Errorf("propose %d bytes: the limit is %d; split the value", len(data), paxos.MaxEntryData)
	}
	if err := g.enqueue(proposal{data, done}, false); err != nil {
		return err
	}
	// Others who are ready to propose do so first: the turn then carries all
	// their values, without anybody having waited.
	runtime.Gosched()
	g.poke()
	return nil
}

// enqueue waits while the queue is full; for room on a disk that is full only if it is
// to be patient.
func (g *Group) enqueue(p proposal, patient bool) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	refused := func() bool { return !patient && g.host.DiskFull() }
	for g.leads && !g.closed && g.queue.bytes >= maxQueued && !refused() {
		g.room.Wait()
	}
	switch {
	case g.closed:
		return ErrClosed
	case !g.leads:
		return ErrNotLeader
	case refused():
		return ErrDiskFull
	}
	g.queue.put(p)
	return nil
}

// ProposeMembers asks the leader to change the membership was into another one, once all
// that was proposed before is chosen. Nothing comes of it if was is not valid by then.
func (g *Group) ProposeMembers(was, ms paxos.Members) error {
	if err := ms.Check(); err != nil {
		return fmt.Errorf("propose membership: %w", err)
	}
	if !g.Leader().Ready {
		return ErrNotLeader
	}
	g.command(paxos.Event{Kind: paxos.EventMembers, Members: &ms, Was: &was})
	return nil
}

// Transfer renounces leadership in favour of a member; 0 takes the best.
func (g *Group) Transfer(to paxos.NodeID) error {
	if g.Leader().Leader != g.cfg.Self {
		return ErrNotLeader
	}
	g.command(paxos.Event{Kind: paxos.EventTransfer, To: to})
	return nil
}

// SetCandidacy says whether this member may lead, and how long it lets others
// go first.
func (g *Group) SetCandidacy(able bool, delay time.Duration) {
	g.command(paxos.Event{Kind: paxos.EventCandidacy, Able: able, Delay: delay})
}

// SetLease changes how long this member grants leases, until it is changed again or the
// process ends. What is granted already is not cut short. Members may differ: each says
// how long its leases are, and the leader counts by what a majority grants, itself
// included; so a change is complete when all members have made it. Every member of the
// group must run a release that says so (paxos.Config.Lease).
func (g *Group) SetLease(d time.Duration) error {
	if err := g.cfg.CheckLease(d); err != nil {
		return fmt.Errorf("set lease of group %d: %w", g.id, err)
	}
	g.command(paxos.Event{Kind: paxos.EventLease, Lease: d})
	return nil
}

// turn takes in everything that waits and carries out what comes of it.
func (g *Group) turn() error {
	if err := g.host.Err(); err != nil {
		return err // the log is gone: whoever waits hears of it now
	}
	in := g.takeInbox()
	// The clock is read after the messages were taken. Time stamped before would
	// date a lease back that is granted for a message that came later.
	now := g.host.opt.Clock()
	g.rep.Synced(now, g.host.opt.Log.Durable())
	g.stepInbox(now, &in)
	g.stepReads(now)
	more := g.stepProposals(now)
	out, err := g.rep.Flush(now)
	if err != nil {
		return err
	}
	g.publish(&out)
	// The others' disks begin first: their answers have the longer way.
	g.deliver(out.Messages)
	if out.Sync {
		g.owes.Store(true) // before the sync that it waits for can end
		g.host.requestSync()
	}
	for i := range out.Told {
		out.Told[i].Tell()
	}
	g.answerReads(out.Reads)
	g.noteMended(out.Mended)
	if g.advanced != nil && len(out.Chosen) > 0 {
		g.advanced(g.Chosen())
	}
	if more && g.rep.Room() {
		g.work.Store(true)
	}
	g.owes.Store(g.rep.Owes())
	due := g.rep.Deadline()
	g.due.Store(int64(due))
	g.host.retime(due)
	g.reuse(in.msgs)
	return nil
}

// maxSpare limits the messages of an inbox that is used again: a burst must not be kept.
const maxSpare = 1024

// reuse keeps the memory of messages that were taken in, without what they refer to.
func (g *Group) reuse(msgs []paxos.Message) {
	if cap(msgs) > maxSpare {
		return
	}
	clear(msgs)
	g.mu.Lock()
	g.spare = msgs[:0]
	g.mu.Unlock()
}

// taken is what waited when a turn began.
type taken struct {
	urgent []paxos.Message
	msgs   []paxos.Message
	cmds   []paxos.Event
	looks  []func(*paxos.Core)
	ticked bool
}

func (g *Group) takeInbox() taken {
	g.mu.Lock()
	defer g.mu.Unlock()
	in := taken{g.urgent, g.inbox, g.commands, g.looks, g.ticked}
	g.urgent, g.commands, g.looks, g.ticked = nil, nil, nil, false
	if n := portion(g.inbox); n < len(g.inbox) {
		in.msgs = append(g.spare[:0], g.inbox[:n]...)
		g.inbox, g.spare = slices.Delete(g.inbox, 0, n), nil
		g.work.Store(true)
		return in
	}
	g.inbox, g.spare = g.spare, nil
	return in
}

// portion is how many messages a turn takes.
func portion(msgs []paxos.Message) int {
	bytes := 0
	for i := range msgs {
		for k := range msgs[i].Entries {
			bytes += len(msgs[i].Entries[k].Data)
		}
		if bytes >= maxTurnBytes {
			return i + 1
		}
	}
	return len(msgs)
}

func (g *Group) stepInbox(now paxos.Time, in *taken) {
	for i := range in.urgent {
		g.rep.Step(now, paxos.Event{Kind: paxos.EventMessage, Message: &in.urgent[i]})
	}
	for i := range in.msgs {
		g.rep.Step(now, paxos.Event{Kind: paxos.EventMessage, Message: &in.msgs[i]})
	}
	for _, ev := range in.cmds {
		g.rep.Step(now, ev)
	}
	if in.ticked {
		g.rep.Step(now, paxos.Event{Kind: paxos.EventTick})
	}
	for _, look := range in.looks {
		look(g.rep.Core())
	}
}

// inspect runs a function on the core during a turn.
func (g *Group) inspect(look func(*paxos.Core)) {
	g.mu.Lock()
	g.looks = append(g.looks, look)
	g.mu.Unlock()
	g.wake()
}

// maxTurn and maxTurnBytes limit the proposals of one flush, and maxTurnBytes the
// entries that one turn takes from the inbox, so that leases are renewed between.
const (
	maxTurn      = 256
	maxTurnBytes = 4 << 20
)

// stepProposals gives queued values to the core while it has room. It reports
// whether some are left. While the disk is full they stay in the queue, and proposers
// wait when that is full too: else the log would collect in memory what it cannot write.
func (g *Group) stepProposals(now paxos.Time) bool {
	if g.host.DiskFull() || !g.rep.Room() {
		return false
	}
	g.mu.Lock()
	before := g.queue.bytes
	batch, more := g.queue.take(g.batch[:0], maxTurn, maxTurnBytes)
	if before >= maxQueued && g.queue.bytes < maxQueued {
		g.room.Broadcast()
	}
	g.mu.Unlock()
	for i := range batch {
		if !g.rep.Room() {
			g.mu.Lock()
			g.queue.putBack(batch[i:])
			g.mu.Unlock()
			more = false
			break
		}
		g.rep.Propose(now, batch[i].data, batch[i].done)
	}
	clear(batch)
	g.batch = batch
	return more
}

// publish makes visible what a flush has changed. The lease comes first: it must
// be withdrawn before any message that renounces it is sent.
func (g *Group) publish(out *replica.Output) {
	g.lease.Store(int64(out.Lease))
	old := g.view.Load()
	if old.Leadership != out.Leadership || out.Members != nil {
		v := &View{Leadership: out.Leadership, Members: old.Members}
		if out.Members != nil {
			v.Members = *out.Members
		}
		g.lead(old, v)
	}
	g.fit(out.Chosen)
	if n := len(out.Chosen); n > 0 {
		g.chosen.Store(uint64(out.Chosen[n-1].Instance))
		g.announce()
	}
}

// lead publishes a view. Proposals queued in an earlier term fail with it.
func (g *Group) lead(old, v *View) {
	g.view.Store(v)
	var lost []proposal
	g.mu.Lock()
	g.leads = v.Leader == g.cfg.Self
	if old.Term != v.Term {
		lost = g.queue.drain()
	}
	g.room.Broadcast()
	g.mu.Unlock()
	for _, p := range lost {
		p.done(0, replica.ErrTermLost)
	}
	g.waitMu.Lock()
	close(g.changed)
	g.changed = make(chan struct{})
	g.waitMu.Unlock()
}

func (g *Group) announce() {
	g.waitMu.Lock()
	if g.waiters > 0 {
		close(g.advance)
		g.advance = make(chan struct{})
		g.waiters = 0
	}
	g.waitMu.Unlock()
}

// deliver hands messages to the sender, those for one member together.
func (g *Group) deliver(msgs []paxos.Message) {
	for len(msgs) > 0 {
		to := msgs[0].To
		n := 1
		for n < len(msgs) && msgs[n].To == to {
			n++
		}
		g.host.opt.Sender.Send(to, g.id, msgs[:n:n])
		msgs = msgs[n:]
	}
}

// end fails everybody who waits. The caller holds turning.
func (g *Group) end() {
	g.over = true
	g.lease.Store(0)
	g.mu.Lock()
	g.closed = true
	lost := g.queue.drain()
	g.room.Broadcast()
	g.mu.Unlock()
	for _, p := range lost {
		p.done(0, replica.ErrTermLost)
	}
	for _, t := range g.rep.Abandon() {
		t.Tell()
	}
}

// Chosen is the newest chosen instance; everything up to it can be read.
func (g *Group) Chosen() paxos.Instance { return paxos.Instance(g.chosen.Load()) }

// WaitChosen waits until instance i is chosen.
func (g *Group) WaitChosen(ctx context.Context, i paxos.Instance) error {
	for {
		g.waitMu.Lock()
		if g.Chosen() >= i {
			g.waitMu.Unlock()
			return nil
		}
		g.waiters++
		ch := g.advance
		g.waitMu.Unlock()
		select {
		case <-ch:
		case <-ctx.Done():
			return ctx.Err()
		case <-g.host.stop:
			return ErrClosed
		}
	}
}

// Read returns a chosen entry. Its data must not be changed. What is damaged in the
// log is fetched from another member, which may take seconds.
func (g *Group) Read(i paxos.Instance) (paxos.Entry, error) {
	if i > g.Chosen() {
		return paxos.Entry{}, fmt.Errorf("read instance %d: not chosen yet", i)
	}
	if e, ok := g.recent.get(i); ok {
		return e, nil
	}
	return g.readLog(i)
}

// First is the oldest instance in the log.
func (g *Group) First() paxos.Instance {
	first, _ := g.host.opt.Log.Bounds(wal.Group(g.id))
	return paxos.Instance(max(first, 1))
}

// Leader returns the newest view.
func (g *Group) Leader() View { return *g.view.Load() }

// Changed returns a channel that is closed when the view changes next.
func (g *Group) Changed() <-chan struct{} {
	g.waitMu.Lock()
	defer g.waitMu.Unlock()
	return g.changed
}

// LeaseValid reports whether this member leads and nobody else can, right now.
func (g *Group) LeaseValid() bool {
	end := g.lease.Load()
	return end != 0 && int64(g.host.opt.Clock()) < end
}

// LeaseRemaining is how long the lease runs on without news from others.
func (g *Group) LeaseRemaining() time.Duration {
	return max(0, time.Duration(paxos.Time(g.lease.Load())-g.host.opt.Clock()))
}

// Status returns a snapshot with numbers.
func (g *Group) Status(ctx context.Context) (Status, error) {
	got := make(chan Status, 1)
	g.inspect(func(c *paxos.Core) {
		got <- Status{
			// What is published is from before this turn, and would not fit to the rest.
			View: View{Leadership: c.Leadership(), Members: c.Members()}, Chosen: c.Chosen(), Proposed: c.LastProposed(), Heard: c.Heard(), Lacking: c.Lacking(), Promised: c.Promised(),
			Lease: g.LeaseRemaining(), Length: c.LeaseLength(), First: g.First(), Progress: c.Progress(),
		}
	})
	select {
	case s := <-got:
		return s, nil
	case <-ctx.Done():
		return Status{}, fmt.Errorf("read status of group %d: %w", g.id, ctx.Err())
	case <-g.host.stop:
		return Status{}, ErrClosed
	}
}
