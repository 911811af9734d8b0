package cluster

import "github.com/phxsql/phxsql/paxos"

// lead plans the next step from leadership to an open gate.
func (p *plan) lead() {
	v := p.v
	if v.Lead.HandingOver != 0 {
		return
	}
	if reason := v.unfit(); reason != "" && p.giveUp(reason) {
		return
	}
	if h, ok := v.yields(); ok && p.giveWay(h.Reason) {
		return
	}
	if to := v.further(); to != 0 && p.offer(to, "this server has to execute more than that of another member") {
		return
	}
	// One that serves already leaves by a planned switchover, which ends nobody's session.
	if v.Restore.Unproved && !v.Engine.Dirty && v.Switch == nil && p.giveWay("its data were not compared with another member's yet") {
		return
	}
	if !v.current() && v.Epoch.State != EpochProposed {
		if v.Lead.Ready {
			p.do(ProposeEpoch{Number: v.Epoch.Newest + 1})
		}
	}
	if v.Restore.active() {
		p.restore()
		return
	}
	if !p.engineUp() || v.Engine.Errant != "" {
		return
	}
	if !v.current() || !v.Engine.Applied {
		p.follow() // until everything before the epoch is executed
		return
	}
	p.promote()
}

// promote takes a server that has executed everything before the epoch on to
// the master's role, one step at a time.
func (p *plan) promote() {
	v := p.v
	switch {
	case v.Engine.Replica != ReplicaOff:
		p.later(StopReplica{})
	case v.Tail == TailOff:
		p.later(AttachTail{Epoch: v.Epoch.Own})
	case v.Tail == TailFailed:
		p.later(DetachTail{})
	case v.Switch != nil && v.Switch.Accepted:
		p.release()
	case !v.Engine.Writable:
		p.later(MakeWritable{})
	case !v.Engine.Events:
		p.later(EnableEvents{})
	case v.Gate != GateOpen && v.barred() == "":
		p.opening = true
		p.do(OpenGate{})
	}
}

// unfit returns why a leader should give leadership to another member, or
// nothing. It stays the leader when nobody else is able.
func (v *View) unfit() string {
	switch {
	case v.Engine.State != EngineRunning:
		return "the server does not run"
	case v.Engine.Errant != "":
		return "the server has diverged"
	case v.Restore.active():
		return "the server needs another member's data"
	case v.Engine.Replica == ReplicaBroken:
		return "replication has stopped before everything was executed"
	case v.Failed.Times >= MaxFailures && v.Failed.Action.Slow():
		return "the promotion fails: " + v.Failed.Reason
	}
	if h, ok := v.severe(); ok {
		return h.Reason
	}
	return ""
}

// giveUp offers leadership to the best follower, after the gate is closed and a
// dirty server killed. It reports false when there is none.
func (p *plan) giveUp(reason string) bool {
	return p.offer(p.v.best(), reason)
}

// offer is giveUp with a given follower; it reports false for zero.
func (p *plan) offer(to paxos.NodeID, reason string) bool {
	v := p.v
	if to == 0 {
		return false
	}
	p.closeGate(reason)
	if v.Engine.Dirty && v.Engine.State == EngineRunning {
		p.kill(reason)
	}
	p.do(HandOver{To: to, Reason: reason})
	p.engineUp()
	return true
}

// giveWay is giveUp for a leader that could go on: only somebody who is better off
// and lacks nothing that takes long is offered leadership.
func (p *plan) giveWay(reason string) bool {
	to, ok := p.v.peer(p.v.best())
	if !ok || to.Wary || !to.close() {
		return false
	}
	return p.giveUp(reason)
}

// switchover accepts, refuses, and ends a request.
func (p *plan) switchover() {
	v := p.v
	s := v.Switch
	if s == nil {
		return
	}
	if !s.Accepted {
		target, refusal := v.examine()
		if refusal.Name != "" {
			p.do(EndSwitchover{Problem: refusal})
		} else {
			p.do(AcceptSwitchover{Target: target})
		}
		return
	}
	if over, problem := v.switchOutcome(); over {
		p.do(EndSwitchover{Problem: problem})
	}
}

