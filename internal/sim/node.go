package sim

import (
	"errors"
	"time"

	"github.com/phxsql/phxsql/internal/replica"
	"github.com/phxsql/phxsql/paxos"
	"github.com/phxsql/phxsql/vfs"
	"github.com/phxsql/phxsql/wal"
)

// clock is a node's own: it runs at a rate of its own.
type clock struct {
	since moment
	base  paxos.Time
	rate  float64
}

func (c *clock) read(t moment) paxos.Time {
	return c.base + paxos.Time(float64(t-c.since)*c.rate)
}

func (c *clock) setRate(t moment, rate float64) {
	c.base, c.since, c.rate = c.read(t), t, rate
}

type proposal struct {
	id   uint64
	data []byte
}

// node is one machine. Its disk outlives its lives.
type node struct {
	w     *world
	index int
	id    paxos.NodeID
	mem   *vfs.Mem
	disk  ledger
	clock clock

	life   int
	up     bool
	paused bool
	log    *wal.Log
	rep    *replica.Replica

	urgent  []*paxos.Message // renewals of leases, which do not wait behind entries
	inbox   []*paxos.Message
	spare   []*paxos.Message
	cmds    []paxos.Event
	queue   []proposal
	ticked  bool
	turning bool    // a turn is coming
	durable wal.LSN // as the node knows it
	syncing bool
	kicked  bool
	fuse    int  // file operations until the disk fails; -1: it does not
	burnt   bool // it has failed
	able    bool
	lasts   time.Duration // the length of leases in its configuration
	old     bool          // it runs a release whose messages say no lengths

	// Faults of the disk that do not end at once; see disk.go.
	full    bool // the log waits for room
	rotted  bool // bits have flipped
	gone    bool // it lost what it may have promised or voted for, and will not run again
	sick    bool // the next sync fails
	failed  bool // a sync has failed: the process ends soon
	waiting []reader

	// The application.
	app     snapshot // on its disk
	seeking bool     // looks for a snapshot of another node, or copies it
	copied  snapshot
	brought *snapshot // to be installed with the next turn

	// What the node shows to others in its process.
	lead     paxos.Leadership
	lease    paxos.Time
	declared paxos.Instance
	reads    map[uint64]question // by token
}

func (n *node) now() paxos.Time { return n.clock.read(n.w.now) }

func (n *node) holdsLease() bool { return n.up && n.lease != 0 && n.now() < n.lease }

var errPowerCut = errors.New("power cut")

func (n *node) inject(op vfs.Op) vfs.Fault {
	if n.sick && op.Kind == vfs.OpSync {
		return n.failSync()
	}
	if n.fuse < 0 {
		return vfs.Fault{}
	}
	if n.fuse > 0 {
		n.fuse--
		return vfs.Fault{}
	}
	n.burnt = true
	return vfs.Fault{Err: errPowerCut}
}

// start opens the log and runs a replica on it, if the disk lets it.
func (n *node) start() {
	w := n.w
	n.fuse, n.burnt, n.sick, n.failed = -1, false, false, false
	n.configure()
	log, err := wal.Open(wal.Options{
		FS: &vfs.Faulty{FS: n.mem, Inject: n.inject}, Dir: "/log", SegmentSize: w.p.segment, Inline: true, Salvage: true, Rand: randReader{w.rng},
	})
	if err != nil {
		n.cannotStart("open its log", err)
		return
	}
	rotten, err := replica.Assess(log, 0, log.Damages())
	if err != nil {
		n.cannotStart("run on its log", err)
		return
	}
	n.log = log
	n.disk.reopened(log, rotten)
	if n.index == 0 && n.life == 0 {
		if err := replica.Bootstrap(&n.disk, 0, n.id, w.judge.members[0]); err != nil {
			w.fail("restart", "bootstrap: %v", err)
		}
		if _, err := log.Sync(); err != nil {
			w.fail("restart", "bootstrap: %v", err)
		}
	}
	if err := n.complete(); err != nil {
		n.cannotStart("complete a snapshot", err)
		return
	}
	rep, err := replica.Open(&n.disk, 0, w.config(n.id), n.now())
	if err != nil {
		n.cannotStart("start", err)
		return
	}
	for _, i := range rotten {
		rep.Repair(n.now(), i)
	}
	n.rep, n.up = rep, true
	n.waiting = nil
	n.urgent, n.seeking, n.brought = nil, false, nil
	n.inbox, n.cmds, n.queue, n.ticked, n.turning, n.syncing, n.kicked, n.durable = nil, nil, nil, false, false, false, false, 0
	n.lead, n.lease, n.reads = paxos.Leadership{}, 0, map[uint64]question{}
	w.judge.restarted(n, rep)
	n.command(paxos.Event{Kind: paxos.EventCandidacy, Able: n.able})
	w.queue.push(item{at: w.now + moment(w.between(0, w.p.tick)), kind: itemTick, node: n.index, life: n.life})
}

