package agent

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/phxsql/phxsql/internal/cluster"
	"github.com/phxsql/phxsql/internal/gtid"
	"github.com/phxsql/phxsql/internal/telemetry"
	"github.com/phxsql/phxsql/paxos"
)

// The rhythm of the loop.
const (
	tickSteady   = 50 * time.Millisecond  // nothing is under way
	tickMoving   = 10 * time.Millisecond  // this node leads and does not serve, or a switchover is under way
	observeEvery = 200 * time.Millisecond // how often the server is asked how far it is
	observeLimit = 5 * time.Second        // how long one answer may take
	stallLimit   = 6 * time.Second        // a server that did not answer for so long is stalled, whatever it does
	idleAfter    = time.Second            // of silence; from then on it is watched whether the server does anything
	idleTicks    = 3                      // time on a processor, in 10 ms, of a server that does nothing
	handLimit    = 2 * time.Second        // how long a member has to take leadership that is offered
	declineFor   = 10 * time.Second       // how long one that did not is left in peace
	maxRounds    = 16                     // decisions in a row; more is a fault of ours
)

// loop asks for decisions and has them carried out. One goroutine, run, owns all
// fields but inbox and last; the others reach them through post. It ends when its
// context does, or when the node has been stopped.
type loop struct {
	self  paxos.NodeID
	log   *slog.Logger
	cons  consensus
	jour  journal
	db    database
	tail  tail
	gate  gate
	peers *peers
	// awaitApplied asks a member to say when it has executed everything through
	// an instance.
	awaitApplied func(ctx context.Context, to paxos.NodeID, through paxos.Instance) error

	// heard returns an instance behind everything that was chosen when the node
	// started, once one is known. Only a journal that has come so far can tell that
	// a server holds too much.
	heard func() (paxos.Instance, bool)
	// diskFull reports that the log waits for room; nil when nobody can tell.
	diskFull func() bool
	canaries *canaries // nil: there are none
	// ticks is the time that the server has had on a processor, in units of 10 ms; nil
	// without canaries.
	ticks func() (uint64, bool)
	// restarting reports that the server is started anew within a promotion; nil: never.
	restarting func() bool

	restorer restorer
	// wanted is the role that a node on its way into a cluster will have; nil or 0: it
	// is on no way.
	wanted func() paxos.Role
	// expelled reports that the others say that this node is no member any more: it
	// was removed while it was down. May be nil.
	expelled func() bool

	inbox chan func()
	done  chan struct{}
	last  atomic.Pointer[snapshot]
	moved chan struct{} // has room for one: the snapshot has changed in a way that others should know

	ctx  context.Context
	view cluster.View
	time timeline
	told told
	now  time.Time // of this turn, or of what came in last

	// wrong is what an audit has found about the server's data; empty: nothing.
	wrong string

	turned time.Time     // the last look at the world
	silent time.Duration // for how long the server has not answered
	// idleFrom is the server's time on a processor when its silence was first noticed.
	idleFrom *uint64
	// startTicks is the server's time on a processor at the last look while it was
	// started anew.
	startTicks uint64
	begun      time.Time // of the loop
	probation  cluster.Probation
	lastIll    string // why this node was unfit last

	term      paxos.Ballot
	lapsedAt  time.Time // when the lease of this term was first missed
	readyAt   paxos.Instance
	leaderAt  time.Time // when somebody else was last known to lead
	epochAt   paxos.Instance
	chosenAt  time.Time // when the own epoch came back from the log
	handUntil time.Time
	declined  map[paxos.NodeID]time.Time

	run         int // counts lives of the server; what belongs to an older one is dropped
	waitUntil   time.Time
	startedAt   time.Time
	replicaAt   time.Time // when a broken replica may be started again
	replicaFail int
	seen        observation
	seenAt      time.Time
	observing   bool
	steps       int // begins and ends of slow actions
	applied     applied
	movedAt     time.Time      // when the server was last seen to have executed something
	roomAt      time.Time      // when the disk of its data was last seen full
	roomRun     int            // the run of the server at that time
	counted     paxos.Instance // what the server lacks is counted through it
	caughtUp    bool

	errantAt time.Time // since when the server holds too much
	fresh    bool      // the new data were empty, and the log is what fills them
	lost     string    // why the server needs another one's data
	// preferred says that it does not need them: a copy is only shorter than the log.
	preferred bool
	lack      paxos.Instance
	copied    bool // a complete copy lies beside the data
	restored  bool // the data are new, and were not compared with another member's yet
	early     bool // that was before this node started
	data      int  // counts data: what is said of older ones is dropped
	followed  bool // the new data have followed the log to its end, so that they can be compared
	// proofReason says why they are not being compared; empty: they are.
	proofReason string
	keepOld     bool // what is replaced is worth a look
	faults      int  // how often in a row the server has ended for what may be a fault of its data
	differs     bool // replication stops because the data are not those of the others
	judge       paxos.Instance
	goal        paxos.Instance // what the new data must have executed to be followed; 0: not known yet

	tailRun   int // counts tails
	tailEnded int // the newest tail that ended by itself
	cancel    context.CancelFunc
	failUntil time.Time

	sw       *switchover
	quietAt  paxos.Instance // the log's end when the server became read-only for a switchover
	stopAt   time.Time
	problems []cluster.Problem
}

// observation is what the server says about itself.
type observation struct {
	Executed     *gtid.Set
	ReadOnly     bool
	Lag          time.Duration
	Replica      cluster.ReplicaState
	ReplicaError string
	// ReplicaErrno is the server's number of the error that stops the applier.
	ReplicaErrno int
}