// MaxSwitchBehind is how many transactions a target may be behind when a
// switchover begins if it is not near; the rest is applied while the master holds new ones.
const MaxSwitchBehind = 5000

// close reports that a member executes what it lacks in a few seconds.
func (p Peer) close() bool { return p.Near || p.Behind <= MaxSwitchBehind }

// examine checks a new request, and finds the target when none is named.
func (v *View) examine() (paxos.NodeID, Problem) {
	if !v.current() || v.Gate != GateOpen {
		return 0, Problem{Name: "not_master", Reason: "this node is not the serving master", Hint: "ask again when phxsql status shows a master"}
	}
	target := v.Switch.Target
	if target == 0 {
		target = v.best()
	}
	t, ok := v.peer(target)
	switch {
	case target == 0:
		return 0, Problem{Name: "no_target", Reason: "no other member is able to lead", Hint: "see the problems of the other members in phxsql status"}
	case target == v.Self:
		return 0, Problem{Name: "already_master", Reason: "the target is the master already", Hint: "name another member"}
	case !ok:
		return 0, Problem{Name: "unknown_target", Reason: "the target is not a member", Hint: "phxsql status lists the members"}
	case t.Role != paxos.Voter:
		return 0, Problem{Name: "target_not_voter", Reason: "the target never leads: it is a witness or a learner", Hint: "name a voting member"}
	case !t.Alive:
		return 0, Problem{Name: "target_down", Reason: "nothing was heard of the target lately", Hint: "start it, or look at the network between the members"}
	case !t.Able:
		return 0, Problem{Name: "target_not_able", Reason: "the target says that it cannot lead", Hint: "see its problems in phxsql status"}
	case !t.close():
		return 0, Problem{Name: "target_behind", Reason: "the target has not executed enough of the log", Hint: "wait until its lag in phxsql status is small"}
	}
	return target, Problem{}
}

// switchOutcome tells whether an accepted switchover is over, and how.
func (v *View) switchOutcome() (bool, Problem) {
	s := v.Switch
	t, _ := v.peer(s.Target)
	switch {
	case v.Lead.Leader == s.Target && t.Gate:
		return true, Problem{}
	case v.Lead.Leader != 0 && !v.Lead.Self && v.Lead.Leader != s.Target:
		return true, Problem{Name: "other_leader", Reason: "another member has taken over", Hint: "phxsql status shows which; ask again"}
	case s.Left <= 0 && v.Lead.Leader == s.Target:
		return true, Problem{Name: "target_slow", Reason: "the target leads but has not opened its gate in time", Hint: "see its problems in phxsql status"}
	case s.Left <= 0:
		return true, Problem{Name: "timeout", Reason: "the switchover was not done in time; the old master goes on", Hint: "long transactions or a slow target delay it; give it more time"}
	case !v.Lead.Self:
		return false, Problem{} // on the way
	case !t.Alive || !t.Able:
		return true, Problem{Name: "target_lost", Reason: "the target has become unable to lead", Hint: "see its problems in phxsql status"}
	case t.Declined:
		return true, Problem{Name: "target_declined", Reason: "the target did not take leadership", Hint: "see its log; ask again"}
	case v.Failed.Action == KindMakeReadOnly && v.Failed.Times > 0:
		return true, Problem{Name: "cannot_quiesce", Reason: "running commits do not end: " + v.Failed.Reason, Hint: "the majority may be slow; ask again"}
	}
	return false, Problem{}
}

// release is the master's part of a planned switchover: drain, cut, make the
// server read-only (which waits for every commit), wait for the target, transfer.
func (p *plan) release() {
	v, s := p.v, p.v.Switch
	if over, _ := v.switchOutcome(); over {
		return // the next decision resumes
	}
	t, _ := v.peer(s.Target)
	switch {
	case v.Gate == GateOpen && s.DrainLeft > 0:
		p.do(Drain{})
	case v.Gate == GateDraining && !v.Drained && s.DrainLeft > 0:
		return
	case v.Engine.Dirty:
		p.closeGate("planned switchover")
		p.later(MakeReadOnly{})
	case t.Applied:
		p.closeGate("planned switchover")
		p.do(HandOver{To: s.Target, Reason: "planned switchover"})
	}
}
