package sim

import (
	"fmt"
	"io"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/phxsql/phxsql/paxos"
	"github.com/phxsql/phxsql/vfs"
	"github.com/phxsql/phxsql/wal"
)

// Violation is a promise that a schedule has broken.
type Violation struct {
	Seed   uint64
	Rule   string // the judge's rule, in one word
	Detail string
	At     time.Duration // true time since the begin of the schedule
	Trace  []string      // the last steps, if the run was traced
}

func (v *Violation) Error() string {
	return fmt.Sprintf("seed %d breaks %q at %v: %s", v.Seed, v.Rule, v.At, v.Detail)
}

// Stats counts what happened in schedules.
type Stats struct {
	Schedules int
	Steps     int
	Chosen    int // instances decided
	Told      int // proposers told that their value is chosen
	Terms     int // leaderships
	Crashes   int
	Members   int // memberships decided
	Reads     int // linearizable reads, under the own lease and by read index
	Snapshots int // installed
	Refused   int // snapshots that were too old
	Flips     int // bits flipped on disks
	Mended    int // damaged entries repaired from others
	Gone      int // nodes that refused to run on what was left of their logs
	Full      int // disks that ran out of space
	SyncFails int // syncs that failed
	Histories int // judged by porcupine
	Ops       int // in them
}

// Add adds the counts of another run.
func (s *Stats) Add(o Stats) {
	s.Schedules += o.Schedules
	s.Steps += o.Steps
	s.Chosen += o.Chosen
	s.Told += o.Told
	s.Terms += o.Terms
	s.Crashes += o.Crashes
	s.Members += o.Members
	s.Reads += o.Reads
	s.Snapshots += o.Snapshots
	s.Refused += o.Refused
	s.Flips += o.Flips
	s.Mended += o.Mended
	s.Gone += o.Gone
	s.Full += o.Full
	s.SyncFails += o.SyncFails
	s.Histories += o.Histories
	s.Ops += o.Ops
}

// maxSteps ends a schedule that makes steps without end.
const maxSteps = 400_000

// keptTrace is the number of steps that a violation tells.
const keptTrace = 400

type world struct {
	seed  uint64
	rng   *rand.Rand
	p     profile
	now   moment
	queue queue
	nodes []*node
	judge *judge
	cut   [8][8]bool      // from, to
	last  [2][8][8]moment // when the newest message of a link in order arrives; urgent ones overtake
	calm  bool
	reads uint64 // questions for a read index
	truce moment // no trouble before

	victim  *node // whose disk rots
	history history

	duel  *node         // the leader that a duel waits for
	asked paxos.Members // the membership that was asked for last
	final final
	stats Stats

	script *stage // nil but for scenarios
	blind  bool   // judges that see a fault before it does harm look away

	tracing bool
	trace   []string
}

type randReader struct{ rng *rand.Rand }

var _ io.Reader = randReader{}

func (r randReader) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(r.rng.Uint32())
	}
	return len(p), nil
}

// Run runs the schedule of a seed. It returns a *Violation, or nil.
func Run(seed uint64) (Stats, *Violation) { return run(seed, false) }

// Explain runs the schedule of a seed again and keeps a trace of its last steps.
func Explain(seed uint64) (Stats, *Violation) { return run(seed, true) }

func run(seed uint64, tracing bool) (Stats, *Violation) {
	w := newWorld(seed, tracing)
	return w.play(func() {
		w.p = draw(seed, w.rng)
		w.history.begin(w.p.reads)
		w.build(w.firstMembers())
		w.later(w.between(0, time.Second), itemPropose)
		w.later(w.between(0, w.p.every*2), itemTrouble)
		w.later(w.p.length, itemHeal)
	})
}

func newWorld(seed uint64, tracing bool) *world {
	w := &world{seed: seed, rng: rand.New(rand.NewPCG(seed, 0x9e3779b97f4a7c15)), tracing: tracing}
	w.queue.items = make([]item, 0, 256)
	return w
}

