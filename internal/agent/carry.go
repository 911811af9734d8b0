package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/phxsql/phxsql/internal/cluster"
	"github.com/phxsql/phxsql/internal/entry"
	"github.com/phxsql/phxsql/internal/telemetry"
	"github.com/phxsql/phxsql/paxos"
)

// errStopped is returned to whoever asks a node that is going down.
var errStopped = errors.New("this node stops")

// attachLimit is how long the server may take to accept the tail.
const attachLimit = 10 * time.Second

// limits are how long slow actions may take. What takes longer has failed and
// is tried again.
var limits = map[cluster.Kind]time.Duration{
	cluster.KindInitEngine:    5 * time.Minute,
	cluster.KindStartEngine:   10 * time.Minute, // recovery of a large redo log
	cluster.KindStopEngine:    time.Minute,
	cluster.KindStartReplica:  30 * time.Second,
	cluster.KindStopReplica:   time.Minute,
	cluster.KindAttachTail:    attachLimit + 10*time.Minute, // it may start the server anew
	cluster.KindDetachTail:    5 * time.Second,
	cluster.KindMakeWritable:  10 * time.Second,
	cluster.KindMakeReadOnly:  10 * time.Second,
	cluster.KindEnableEvents:  10 * time.Second,
	cluster.KindDisableEvents: 10 * time.Second,
	cluster.KindPlaceLog:      time.Minute,
	cluster.KindFetchCopy:     7 * 24 * time.Hour, // a copy that stands still ends by itself
	cluster.KindAdoptCopy:     10 * time.Minute,
	cluster.KindSetAside:      20 * time.Minute, // it makes new data and starts a server on them
}

// carry carries one action out: at once, or, a slow one, by starting it.
func (l *loop) carry(a cluster.Action) {
	v := &l.view
	switch a := a.(type) {
	case cluster.CloseGate:
		l.gate.Close(a.Reason)
		l.tellEnd(a.Reason)
		l.log.Info("gate closed", telemetry.KeyReason, a.Reason)
		v.Gate, v.Drained = cluster.GateClosed, false
	case cluster.OpenGate:
		l.gate.Open()
		v.Gate = cluster.GateOpen
		l.log.Info("gate opened", telemetry.KeyEpoch, v.Epoch.Own)
		now := time.Now()
		took, phases := l.time.finish(now, v.Epoch.Own)
		l.tellBegin(now, took, phases)
	case cluster.Drain:
		l.gate.Drain()
		v.Gate = cluster.GateDraining
	case cluster.OpenReads:
		l.gate.OpenReads()
		v.Reads = true
	case cluster.CloseReads:
		l.gate.CloseReads(a.Reason)
		v.Reads = false
	case cluster.RouteTo:
		l.gate.RouteTo(a.Route)
		v.Route = a.Route
	case cluster.SetCandidacy:
		l.cons.SetCandidacy(a.Candidacy.Able, a.Candidacy.Delay)
		v.Candidacy = a.Candidacy
	case cluster.KillEngine:
		l.kill(a.Reason)
	case cluster.ProposeEpoch:
		l.proposeEpoch(a.Number)
	case cluster.HandOver:
		l.handOver(a)
	case cluster.AcceptSwitchover:
		l.acceptSwitchover(a.Target)
	case cluster.EndSwitchover:
		l.endSwitchover(a.Problem)
	default:
		l.begin(a)
	}
}

func (l *loop) kill(reason string) {
	l.log.Warn("server is killed", telemetry.KeyReason, reason)
	l.view.Engine.State = cluster.EngineStopping
	l.engineGone()
	l.db.Kill(func(err error) {
		l.log.Error("server cannot be killed", telemetry.KeyError, err, telemetry.KeyHint, "see whether the disk of its data directory hangs")
	})
	if l.cancel != nil {
		l.cancel()
	}
}

// engineGone forgets what was true of a server that has ended or is about to.
func (l *loop) engineGone() {
	l.run++
	if l.view.Tail == cluster.TailAttached {
		l.tailGone()
	}
	e := &l.view.Engine
	e.Replica, e.ReplicaError, e.Writable, e.Dirty, e.Events, e.Applied = cluster.ReplicaOff, "", false, false, false, false
	e.Errant, l.quietAt, l.counted = "", 0, 0
}

// tailGone notes the end of an attached tail. Its epoch ends with it: only a new
// one tells what of its proposals was chosen.
func (l *loop) tailGone() {
	l.tail.Abandon()
	l.view.Tail = cluster.TailFailed
	if l.view.Epoch.State == cluster.EpochChosen {
		l.view.Epoch.State = cluster.EpochSpent
	}
}

