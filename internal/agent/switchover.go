package agent

import (
	"context"
	"time"

	"github.com/phxsql/phxsql/internal/api"
	"github.com/phxsql/phxsql/internal/cluster"
	"github.com/phxsql/phxsql/internal/events"
	"github.com/phxsql/phxsql/internal/telemetry"
	"github.com/phxsql/phxsql/paxos"
)

// The limits of a planned switchover where no others are set.
const (
	switchLimit = 15 * time.Second // then it is taken back
	drainLimit  = 2 * time.Second  // then transactions that are still open are cut
	stopGrace   = 2 * time.Second  // beyond its limit, for an orderly stop to notice the limit itself
)

// switchover is a request under way. It belongs to the loop.
type switchover struct {
	deadline   time.Time
	drainUntil time.Time
	begun      time.Time
	appliedBy  paxos.NodeID // the target, once it has executed everything
	answer     chan error   // has room for one
}

// requestSwitchover begins a switchover to a member, 0 for the best one, and
// returns when it is over.
func (l *loop) requestSwitchover(ctx context.Context, to paxos.NodeID, limit time.Duration) error {
	return l.requestSwitchoverWithin(ctx, to, limit, min(drainLimit, limit/2))
}

// requestSwitchoverWithin is requestSwitchover with a limit for open transactions.
func (l *loop) requestSwitchoverWithin(ctx context.Context, to paxos.NodeID, limit, drain time.Duration) error {
	answer := make(chan error, 1)
	err := l.ask(ctx, func() {
		if l.sw != nil {
			answer <- api.Refused("busy", "another switchover is under way", "wait until it is over")
			return
		}
		now := time.Now()
		l.sw = &switchover{begun: now, deadline: now.Add(limit), drainUntil: now.Add(drain), answer: answer}
		l.view.Switch = &cluster.Switchover{Target: to}
	})
	if err != nil {
		return err
	}
	select {
	case err := <-answer:
		return err
	case <-l.done:
		return errStopped
	case <-ctx.Done():
		return ctx.Err() // it goes on; its outcome is in the log
	}
}

func (l *loop) acceptSwitchover(target paxos.NodeID) {
	l.log.Info("planned switchover begins", telemetry.KeyTo, uint64(target))
	if !l.told.leaving {
		l.tell(events.Event{Kind: events.SwitchAsked, Epoch: l.view.Epoch.Own, Peer: target})
	}
	l.view.Switch.Accepted, l.view.Switch.Target = true, target
	l.view.Failed, l.quietAt = cluster.Failure{}, 0
}

func (l *loop) endSwitchover(p cluster.Problem) {
	sw, target := l.sw, l.view.Switch.Target
	l.sw, l.view.Switch, l.view.Failed, l.quietAt = nil, nil, cluster.Failure{}, 0
	took := time.Since(sw.begun)
	if p.Name == "" {
		l.log.Info("planned switchover done", telemetry.KeyTo, uint64(target), telemetry.KeyDuration, took)
		sw.answer <- nil
		return
	}
	l.log.Warn("planned switchover failed", telemetry.KeyTo, uint64(target), telemetry.KeyProblem, p.Name,
		telemetry.KeyReason, p.Reason, telemetry.KeyDuration, took)
	l.tell(events.Event{Kind: events.SwitchFailed, Epoch: l.view.Epoch.Newest, Peer: target, Reason: p.Name + ": " + p.Reason})
	sw.answer <- api.Refused(p.Name, p.Reason, p.Hint)
}

// becameQuiet notes the end of the log, now that nothing is written any more, and
// asks the target of a switchover to say when it has executed it.
func (l *loop) becameQuiet() {
	l.quietAt = l.cons.Chosen()
	sw := l.sw
	if sw == nil || !l.view.Switch.Accepted {
		return
	}
	target, at := l.view.Switch.Target, l.quietAt
	l.log.Info("server is quiet", telemetry.KeyInstance, uint64(at), telemetry.KeyDuration, l.now.Sub(sw.begun))
	go func() {
		ctx, cancel := context.WithDeadline(l.ctx, sw.deadline)
		defer cancel()
		if err := l.awaitApplied(ctx, target, at); err != nil {
			l.log.Debug("target did not say that it is done", telemetry.KeyTo, uint64(target), telemetry.KeyError, err)
			return // its announcements tell it too, only later
		}
		l.post(func() { sw.appliedBy = target })
	}()
}

// requestStop takes the node down: leadership goes to another member if one is
// able, then the server ends. It returns when serve is about to, or when the
// time is over.
func (l *loop) requestStop(limit time.Duration) {
	until := time.Now().Add(limit)
	ctx, cancel := context.WithDeadline(context.Background(), until)
	defer cancel()
	leads := false
	if l.ask(ctx, func() {
		leads = l.view.Lead.Self && l.view.Gate == cluster.GateOpen
		l.told.leaving = leads
	}) != nil {
		return
	}
	if leads {
		if err := l.requestSwitchover(ctx, 0, limit/2); err != nil {
			l.log.Info("leadership is not handed over before the stop", telemetry.KeyReason, err.Error())
		}
	}
	l.post(func() {
		l.view.Stopping, l.stopAt = true, until
		if l.view.Busy == cluster.KindFetchCopy {
			l.cancel() // a copy would delay the stop, and begins anew anyway
		}
	})
	select {
	case <-l.done:
	case <-time.After(time.Until(until) + stopGrace):
		l.log.Error("node does not stop in time: its server is killed", telemetry.KeyHint, "nothing is lost; see its log for what it waits for")
	}
}

// stopped reports that a node that was asked to stop has nothing left to do.
func (l *loop) stopped() bool {
	if !l.view.Stopping || l.view.Busy != "" {
		return false
	}
	switch l.view.Engine.State {
	case cluster.EngineAbsent, cluster.EngineStopped, cluster.EngineCrashed:
		return true
	}
	return false
}
