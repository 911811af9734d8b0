package agent

import (
	"fmt"
	"slices"
	"time"

	"github.com/phxsql/phxsql/internal/cluster"
	"github.com/phxsql/phxsql/internal/telemetry"
	"github.com/phxsql/phxsql/paxos"
)

// A server whose disk was full is given strandedAfter to go on when there is room again.
// strandedFor is for how long it may wait because of that: longer than MySQL does.
const (
	strandedAfter = 3 * time.Second
	strandedFor   = 90 * time.Second
)

// refresh brings the view up to date with everything that can simply be looked
// at. What needs waiting arrives through post.
func (l *loop) refresh(now time.Time) {
	passed := now.Sub(l.turned)
	l.now, l.turned = now, now
	v := &l.view
	v.Self = l.self
	m, ok := l.cons.Members().Find(l.self)
	v.Member, v.Role = ok, m.Role
	v.Wants = 0
	if l.wanted != nil {
		v.Wants = l.wanted()
	}
	if !ok {
		v.Role = v.Wants
	}
	v.Removed = !ok && v.Role == 0 && !l.cons.Members().Blank() || ok && v.Lead.Leader == 0 && l.expelled != nil && l.expelled()
	l.refreshLead()
	l.refreshEpoch()
	l.refreshPeers()
	l.refreshHealth(passed)
	l.refreshRestore()
	e := &v.Engine
	e.Stranded = l.stranded()
	e.Lagging = 0
	if v.Epoch.State == cluster.EpochChosen && !e.Applied {
		e.Lagging = l.now.Sub(l.chosenAt)
	}
	e.Wait, e.ReplicaWait, v.Failed.Wait = l.until(l.waitUntil), l.until(l.replicaAt), l.until(l.failUntil)
	if e.State == cluster.EngineRunning && e.Crashes > 0 && l.now.Sub(l.startedAt) > time.Minute {
		e.Crashes, l.faults = 0, 0
	}
	if v.Stopping {
		v.StopLeft = l.until(l.stopAt)
	}
	if v.Switch != nil {
		v.Switch.Left, v.Switch.DrainLeft = l.until(l.sw.deadline), l.until(l.sw.drainUntil)
	}
	v.Drained = v.Gate == cluster.GateDraining && l.gate.Drained()
}

func (l *loop) until(t time.Time) time.Duration { return max(0, t.Sub(l.now)) }

// refreshLead reads who leads. A new term of this node forgets the epoch of the
// last one.
func (l *loop) refreshLead() {
	v := &l.view
	ld := l.cons.Leadership()
	if ld.Term != l.term {
		l.newTerm(ld)
	}
	if ld.Leader != v.Lead.Leader {
		l.log.Info("leader changed", telemetry.KeyFrom, uint64(v.Lead.Leader), telemetry.KeyTo, uint64(ld.Leader))
	}
	v.Lead.Leader, v.Lead.Self = ld.Leader, !ld.Term.IsZero()
	if ld.Leader != 0 && !v.Lead.Self {
		l.leaderAt, l.told.leader = l.now, ld.Leader
	}
	v.Lead.Ready = v.Lead.Self && ld.Ready && l.journalReady()
	if v.Lead.Ready {
		l.time.mark(markReady, l.now)
	}
	had := v.Lead.Lease
	v.Lead.Lease, v.Lead.Lapsed = v.Lead.Self && l.cons.LeaseValid(), 0
	switch {
	case v.Lead.Lease || !v.Lead.Self:
	case had: // counted from now: this process itself may have been paused
		l.lapsedAt = l.now
	default:
		v.Lead.Lapsed = l.now.Sub(l.lapsedAt)
	}
	if h := v.Lead.HandingOver; h != 0 && l.now.After(l.handUntil) {
		v.Lead.HandingOver = 0
		l.declined[h] = l.now.Add(declineFor)
	}
}

func (l *loop) newTerm(ld paxos.Leadership) {
	v := &l.view
	l.term, l.epochAt, l.readyAt = ld.Term, 0, 0
	v.Epoch.State, v.Epoch.Own, v.Lead.HandingOver, v.Engine.Applied = cluster.EpochNone, 0, 0, false
	l.lapsedAt = l.now
	// What failed under another leadership is tried again before this one is given
	// up: two members that remember failures would only hand over to each other.
	v.Failed, l.failUntil = cluster.Failure{}, time.Time{}
	if ld.Term.IsZero() {
		l.time.seen = nil
		return
	}
	l.tellTerm()
	l.time.mark(markElected, l.now)
}

// journalReady reports that the journal has read everything that was chosen
// before this term, so that the newest epoch it knows is the newest there is.
func (l *loop) journalReady() bool {
	if l.readyAt == 0 {
		l.readyAt = max(1, l.cons.Chosen())
	}
	pos, _, _ := l.jour.Position()
	return pos >= l.readyAt
}

// refreshEpoch reads the newest epoch, and notices when the own one comes back
// from the log.
func (l *loop) refreshEpoch() {
	v := &l.view
	pos, newest, node := l.jour.Position()
	v.Epoch.Newest, v.Epoch.Node = newest, node
	if v.Epoch.State == cluster.EpochProposed && l.epochAt != 0 && pos >= l.epochAt {
		v.Epoch.State, l.chosenAt = cluster.EpochChosen, l.now
		l.time.mark(markEpoch, l.now)
		l.log.Info("epoch begins", telemetry.KeyEpoch, v.Epoch.Own, telemetry.KeyInstance, uint64(l.epochAt))
		l.waitApplied()
	}
	if !l.caughtUp {
		all, known := l.heard()
		l.caughtUp = known && pos >= all
	}
}

