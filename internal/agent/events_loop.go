package agent

import (
	"fmt"
	"strings"
	"time"

	"github.com/phxsql/phxsql/internal/cluster"
	"github.com/phxsql/phxsql/internal/events"
	"github.com/phxsql/phxsql/internal/gtid"
	"github.com/phxsql/phxsql/paxos"
)

// told is what the loop needs to tell what happens. Without record it tells nothing.
// Its functions return at once.
type told struct {
	record func(events.Event)
	// loss says what this node sees of a leader that is gone.
	loss func(old paxos.NodeID) (events.Cause, string)
	// lease is how long the others have waited for a silent leader.
	lease func() time.Duration
	// commit calls f once with the next transaction that counts; nil takes it back.
	commit func(f func(gtid.GTID))
	// reign remembers that this node is the master of an epoch, or no longer.
	reign func(epoch uint64, open bool)
	// judge compares what an earlier life of the server left with what is known now.
	judge func(newest uint64, through paxos.Instance, log, engine *gtid.Set)

	leader  paxos.NodeID // the last other one that was known to lead
	before  paxos.NodeID // the master of the epoch before the own one
	cause   events.Cause // why this node leads
	reason  string
	leaving bool   // the node is being stopped and offers leadership
	unfit   string // the health problem that was told last
}

func (l *loop) tell(e events.Event) {
	if l.told.record != nil {
		l.told.record(e)
	}
}

// tellTerm begins the measurement of a promotion, and returns its cause.
func (l *loop) tellTerm() {
	t := &l.told
	was := l.view.Lead.Leader
	began := l.now
	switch {
	case l.leaderAt.IsZero():
		t.cause, t.reason = events.CauseUnknown, "no member led since this node started"
	case was != 0 && was != l.self:
		t.cause, t.reason, began = events.CauseGaveAway, fmt.Sprintf("node %d gave leadership away", was), l.leaderAt
	default:
		t.cause, t.reason = events.CauseSilent, "nothing came from it"
		if t.loss != nil {
			t.cause, t.reason = t.loss(t.leader)
		}
		if began = l.leaderAt; t.lease != nil {
			began = began.Add(-t.lease())
		}
	}
	l.time.begin(t.reason, began)
	if !l.leaderAt.IsZero() {
		l.time.mark(markDetected, l.leaderAt)
	}
}

// tellBegin says that clients get through, and waits for the first transaction.
func (l *loop) tellBegin(now time.Time, took time.Duration, phases []events.Phase) {
	t := &l.told
	epoch := l.view.Epoch.Own
	if t.reign != nil {
		t.reign(epoch, true)
	}
	if phases == nil || t.record == nil {
		return
	}
	if t.before == 0 {
		t.cause, t.reason = events.CauseFirst, "the cluster is new"
	}
	l.tell(events.Event{At: now, Kind: events.Began, Epoch: epoch, Cause: t.cause, Reason: t.reason, Peer: t.before, Took: took, Phases: phases})
	record := t.record
	t.commit(func(g gtid.GTID) {
		at := time.Now()
		record(events.Event{At: at, Kind: events.FirstCommit, Epoch: epoch, Took: at.Sub(now), GTID: g.String()})
	})
}

// tellEnd says that the gate closes, and why; it is called while it is still open.
func (l *loop) tellEnd(reason string) {
	v, t := &l.view, &l.told
	if v.Gate == cluster.GateClosed {
		return
	}
	if t.commit != nil {
		t.commit(nil)
	}
	if t.reign != nil {
		t.reign(v.Epoch.Own, false)
	}
	e := events.Event{Kind: events.Ended, Epoch: v.Epoch.Own, Reason: reason}
	if v.Switch != nil && v.Switch.Accepted {
		e.Peer = v.Switch.Target
	}
	e.Cause, e.Reason = endCause(v, t.leaving, reason)
	l.tell(e)
}

// endCause finds why a reign ends, for programs and for people.
func endCause(v *cluster.View, leaving bool, reason string) (events.Cause, string) {
	severe := func() (cluster.Problem, bool) {
		for _, h := range v.Health {
			if h.Severe || h.Yield {
				return h, true
			}
		}
		return cluster.Problem{}, false
	}
	h, ill := severe()
	switch {
	case leaving || v.Stopping:
		return events.CauseStop, "this node was told to stop"
	case v.Switch != nil && v.Switch.Accepted && v.Lead.Self && v.Engine.State == cluster.EngineRunning:
		return events.CauseSwitchover, "planned switchover"
	case !v.Member || v.Role != paxos.Voter:
		return events.CauseRemoved, reason
	case v.Engine.State == cluster.EngineCrashed:
		return events.CauseServer, "the server ended by itself: " + v.Engine.Reason
	case v.Engine.State != cluster.EngineRunning:
		return events.CauseServer, reason
	case ill:
		return events.CauseHealth, h.Name + ": " + h.Reason
	case v.Engine.Errant != "":
		return events.CauseDiverged, "the server holds transactions that the log does not: " + v.Engine.Errant
	case !v.Lead.Self:
		return events.CauseDeposed, fmt.Sprintf("%s: node %d leads", reason, v.Lead.Leader)
	case !v.Lead.Lease:
		return events.CauseLease, "the majority did not answer in time: the network, their disks, or this process stood still"
	case v.Tail != cluster.TailAttached:
		return events.CauseTail, reason
	}
	return events.CausePromotion, reason
}

// tellCrash says that a server that was not the master's ended by itself.
func (l *loop) tellCrash(reason string) {
	if l.view.Gate == cluster.GateClosed {
		l.tell(events.Event{Kind: events.Crashed, Reason: reason})
	}
}

// tellHealth says that this node cannot be master any more, when that begins.
func (l *loop) tellHealth() {
	var names, reasons []string
	for _, h := range l.view.Health {
		if h.Severe {
			names, reasons = append(names, h.Name), append(reasons, h.Name+": "+h.Reason)
		}
	}
	now := strings.Join(names, " ")
	if now != l.told.unfit && now != "" {
		l.tell(events.Event{Kind: events.Unfit, Epoch: l.view.Epoch.Newest, Cause: events.CauseHealth, Reason: strings.Join(reasons, "; ")})
	}
	l.told.unfit = now
}

// tellTail has what an earlier life of the server left behind judged. Engine is what
// the server holds, nil if that is not known.
func (l *loop) tellTail(engine *gtid.Set) {
	if l.told.judge == nil {
		return
	}
	through, newest, _ := l.jour.Position()
	l.told.judge(newest, through, l.jour.Executed(), engine)
}