// proposeEpoch proposes the epoch of this term. While its fate is unknown the
// epoch counts as proposed; it is proposed again only when it was not taken.
func (l *loop) proposeEpoch(number uint64) {
	v := &l.view
	l.told.before = v.Epoch.Node
	v.Epoch.State, v.Epoch.Own, l.epochAt = cluster.EpochProposed, number, 0
	term := l.term
	val := entry.Value{Kind: entry.Epoch, Epoch: number, Node: uint64(l.self), ServerUUID: l.db.ServerUUID()}
	data := val.Encode()
	outcome := func(i paxos.Instance, err error) {
		if term != l.term || v.Epoch.State != cluster.EpochProposed || v.Epoch.Own != number {
			return
		}
		if err != nil {
			l.log.Debug("epoch not chosen", telemetry.KeyEpoch, number, telemetry.KeyError, err)
			time.AfterFunc(tickSteady, func() {
				l.post(func() {
					if term == l.term && v.Epoch.State == cluster.EpochProposed && v.Epoch.Own == number {
						v.Epoch.State = cluster.EpochNone
					}
				})
			})
			return
		}
		l.epochAt = i
		l.watchJournal(i)
	}
	go func() { // Propose blocks when the pipeline is full
		err := l.cons.Propose(data, func(i paxos.Instance, err error) { go l.post(func() { outcome(i, err) }) })
		if err != nil {
			l.post(func() { outcome(0, err) })
		}
	}()
}

// watchJournal wakes the loop when the journal has read through i.
func (l *loop) watchJournal(i paxos.Instance) {
	go func() {
		if l.jour.Wait(l.ctx, i) == nil {
			l.post(func() {})
		}
	}()
}

func (l *loop) handOver(a cluster.HandOver) {
	l.log.Info("leadership is handed over", telemetry.KeyTo, uint64(a.To), telemetry.KeyReason, a.Reason)
	l.view.Lead.HandingOver = a.To
	l.handUntil = l.now.Add(handLimit)
	if err := l.cons.Transfer(a.To); err != nil {
		l.log.Warn("leadership cannot be handed over", telemetry.KeyTo, uint64(a.To), telemetry.KeyError, err)
		l.handUntil = l.now
	}
}

// begin starts a slow action. There is one at a time; it is over when finished
// was called, even if the server it was meant for is gone.
func (l *loop) begin(a cluster.Action) {
	k := a.Kind()
	limit := limits[k]
	if l.view.Stopping {
		limit = min(limit, max(time.Second, l.until(l.stopAt)))
	} else if s := l.view.Switch; k == cluster.KindMakeReadOnly && s != nil {
		limit = min(limit, max(100*time.Millisecond, s.Left))
	}
	ctx, cancel := context.WithTimeout(l.ctx, limit)
	l.cancel, l.view.Busy = cancel, k
	l.steps++
	l.prepare(k)
	run := l.run
	do := l.work(a)
	go func() {
		defer cancel()
		err := do(ctx)
		l.post(func() { l.finished(k, run, err) })
	}()
}

// prepare puts into the view what is true from the moment an action begins.
func (l *loop) prepare(k cluster.Kind) {
	e := &l.view.Engine
	switch k {
	case cluster.KindInitEngine:
		e.State = cluster.EngineInitialising
	case cluster.KindStartEngine:
		l.run++
		e.State = cluster.EngineStarting
	case cluster.KindStopEngine:
		e.State = cluster.EngineStopping
	case cluster.KindMakeWritable:
		e.Dirty = true
	case cluster.KindMakeReadOnly:
		e.Writable = false
	case cluster.KindAttachTail:
		l.tellTail(nil)
		if l.told.reign != nil {
			l.told.reign(l.view.Epoch.Own, false)
		}
		l.tailRun++
	case cluster.KindFetchCopy:
		l.keepOld = e.Errant != "" || l.differs
	}
}

// work returns what a slow action does outside of the loop.
func (l *loop) work(a cluster.Action) func(context.Context) error {
	switch a := a.(type) {
	case cluster.InitEngine:
		unproved := l.restored
		return func(ctx context.Context) error { return l.db.Init(ctx, unproved) }
	case cluster.StartEngine:
		run := l.run
		return func(ctx context.Context) error {
			return l.db.Start(ctx, func(reason string) { l.post(func() { l.exited(run, reason) }) })
		}
	case cluster.StopEngine:
		return l.db.Stop
	case cluster.StartReplica:
		return l.db.StartReplica
	case cluster.StopReplica:
		return l.db.StopReplica
	case cluster.AttachTail:
		n, quiet := l.tailRun, !l.view.Engine.Dirty
		return func(ctx context.Context) error {
			if quiet {
				if err := l.db.OwnPrepared(ctx); err != nil {
					return err
				}
			}
			ctx, cancel := context.WithTimeout(ctx, attachLimit)
			defer cancel()
			return l.tail.Attach(ctx, a.Epoch, func(err error) { l.post(func() { l.tailEnds(n, err) }) })
		}
	case cluster.DetachTail:
		return l.tail.Detach
	case cluster.MakeWritable:
		return l.db.MakeWritable
	case cluster.MakeReadOnly:
		return l.db.MakeReadOnly
	case cluster.EnableEvents:
		return l.db.EnableEvents
	case cluster.DisableEvents:
		return l.db.DisableEvents
	case cluster.FetchCopy:
		return l.fetchCopy
	case cluster.AdoptCopy:
		keep := l.keepOld
		return func(ctx context.Context) error { return l.restorer.AdoptCopy(ctx, keep) }
	case cluster.SetAside:
		return l.restorer.SetAside
	case cluster.PlaceLog:
		return l.placeLog
	}
	panic(fmt.Sprintf("agent: unknown action %s", a))
}