// play sets the stage and goes on until all is healed, or a promise is broken.
func (w *world) play(begin func()) (stats Stats, v *Violation) {
	defer func() {
		stats = w.stats
		r := recover()
		if r == nil {
			return
		}
		var ok bool
		if v, ok = r.(*Violation); !ok {
			v = w.violation("panic", fmt.Sprintf("%v\n%s", r, debug.Stack()))
		}
	}()
	begin()
	for !w.final.done {
		w.next()
	}
	w.judge.compareLogs()
	w.history.judge(w)
	w.stats.Schedules = 1
	w.stats.Members = len(w.judge.members) - 1
	return w.stats, nil
}

// next lets the next thing happen.
func (w *world) next() {
	if w.stats.Steps++; w.stats.Steps > maxSteps {
		w.fail("liveness", "%d steps and no end", maxSteps)
	}
	it := w.queue.pop()
	w.now = it.at
	w.step(&it)
}

func (w *world) violation(rule, detail string) *Violation {
	return &Violation{Seed: w.seed, Rule: rule, Detail: detail, At: time.Duration(w.now), Trace: w.trace}
}

// early are the rules that are broken before two nodes act on different values.
var early = []string{"answer-before-sync", "promise-shrinks", "not-durable"}

// fail ends the run.
func (w *world) fail(rule, format string, args ...any) {
	if w.blind && slices.Contains(early, rule) {
		return
	}
	panic(w.violation(rule, fmt.Sprintf(format, args...)))
}

func (w *world) tracef(format string, args ...any) {
	if len(w.trace) >= 2*keptTrace {
		w.trace = append(w.trace[:0], w.trace[keptTrace:]...)
	}
	line := fmt.Sprintf(format, args...)
	w.trace = append(w.trace, fmt.Sprintf("%9.3fms %s", float64(w.now)/1e6, strings.ReplaceAll(line, "\n", " ")))
}

func (w *world) chance(p float64) bool { return p > 0 && w.rng.Float64() < p }

func (w *world) between(a, b time.Duration) time.Duration { return between(w.rng, a, b) }

func (w *world) node(id paxos.NodeID) *node { return w.nodes[id-1] }

// firstMembers draws the membership that the group starts with.
func (w *world) firstMembers() paxos.Members {
	first := paxos.Members{Cluster: "sim"}
	for k := range w.p.members {
		role := paxos.Voter
		switch {
		case w.p.reshuffle && k >= 3:
			role = paxos.Learner
		case k == w.p.members-1 && w.rng.IntN(4) == 0:
			role = paxos.Witness
		}
		first.List = append(first.List, paxos.Member{ID: paxos.NodeID(k + 1), Role: role})
	}
	return first
}

func (w *world) build(first paxos.Members) {
	w.judge = newJudge(w, first)
	for k := range w.p.members + w.p.spares {
		n := &node{w: w, index: k, id: paxos.NodeID(k + 1), mem: vfs.NewMem(), able: true}
		n.disk.n = n
		n.clock = clock{base: paxos.Time(w.between(time.Second, time.Hour)), rate: w.rate()}
		w.nodes = append(w.nodes, n)
	}
	w.victim = w.nodes[w.rng.IntN(w.p.members)]
	for _, n := range w.nodes {
		n.start()
	}
}

func (w *world) later(d time.Duration, k itemKind) {
	w.queue.push(item{at: w.now + moment(d), kind: k})
}

func (w *world) config(id paxos.NodeID) paxos.Config {
	return paxos.Config{
		Self: id, Lease: w.node(id).lasts, Heartbeat: w.p.heartbeat, ClockError: w.p.clockError, Spread: w.p.spread,
		MaxInflight: w.p.inflight, MaxMessage: w.p.message, KeepBytes: w.p.keep, Rand: w.rng.Int64N,
	}
}

// rate draws how fast a clock runs.
func (w *world) rate() float64 {
	e := w.p.clockError
	if w.p.bound {
		return oneOf(w.rng, 1-e, 1+e, 1)
	}
	return 1 - e + 2*e*w.rng.Float64()
}

