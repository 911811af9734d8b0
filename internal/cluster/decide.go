package cluster

import (
	"fmt"
	"time"

	"github.com/phxsql/phxsql/paxos"
)

// Limits of the decisions.
const (
	// LeaseGrace is how long a leader may be without lease before its server is
	// given up. The gate is closed during all of it; the grace only spares a
	// restart when the lease comes back under the same ballot.
	LeaseGrace = time.Second
	// MaxFailures is how often in a row a step of the promotion may fail before
	// leadership is offered to another member.
	MaxFailures = 3
	// CatchUpPatience is how long a leader waits for its server to execute what
	// precedes its epoch, before it looks for a member that is further. It is longer
	// than a change of the leader takes.
	CatchUpPatience = time.Second
	// FurtherBy is how many transactions fewer a member must lack to be offered
	// leadership for it, unless it lacks none: about what a server executes in a second.
	FurtherBy = 2000
	// applyRate is the assumed number of transactions per second with which a
	// candidate catches up; maxDelay limits the delay derived from it.
	applyRate = 2000
	maxDelay  = 3 * time.Second
	delayStep = 50 * time.Millisecond
	// unprovedDelay comes on top for a candidate whose data are unproved.
	unprovedDelay = time.Second
)

// plan collects the actions of one decision.
type plan struct {
	v       *View
	actions []Action
	slow    bool // a slow action is planned
	closing bool // the gate is closed, or closed earlier in this plan
	opening bool // the gate is opened by this plan
}

// Decide returns what this node should do now, in order: closing and killing
// first, then at most one slow step, and what opens last. Nothing is returned
// for what is already so or already under way.
func Decide(v View) []Action {
	v.settle()
	p := plan{v: &v, closing: v.Gate == GateClosed}
	p.guard()
	p.switchover()
	p.step()
	p.reads()
	p.candidacy()
	p.route()
	p.report()
	return p.actions
}

func (p *plan) do(a Action) { p.actions = append(p.actions, a) }

// later plans a slow action, unless one is under way or it has just failed.
func (p *plan) later(a Action) {
	f := p.v.Failed
	if p.slow || p.v.Busy != "" || (f.Action == a.Kind() && f.Wait > 0) {
		return
	}
	p.slow = true
	p.do(a)
}

func (p *plan) closeGate(reason string) {
	if !p.closing {
		p.closing = true
		p.do(CloseGate{Reason: reason})
	}
}

// kill ends the server, the gate having been closed before. The slow action
// under way ends with it, and no other one is planned on a dying server.
func (p *plan) kill(reason string) {
	p.closeGate(reason)
	p.slow = true
	p.do(KillEngine{Reason: reason})
	p.v.Engine.State = EngineStopping
}

// guard closes what must not be open and kills what must not live on. It comes
// before everything else and depends on nothing else.
func (p *plan) guard() {
	v := p.v
	if reason := v.barred(); reason != "" {
		p.closeGate(reason)
	}
	if v.Engine.State != EngineRunning || !v.Engine.Dirty {
		return
	}
	if reason := v.doomed(); reason != "" {
		p.kill(reason)
	}
}

// settle makes the cautious reading of a view explicit.
func (v *View) settle() {
	v.Engine.Dirty = v.Engine.Dirty || v.Engine.Writable
}

// barred returns why no client may reach the local server through the
// read-write port, or nothing.
func (v *View) barred() string {
	switch {
	case !v.Member || v.Role != paxos.Voter:
		return "this node is not a voting member"
	case v.Stopping:
		return "this node stops"
	case !v.Lead.Self:
		return "leadership is lost"
	case !v.Lead.Lease:
		return "the lease has ended"
	case v.Engine.State != EngineRunning:
		return "the server does not run"
	case v.Tail != TailAttached:
		return "the tail is not attached"
	case v.Epoch.State != EpochChosen:
		return "this leadership has no epoch"
	case v.superseded():
		return fmt.Sprintf("epoch %d of node %d follows", v.Epoch.Newest, v.Epoch.Node)
	case v.Engine.Errant != "":
		return "the server has diverged"
	case !v.Engine.Applied || v.Engine.Replica != ReplicaOff || !v.Engine.Writable:
		return "the server is not the master"
	case v.Lead.HandingOver != 0:
		return "leadership is being handed over"
	}
	return ""
}