// finished takes in the end of a slow action.
func (l *loop) finished(k cluster.Kind, run int, err error) {
	l.view.Busy, l.cancel = "", nil
	l.steps++
	l.now = time.Now()
	if run != l.run && k != cluster.KindDetachTail { // meant for a server that is gone
		if k == cluster.KindAttachTail && err == nil {
			l.view.Tail = cluster.TailFailed
		}
		if k == cluster.KindStartEngine && err != nil && l.view.Engine.State == cluster.EngineStopping {
			l.view.Engine.State = cluster.EngineStopped // killed before it answered; nobody else reports its end
		}
		return
	}
	if err != nil {
		l.failed(k, err)
		return
	}
	if l.view.Failed.Action == k {
		l.view.Failed = cluster.Failure{}
	}
	l.succeeded(k)
}

func (l *loop) succeeded(k cluster.Kind) {
	v, e := &l.view, &l.view.Engine
	switch k {
	case cluster.KindInitEngine:
		e.State = cluster.EngineStopped
	case cluster.KindStartEngine:
		l.engineRuns()
	case cluster.KindStopEngine:
		l.engineGone()
		e.State = cluster.EngineStopped
	case cluster.KindStartReplica:
		e.Replica = cluster.ReplicaRunning
	case cluster.KindStopReplica:
		e.Replica = cluster.ReplicaOff
		l.time.mark(markStopped, l.now)
	case cluster.KindAttachTail:
		v.Tail = cluster.TailAttached
		l.time.mark(markAttached, l.now)
		if l.tailEnded == l.tailRun {
			l.tailGone()
		}
	case cluster.KindDetachTail:
		if v.Tail == cluster.TailAttached {
			l.tailGone() // spends the epoch
		}
		v.Tail = cluster.TailOff
	case cluster.KindMakeWritable:
		e.Writable = true
		l.time.mark(markWritable, l.now)
	case cluster.KindMakeReadOnly:
		e.Dirty = false
		l.becameQuiet()
	case cluster.KindEnableEvents:
		e.Events = true
	case cluster.KindDisableEvents:
		e.Events = false
	case cluster.KindAdoptCopy, cluster.KindSetAside:
		l.dataReplaced()
	}
}

// failed notes a failure and when to try again. A server that does not start
// counts as one that has crashed.
func (l *loop) failed(k cluster.Kind, err error) {
	l.log.Warn("step failed", telemetry.KeyAction, string(k), telemetry.KeyError, err)
	switch k {
	case cluster.KindStartEngine:
		l.crashed(err.Error())
		return
	case cluster.KindInitEngine:
		l.view.Engine.State = cluster.EngineAbsent
	case cluster.KindStopEngine:
		l.view.Engine.State = cluster.EngineRunning
	case cluster.KindFetchCopy:
		if l.unprefer(err) {
			return
		}
	case cluster.KindSetAside:
		l.faults = 0 // the data are not known to be at fault: the server is tried again first
	}
	f := &l.view.Failed
	if f.Action != k {
		*f = cluster.Failure{Action: k}
	}
	f.Times++
	f.Reason = err.Error()
	l.failUntil = l.now.Add(max(100*time.Millisecond, backoff(f.Times)))
}

func (l *loop) engineRuns() {
	e := &l.view.Engine
	e.State, e.Reason = cluster.EngineRunning, ""
	l.startedAt, l.seenAt = l.now, l.now.Add(-observeEvery)
	if l.view.Epoch.State == cluster.EpochChosen {
		l.waitApplied()
	}
}

// exited takes in the end of the server's process.
func (l *loop) exited(run int, reason string) {
	l.now = time.Now()
	e := &l.view.Engine
	if e.State == cluster.EngineStopping { // asked for
		l.engineGone()
		e.State, e.Reason = cluster.EngineStopped, reason
		l.log.Info("server ended", telemetry.KeyExit, reason)
		return
	}
	if run != l.run {
		return
	}
	l.crashed(reason)
}

func (l *loop) crashed(reason string) {
	l.tellCrash(reason)
	e := &l.view.Engine
	l.engineGone()
	e.State, e.Reason = cluster.EngineCrashed, reason
	e.Crashes++
	l.countFault(reason)
	l.waitUntil = l.now.Add(max(l.db.Crashed(), backoff(e.Crashes)))
	if l.cancel != nil {
		l.cancel()
	}
	l.log.Warn("server ended by itself", telemetry.KeyExit, reason, telemetry.KeyAttempt, e.Crashes)
}

func (l *loop) tailEnds(n int, err error) {
	if n != l.tailRun {
		return
	}
	l.tailEnded = n
	if l.view.Tail == cluster.TailAttached {
		l.log.Warn("tail ended", telemetry.KeyReason, fmt.Sprint(err))
		l.tailGone()
	}
}