// configure draws what another life may change: the configured length of leases, and the
// release. Members of the old one need the same length in all configurations.
func (n *node) configure() {
	w := n.w
	switch {
	case n.lasts == 0:
		n.lasts = w.p.lease
		n.old = w.p.mixed && w.rng.IntN(2) == 0
	case w.p.mixed && !w.calm:
		n.old = n.old && w.rng.IntN(4) > 0
	}
	if w.p.lengths && !w.p.mixed && w.rng.IntN(2) == 0 {
		n.lasts = w.lengthOfLease()
	}
}

// stop ends a life. A power cut may catch the disk in the middle of a write.
func (n *node) stop(power bool) {
	if !n.up {
		return
	}
	if power && n.w.rng.IntN(2) == 0 {
		n.fuse = n.w.rng.IntN(6)
		n.log.Sync() // fails somewhere on the way, which is the point
	}
	n.disk.lost()
	if power {
		n.mem.Crash(n.w.rng)
	} else {
		n.mem.Kill()
	}
	n.up, n.paused, n.full, n.rep = false, false, false, nil
	n.life++
	n.lease = 0
}

func (n *node) command(ev paxos.Event) {
	n.cmds = append(n.cmds, ev)
	n.wake()
}

// wake sees to a turn soon.
func (n *node) wake() {
	if n.turning || !n.up || n.paused {
		return
	}
	n.turning = true
	n.w.queue.push(item{at: n.w.now + moment(n.w.rng.Int64N(int64(100*time.Microsecond))), kind: itemTurn, node: n.index, life: n.life})
}

// receive puts a message where the next turns find it.
func (n *node) receive(m *paxos.Message) {
	if urgent(m) {
		n.urgent = append(n.urgent, m)
	} else {
		n.inbox = append(n.inbox, m)
	}
	n.wake()
}

func urgent(m *paxos.Message) bool {
	return m.Kind == paxos.MsgRenew || m.Kind == paxos.MsgRenewed
}

// takeInbox takes what one turn may take, and sees to a turn for the rest.
func (n *node) takeInbox() []*paxos.Message {
	k, bytes := 0, 0
	for k < len(n.inbox) && (n.w.p.turn == 0 || bytes < n.w.p.turn) {
		for i := range n.inbox[k].Entries {
			bytes += len(n.inbox[k].Entries[i].Data)
		}
		k++
	}
	if k == len(n.inbox) {
		msgs := n.inbox
		n.inbox, n.spare = n.spare[:0], msgs
		return msgs
	}
	msgs := append(n.spare[:0], n.inbox[:k]...)
	n.inbox, n.spare = append(n.inbox[:0], n.inbox[k:]...), msgs
	n.wake()
	return msgs
}