// waitApplied has the loop told when the server has executed everything before
// the own epoch. No other epoch can follow unnoticed, and values of older ones
// do not count after it, so that is everything there is.
func (l *loop) waitApplied() {
	run, term, need := l.run, l.term, l.jour.Executed()
	if l.view.Engine.State != cluster.EngineRunning || l.view.Epoch.State != cluster.EpochChosen || l.view.Engine.Applied {
		return // asked again when it runs
	}
	go func() {
		err := l.db.WaitExecuted(l.ctx, need)
		l.post(func() {
			if run != l.run || term != l.term || l.view.Epoch.State != cluster.EpochChosen {
				return
			}
			if err != nil {
				l.log.Warn("server does not tell how far it is", telemetry.KeyError, err)
				time.AfterFunc(observeEvery, func() { l.post(l.waitApplied) })
				return
			}
			l.view.Engine.Applied = true
			l.time.mark(markApplied, time.Now())
		})
	}()
}

func (l *loop) refreshPeers() {
	v := &l.view
	v.Peers = v.Peers[:0:0]
	for _, m := range l.cons.Members().List {
		if m.ID == l.self {
			continue
		}
		a, age, ok := l.peers.get(m.ID, l.now)
		p := cluster.Peer{ID: m.ID, Role: m.Role, Alive: ok && age < aliveFor}
		if p.Alive {
			p.Able, p.Wary, p.Gate, p.Behind, p.Near = a.Able, a.Wary, a.Member.Master, a.Member.LagTransactions, a.Near
			p.Current = l.epochAt != 0 && a.Counted >= l.epochAt
			p.Applied = l.quietAt != 0 && a.Member.Log.Applied >= l.quietAt
		}
		if l.sw != nil && l.sw.appliedBy == m.ID {
			p.Applied = true
		}
		p.Declined = l.now.Before(l.declined[m.ID])
		v.Peers = append(v.Peers, p)
	}
}

// refreshHealth judges what the canaries say. Time in which this process itself did
// not run does not count.
func (l *loop) refreshHealth(passed time.Duration) {
	v := &l.view
	passed = min(passed, 4*tickSteady)
	v.Health = v.Health[:0:0]
	if l.diskFull != nil && l.diskFull() {
		v.Health = append(v.Health, cluster.Problem{
			Name: "log_disk_full", Severe: true,
			Reason: "the disk of the log has no room for the next segment",
			Hint:   "free space there; nothing is lost meanwhile",
		})
	}
	if l.hung(passed) {
		v.Health = append(v.Health, cluster.Problem{
			Name: "engine_stalled", Severe: true,
			Reason: "the server has not answered for " + l.silent.Truncate(time.Second).String(),
			Hint:   "look at the disk of its data directory and at its processlist",
		})
	}
	if p, found := l.auditProblem(); found {
		v.Health = append(v.Health, p)
	}
	if l.canaries != nil {
		v.Health = append(v.Health, l.canaries.judge(passed)...)
	}
	l.refreshProbation()
	l.tellHealth()
}

// stranded reports that the server ran when the disk of its data was full, and executes
// nothing of what it lacks although there is room again: a thread of MySQL that found the
// disk full looks again only after a minute (MY_WAIT_FOR_USER_TO_FIX_PANIC in mysys).
func (l *loop) stranded() bool {
	e := &l.view.Engine
	if slices.ContainsFunc(l.view.Health, func(p cluster.Problem) bool { return p.Name == diskFullProblem }) {
		l.roomAt, l.roomRun = l.now, l.run
		return false
	}
	if e.State != cluster.EngineRunning || l.roomAt.IsZero() || l.roomRun != l.run || l.now.Sub(l.roomAt) > strandedFor {
		return false
	}
	lacks := e.Behind > 0 || e.Replica == cluster.ReplicaBroken || l.silent > strandedAfter
	return lacks && l.now.Sub(l.roomAt) > strandedAfter && l.now.Sub(l.movedAt) > strandedAfter
}

// hung reports a server that runs and does not answer. One that does nothing at all is
// hung sooner than one that works on something.
func (l *loop) hung(passed time.Duration) bool {
	l.silent += passed
	switch {
	case l.view.Engine.State != cluster.EngineRunning:
		l.silent = 0
	case l.starts():
		l.silent, l.idleFrom = 0, nil
	case l.silent > stallLimit:
		return true
	case l.ticks == nil || l.silent < idleAfter:
		l.idleFrom = nil
	case l.idleFrom == nil:
		if n, ok := l.ticks(); ok {
			l.idleFrom = &n
		}
	case l.silent > l.canaries.limit:
		n, ok := l.ticks()
		return ok && n-*l.idleFrom <= idleTicks
	}
	return false
}

// starts reports that the server is started anew within a promotion and gets on with it:
// it has had time on a processor since the last look, or is another process by now. It
// cannot answer, however long the recovery of its data takes.
func (l *loop) starts() bool {
	if l.restarting == nil || l.ticks == nil || !l.restarting() {
		return false
	}
	n, ok := l.ticks()
	if !ok {
		return false
	}
	before := l.startTicks
	l.startTicks = n
	return n != before
}

// refreshProbation damps flapping.
func (l *loop) refreshProbation() {
	if l.begun.IsZero() {
		l.begun = l.now
	}
	fit := true
	for _, h := range l.view.Health {
		if h.Severe {
			fit, l.lastIll = false, h.Name
		}
	}
	left := l.probation.Note(l.now.Sub(l.begun), fit)
	if !fit || left == 0 {
		return
	}
	l.view.Health = append(l.view.Health, cluster.Problem{
		Name: "on_probation", Wary: true,
		Reason: fmt.Sprintf("it was unfit to lead a moment ago (%s), %d times lately", l.lastIll, l.probation.Times),
		Hint:   "nothing; others are preferred as master for another " + left.Truncate(time.Second).String(),
	})
}