func (w *world) step(it *item) {
	switch it.kind {
	case itemTrouble:
		if !w.calm {
			if w.now >= w.truce {
				w.trouble()
			}
			w.later(w.between(0, 2*w.p.every), itemTrouble)
		}
		return
	case itemAmbush:
		if !w.calm {
			w.ambush()
		}
		return
	case itemPropose:
		if !w.calm {
			w.burst()
			if w.p.reads {
				w.ask()
			}
			w.later(w.between(0, 200*time.Millisecond), itemPropose)
		}
		return
	case itemHeal:
		w.heal()
		return
	case itemJudge:
		w.final.look(w)
		return
	case itemRestart:
		if n := w.nodes[it.node]; n.life == it.life && !n.up && !n.gone {
			w.restart(n)
		}
		return
	case itemRoom:
		w.nodes[it.node].mem.SetFreeSpace(-1)
		return
	}
	n := w.nodes[it.node]
	if it.kind == itemMessage {
		if n.up {
			if n.old {
				it.msg.Lease = 0
			}
			n.receive(it.msg)
		}
		return
	}
	if n.life != it.life || !n.up {
		return
	}
	switch it.kind {
	case itemTick:
		w.queue.push(item{at: w.now + moment(w.p.tick), kind: itemTick, node: it.node, life: it.life})
		if w.p.always || n.now() >= n.rep.Deadline() {
			n.ticked = true
			n.wake()
		}
	case itemTurn:
		n.turn()
	case itemSeek:
		w.copyFrom(n)
	case itemCopied:
		w.bring(n)
	case itemSynced:
		n.synced(wal.LSN(it.arg))
	case itemResume:
		n.paused = false
		n.wake()
	case itemEnd:
		n.end()
	}
}

// send carries a message, or not.
func (w *world) send(from *node, m *paxos.Message) {
	to := w.node(m.To)
	if w.duel != nil && m.Kind == paxos.MsgPromise && m.Reject == paxos.RejectNone {
		w.meet(from, to)
	}
	cut := w.cut[from.index][to.index]
	held := cut && w.chance(w.p.hold)
	lost := cut && !held || !w.calm && w.chance(w.p.loss)
	if w.script != nil && !lost {
		lost = !w.script.passes(m)
	}
	if w.tracing {
		w.tracef("n%d sends %v lost=%v held=%v", from.id, m, lost, held)
	}
	if lost {
		return
	}
	w.deliver(from, to, m, held)
	if !w.calm && w.chance(w.p.dup) {
		w.deliver(from, to, m, true)
	}
}

func (w *world) deliver(from, to *node, m *paxos.Message, late bool) {
	d := w.between(w.p.delayMin, w.p.delayMax)
	if late || !w.calm && w.chance(w.p.stale) {
		d = w.between(w.p.delayMin, w.p.staleMax)
		late = true
	}
	at := w.now + moment(d)
	if (w.p.ordered || w.calm) && !late {
		lane := 0
		if urgent(m) {
			lane = 1
		}
		at = max(at, w.last[lane][from.index][to.index]+1)
		w.last[lane][from.index][to.index] = at
	}
	c := new(paxos.Message)
	if *c = *m; w.p.codec {
		b := m.AppendTo(nil)
		got, err := paxos.DecodeMessage(b)
		if err != nil || len(b) != m.EncodedSize() {
			w.fail("codec", "%v: %v", m, err)
		}
		*c = got
	}
	if from.old {
		c.Lease = 0
	}
	w.queue.push(item{at: at, kind: itemMessage, node: to.index, msg: c})
}

// burst gives some values to a node that believes it leads.
func (w *world) burst() {
	if n := w.leader(); n != nil {
		w.give(n)
	}
}

// give gives some values to a node.
func (w *world) give(n *node) {
	for range 1 + w.rng.IntN(12) {
		b := w.judge.value(w.rng.IntN(120))
		n.queue = append(n.queue, proposal{sumOf(paxos.Normal, b), b})
		w.history.proposed(w, n, sumOf(paxos.Normal, b))
	}
	n.wake()
}

// leader draws one of the nodes that believe they lead; there may be several.
func (w *world) leader() *node {
	var some []*node
	for _, n := range w.nodes {
		if n.up && n.lead.Leader == n.id {
			some = append(some, n)
		}
	}
	if len(some) == 0 {
		return nil
	}
	return some[w.rng.IntN(len(some))]
}