// turn is the twin of the turn of a group in package host.
func (n *node) turn() {
	n.turning = false
	if n.paused {
		return
	}
	first, cmds, ticked := n.urgent, n.cmds, n.ticked
	n.urgent, n.cmds, n.ticked = nil, nil, false
	msgs := n.takeInbox()
	now := n.now()
	n.rep.Synced(now, n.durable)
	for _, m := range first {
		n.rep.Step(now, paxos.Event{Kind: paxos.EventMessage, Message: m})
	}
	for _, m := range msgs {
		n.rep.Step(now, paxos.Event{Kind: paxos.EventMessage, Message: m})
	}
	for _, ev := range cmds {
		n.rep.Step(now, ev)
	}
	if ticked {
		n.rep.Step(now, paxos.Event{Kind: paxos.EventTick})
	}
	if n.brought != nil && !n.install(now) {
		return
	}
	more := n.propose(now)
	out, err := n.rep.Flush(now)
	if err != nil {
		n.logFailed(err)
		return
	}
	n.publish(&out)
	if out.Sync {
		n.sync()
	}
	for k := range out.Messages {
		n.w.judge.sent(n, &out.Messages[k])
		n.w.send(n, &out.Messages[k])
	}
	for k := range out.Told {
		out.Told[k].Tell()
	}
	for _, r := range out.Reads {
		n.read(r)
	}
	n.seek()
	if more && n.rep.Room() {
		n.wake()
	}
}

const maxTurn = 16

func (n *node) propose(now paxos.Time) (more bool) {
	for range maxTurn {
		if len(n.queue) == 0 || n.full || !n.rep.Room() {
			return false
		}
		p := n.queue[0]
		n.queue = n.queue[1:]
		n.rep.Propose(now, p.data, func(i paxos.Instance, err error) {
			if n.w.tracing {
				n.w.tracef("n%d tells value %d: instance %d, %v", n.id, p.id, i, err)
			}
			n.w.judge.told(n, p.id, i, err)
			n.w.history.told(n.w, p.id, err)
		})
	}
	return true
}

func (n *node) publish(out *replica.Output) {
	if n.w.tracing && n.lead != out.Leadership {
		n.w.tracef("n%d leadership %+v", n.id, out.Leadership)
	}
	if n.lead.Term != out.Leadership.Term {
		n.queue = nil
		if !out.Leadership.Term.IsZero() {
			n.w.stats.Terms++
		}
	}
	n.lead, n.lease = out.Leadership, out.Lease
	for k := range out.Chosen {
		if n.w.tracing {
			n.w.tracef("n%d chosen %v", n.id, out.Chosen[k])
		}
		n.w.judge.declared(n, &out.Chosen[k])
	}
	if out.Members != nil {
		n.w.judge.membersFit(n, *out.Members, "now")
	}
	for _, i := range out.Mended {
		n.w.judge.mended(n, i)
	}
	n.w.judge.lease(n)
	n.readHere()
	n.readOn()
}

// sync starts a sync, or notes that one is needed after the one that runs. The
// bytes reach the disk at its begin or at its end.
func (n *node) sync() {
	if n.syncing {
		n.kicked = true
		return
	}
	n.syncing = true
	w := n.w
	took := w.between(w.p.syncMin, w.p.syncMax)
	if !w.calm && w.chance(w.p.syncSlow) {
		took = w.between(w.p.syncMax, w.p.slowMax)
	}
	it := item{at: w.now + moment(took), kind: itemSynced, node: n.index, life: n.life}
	if w.rng.IntN(2) == 0 {
		it.arg = uint64(n.carrySync())
	}
	w.queue.push(it)
}

func (n *node) synced(lsn wal.LSN) {
	if lsn == 0 {
		lsn = n.carrySync()
	}
	if n.failed {
		return
	}
	if n.full {
		n.w.queue.push(item{at: n.w.now + moment(noSpacePause), kind: itemSynced, node: n.index, life: n.life})
		return
	}
	n.durable = max(n.durable, lsn)
	n.syncing = false
	if n.kicked {
		n.kicked = false
		n.sync()
	}
	n.wake()
}