func newLoop(self paxos.NodeID, log *slog.Logger) *loop {
	return &loop{
		self: self, log: log, inbox: make(chan func(), 256), done: make(chan struct{}), moved: make(chan struct{}, 1),
		declined: map[paxos.NodeID]time.Time{}, time: timeline{log: log},
	}
}

// post has f run by the loop; it is dropped when the loop has ended.
func (l *loop) post(f func()) {
	select {
	case l.inbox <- f:
	case <-l.done:
	}
}

// ask runs f in the loop and waits for it.
func (l *loop) ask(ctx context.Context, f func()) error {
	ran := make(chan struct{})
	l.post(func() { f(); close(ran) })
	select {
	case <-ran:
		return nil
	case <-l.done:
		return errStopped
	case <-ctx.Done():
		return ctx.Err()
	}
}

// serve runs until ctx ends or the node has been stopped.
func (l *loop) serve(ctx context.Context) {
	defer close(l.done)
	l.ctx = ctx
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		changed := l.cons.Changed()
		l.turn()
		if l.stopped() {
			return
		}
		timer.Reset(l.pace())
		select {
		case <-ctx.Done():
			return
		case f := <-l.inbox:
			f()
		case <-changed:
		case <-timer.C:
		}
		l.takeAll()
	}
}

// takeAll runs what else waits in the inbox, up to its size.
func (l *loop) takeAll() {
	for range cap(l.inbox) {
		select {
		case f := <-l.inbox:
			f()
		default:
			return
		}
	}
}

func (l *loop) pace() time.Duration {
	if (l.view.Lead.Self && l.view.Gate != cluster.GateOpen) || l.view.Switch != nil || l.view.Stopping {
		return tickMoving
	}
	return tickSteady
}

// turn looks at the world, decides until nothing more is decided, and publishes.
func (l *loop) turn() {
	for range maxRounds {
		l.refresh(time.Now())
		acts := cluster.Decide(l.view)
		if err := cluster.Check(l.view, acts); err != nil {
			panic(fmt.Sprintf("agent: %v", err))
		}
		l.problems = l.problems[:0:0]
		moved := false
		for _, a := range acts {
			if r, ok := a.(cluster.Report); ok {
				l.problems = append(l.problems, r.Problem)
				continue
			}
			moved = true
			l.log.Debug("decided", telemetry.KeyAction, a.String())
			l.carry(a)
		}
		if !moved {
			break
		}
	}
	l.observe()
	l.publish()
}

// observe asks the server how far it is, one question at a time.
func (l *loop) observe() {
	if l.observing || l.view.Engine.State != cluster.EngineRunning || l.now.Sub(l.seenAt) < observeEvery {
		return
	}
	l.observing = true
	run, steps := l.run, l.steps
	go func() {
		ctx, cancel := context.WithTimeout(l.ctx, observeLimit)
		defer cancel()
		o, err := l.db.Observe(ctx)
		l.post(func() { l.observed(run, steps, o, err) })
	}()
}

// observed takes an observation in. What a slow action may have changed meanwhile
// is not judged by it.
func (l *loop) observed(run, steps int, o observation, err error) {
	l.observing = false
	if run != l.run || l.view.Engine.State != cluster.EngineRunning {
		return
	}
	if err != nil {
		l.log.Debug("server does not answer", telemetry.KeyError, err)
		return
	}
	if before := l.seen.Executed; before == nil || !before.Equal(o.Executed) {
		l.movedAt = time.Now()
	}
	l.seen, l.seenAt, l.silent = o, time.Now(), 0
	e := &l.view.Engine
	pos, _, _ := l.jour.Position()
	all := l.jour.Executed()
	e.Behind, l.counted = minus(all, o.Executed).Count(), pos
	l.applied.note(place{pos, all, l.seenAt}, o.Executed)
	e.Errant = ""
	if l.caughtUp && pos >= l.judge && !l.view.Lead.Self && !e.Dirty && l.view.Tail == cluster.TailOff && !all.ContainsSet(o.Executed) {
		e.Errant = minus(o.Executed, all).String()
	}
	if l.caughtUp && l.view.Tail == cluster.TailOff && !e.Dirty {
		l.tellTail(o.Executed)
	}
	l.judgeCopy(pos)
	if steps != l.steps || l.view.Busy != "" {
		return
	}
	if e.Writable && o.ReadOnly {
		e.Writable = false // an earlier super_read_only that was given up came through late
	}
	l.observedReplica(o)
}

func minus(a, b *gtid.Set) *gtid.Set {
	c := a.Clone()
	c.Subtract(b)
	return c
}

// observedReplica judges replication where it should run.
func (l *loop) observedReplica(o observation) {
	e := &l.view.Engine
	if e.Replica == cluster.ReplicaOff {
		return
	}
	if o.Replica == cluster.ReplicaRunning {
		if e.Replica == cluster.ReplicaBroken {
			l.log.Info("replication runs again")
		}
		e.Replica, e.ReplicaError = cluster.ReplicaRunning, ""
		if l.now.Sub(l.replicaAt) > time.Minute {
			l.replicaFail = 0
		}
		return
	}
	if differences[o.ReplicaErrno] && l.replicaFail >= differTimes {
		l.dataDiffer(o.ReplicaError)
	}
	if e.Replica == cluster.ReplicaRunning {
		l.replicaFail++
		l.replicaAt = l.now.Add(backoff(l.replicaFail))
		l.log.Warn("replication has stopped", telemetry.KeyReason, o.ReplicaError)
	}
	e.Replica, e.ReplicaError = cluster.ReplicaBroken, o.ReplicaError
}

// backoff is the pause before try n (from 1) of something that failed: none at
// first, then doubling from 100 ms to 15 s.
func backoff(n int) time.Duration {
	if n <= 1 {
		return 0
	}
	return min(15*time.Second, 50*time.Millisecond<<min(n-1, 12))
}