// doomed returns why a dirty server must die, or nothing.
func (v *View) doomed() string {
	switch {
	case !v.Lead.Self:
		return "leadership is lost"
	case v.Tail != TailAttached:
		return "the tail has ended"
	case v.Epoch.State == EpochChosen && v.superseded():
		return fmt.Sprintf("epoch %d of node %d follows", v.Epoch.Newest, v.Epoch.Node)
	case v.Epoch.State != EpochChosen:
		return "its epoch has ended"
	case v.Lead.Lapsed > LeaseGrace:
		return "the lease has ended"
	case v.Engine.Errant != "":
		return "the server has diverged"
	case v.Stopping && v.StopLeft <= 0:
		return "this node stops and commits still wait"
	}
	return ""
}

// step plans the next step of the way that this node is on.
func (p *plan) step() {
	v := p.v
	switch {
	case v.Stopping:
		p.stop()
	case v.Member && v.Role != paxos.Voter:
		p.accompany()
	case v.Member && v.Lead.Self:
		p.lead()
	case v.Member:
		p.follow()
	case v.Role == paxos.Witness: // on its way into a cluster
		p.accompany()
	default: // blank: the server may warm up while it waits
		if !p.restore() {
			p.engineUp()
		}
	}
}

// accompany is for members that never lead: a witness has no server, a learner
// follows.
func (p *plan) accompany() {
	v := p.v
	switch {
	case v.Role == paxos.Learner && v.Wants != paxos.Witness: // that one is about to need no server
		p.follow()
	case v.Engine.State == EngineRunning && !v.Engine.Dirty:
		if v.Tail != TailOff {
			p.later(DetachTail{})
			return
		}
		p.later(StopEngine{})
	case v.Restore.Need == NeedPlace && !v.Engine.Dirty && !v.Lead.Self:
		p.later(PlaceLog{})
	}
}

// restore plans the way back of a node that cannot go on by its log alone. It
// reports false when there is no need.
func (p *plan) restore() bool {
	v := p.v
	r := v.Restore
	switch {
	case !r.active():
		return false
	case v.Engine.Dirty && v.Engine.State == EngineRunning:
		return true
	case r.Ready:
		p.adopt()
	case r.Need == NeedFresh && v.Lead.Self:
		p.engineUp()
	case r.Need == NeedFresh:
		if down(v.Engine.State) && !v.Engine.Dirty {
			p.later(SetAside{Reason: r.Reason})
		}
	case !p.engineUp():
	case v.Tail != TailOff:
		p.later(DetachTail{})
	case v.Engine.Replica != ReplicaOff:
		p.later(StopReplica{})
	case r.Need == NeedCopy:
		p.closeGate("the server's data are replaced")
		p.later(FetchCopy{Reason: r.Reason})
	case !v.Lead.Self:
		p.later(PlaceLog{})
	}
	return true
}

// adopt exchanges the data of a server that is down, or takes it down for that.
func (p *plan) adopt() {
	switch v := p.v; v.Engine.State {
	case EngineRunning:
		if v.Tail != TailOff {
			p.later(DetachTail{})
			return
		}
		p.later(StopEngine{})
	default:
		if down(v.Engine.State) && !v.Engine.Dirty {
			p.later(AdoptCopy{})
		}
	}
}

// down reports that there is no process of the server.
func down(s EngineState) bool {
	return s == EngineStopped || s == EngineAbsent || s == EngineCrashed
}

// engineUp plans what brings the server up and reports whether it runs.
func (p *plan) engineUp() bool {
	switch e := p.v.Engine; e.State {
	case EngineAbsent:
		p.later(InitEngine{})
	case EngineStopped:
		p.later(StartEngine{})
	case EngineCrashed:
		if e.Wait <= 0 {
			p.later(StartEngine{})
		}
	case EngineRunning:
		return true
	}
	return false
}

// follow keeps the server a replica of the node's own log.
func (p *plan) follow() {
	v := p.v
	if p.restore() {
		return
	}
	if !p.engineUp() || v.Engine.Dirty {
		return
	}
	switch {
	case v.Tail != TailOff:
		p.later(DetachTail{})
	case v.Engine.Stranded:
		p.kill("its disk was full and has room again, and it does not go on by itself")
	case v.Engine.Errant != "":
		if v.Engine.Replica != ReplicaOff {
			p.later(StopReplica{})
		}
	case v.Engine.Events:
		p.later(DisableEvents{})
	default:
		p.replicate()
	}
}

// replicate starts replication, again after a pause when it has broken.
func (p *plan) replicate() {
	switch e := p.v.Engine; e.Replica {
	case ReplicaOff:
		p.later(StartReplica{})
	case ReplicaBroken:
		if e.ReplicaWait <= 0 {
			p.later(StartReplica{})
		}
	}
}

// stop takes the server down. Whoever could take over was asked before.
func (p *plan) stop() {
	v := p.v
	if v.Engine.State == EngineStarting {
		p.kill("this node stops")
		return
	}
	if v.Engine.State != EngineRunning {
		return
	}
	switch {
	case v.Engine.Dirty && v.StopLeft > 0:
		p.later(MakeReadOnly{})
	case v.Engine.Dirty: // killed by the guard
	case v.Tail != TailOff:
		p.later(DetachTail{})
	case v.StopLeft <= 0:
		p.kill("this node stops and the server does not")
	default:
		p.later(StopEngine{})
	}
}

// reads keeps the read-only port open while the server shows a prefix of the log.
func (p *plan) reads() {
	v := p.v
	reason := ""
	switch {
	case !v.Member:
		reason = "this node is not a member"
	case v.Stopping:
		reason = "this node stops"
	case v.Engine.State != EngineRunning:
		reason = "the server does not run"
	case v.Engine.Errant != "":
		reason = "the server has diverged"
	case v.Restore.active():
		reason = "the server's data are replaced"
	case v.Restore.Unproved && v.Gate == GateClosed:
		reason = "the server's data are new and were not compared with another member's yet"
	}
	switch {
	case reason != "" && v.Reads:
		p.do(CloseReads{Reason: reason})
	case reason == "" && !v.Reads:
		p.do(OpenReads{})
	}
}

// candidacy keeps the consensus informed of whether this node may lead.
func (p *plan) candidacy() {
	v := p.v
	_, severe := v.severe()
	want := Candidacy{Able: v.Member && v.Role == paxos.Voter && !v.Stopping && !severe &&
		v.Engine.State == EngineRunning && v.Engine.Errant == "" && !v.Restore.active() &&
		(v.Lead.Self || v.Engine.Replica == ReplicaRunning && !(v.Restore.Unproved && v.outdone()))}
	if want.Able && !v.Lead.Self {
		want.Delay = min(maxDelay, time.Duration(v.Engine.Behind)*time.Second/applyRate).Truncate(delayStep)
		if _, wary := v.wary(); wary {
			want.Delay = maxDelay // the others first
		}
		if v.Restore.Unproved {
			want.Delay = maxDelay + unprovedDelay // and those who are only wary
		}
	}
	if want != v.Candidacy {
		p.do(SetCandidacy{Candidacy: want})
	}
}

// route sends new sessions where the master is.
func (p *plan) route() {
	v := p.v
	want := Route{}
	if v.Lead.Self {
		if p.opening || (v.Gate == GateOpen && !p.closing) {
			want = Route{Kind: RouteLocal}
		}
	} else if m, ok := v.peer(v.Lead.Leader); ok && m.Alive && m.Gate {
		want = Route{Kind: RouteRemote, Node: m.ID}
	}
	if want != v.Route {
		p.do(RouteTo{Route: want})
	}
}
