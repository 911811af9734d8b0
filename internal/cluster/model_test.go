package cluster

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/phxsql/phxsql/paxos"
)

// model is a shell without I/O: it carries actions out on the view alone. Fast
// ones take effect at once, a slow one when done is called.
type model struct{ v View }

func (m *model) apply(a Action) {
	v := &m.v
	if a.Kind().Slow() {
		v.Busy = a.Kind()
		if v.Busy == KindMakeWritable {
			v.Engine.Dirty = true
		}
		return
	}
	switch a := a.(type) {
	case KillEngine:
		v.Busy, v.Engine.State = "", EngineStopping
		m.engineGone()
	case ProposeEpoch:
		v.Epoch.State, v.Epoch.Own = EpochProposed, a.Number
	case OpenGate:
		v.Gate = GateOpen
	case CloseGate:
		v.Gate, v.Drained = GateClosed, false
	case Drain:
		v.Gate = GateDraining
	case OpenReads:
		v.Reads = true
	case CloseReads:
		v.Reads = false
	case HandOver:
		v.Lead.HandingOver = a.To
	case SetCandidacy:
		v.Candidacy = a.Candidacy
	case RouteTo:
		v.Route = a.Route
	case AcceptSwitchover:
		v.Switch.Accepted, v.Switch.Target = true, a.Target
		v.Failed = Failure{}
	case EndSwitchover:
		v.Switch, v.Failed = nil, Failure{}
	}
}

// engineGone is what the end of the server process means for the rest.
func (m *model) engineGone() {
	if m.v.Tail == TailAttached {
		m.v.Tail = TailFailed
		m.v.Epoch.State = EpochSpent
	}
	e := &m.v.Engine
	e.Replica, e.Writable, e.Dirty, e.Events, e.Applied = ReplicaOff, false, false, false, false
}

// done ends the slow action under way with success.
func (m *model) done() {
	v, e := &m.v, &m.v.Engine
	switch v.Busy {
	case KindInitEngine, KindStopEngine:
		e.State = EngineStopped
	case KindStartEngine:
		e.State = EngineRunning
	case KindFetchCopy:
		v.Restore.Ready = true
	case KindSetAside:
		v.Restore, e.State, e.Crashes = Restore{}, EngineStopped, 0
	case KindAdoptCopy:
		v.Restore, e.State, e.Errant = Restore{}, EngineStopped, ""
	case KindPlaceLog:
		v.Restore.Need = NeedNothing
	case KindStartReplica:
		e.Replica = ReplicaRunning
	case KindStopReplica:
		e.Replica = ReplicaOff
	case KindAttachTail:
		v.Tail = TailAttached
	case KindDetachTail:
		if v.Tail == TailAttached && v.Epoch.State == EpochChosen {
			v.Epoch.State = EpochSpent
		}
		v.Tail = TailOff
	case KindMakeWritable:
		e.Writable = true
	case KindMakeReadOnly:
		e.Writable, e.Dirty = false, false
	case KindEnableEvents:
		e.Events = true
	case KindDisableEvents:
		e.Events = false
	}
	if v.Failed.Action == v.Busy {
		v.Failed = Failure{}
	}
	v.Busy = ""
}

// fail ends the slow action under way without success.
func (m *model) fail(reason string) {
	v := &m.v
	if v.Failed.Action != v.Busy {
		v.Failed = Failure{Action: v.Busy}
	}
	v.Failed.Times++
	v.Failed.Wait, v.Failed.Reason = 100*time.Millisecond, reason
	if v.Busy == KindMakeReadOnly {
		v.Engine.Writable = false // unknown; still dirty
	}
	v.Busy = ""
}

// set changes one thing in the view, as a story says it.
func (m *model) set(key string, vals []string) error {
	v, val := &m.v, ""
	if len(vals) > 0 {
		val = vals[0]
	}
	n, _ := strconv.ParseUint(val, 10, 64)
	yes := val == "" || val == "yes"
	d, _ := time.ParseDuration(val)
	switch key {
	case "self":
		v.Self = paxos.NodeID(n)
	case "member":
		v.Member, v.Role = yes, paxos.Voter
	case "removed":
		v.Member, v.Role, v.Removed = false, 0, true
	case "role":
		v.Member, v.Role = true, map[string]paxos.Role{"voter": paxos.Voter, "witness": paxos.Witness, "learner": paxos.Learner}[val]
	case "leader":
		v.Lead = Lead{Leader: paxos.NodeID(n)}
		if v.Lead.Leader == v.Self && n != 0 {
			v.Lead.Self, v.Lead.Ready, v.Lead.Lease = true, true, true
		}
		v.Epoch.State, v.Epoch.Own = EpochNone, 0 // another ballot
	case "wants":
		v.Wants = map[string]paxos.Role{"voter": paxos.Voter, "witness": paxos.Witness, "learner": paxos.Learner}[val]
	case "lease":
		v.Lead.Lease = yes
	case "lapsed":
		v.Lead.Lapsed = d
	case "handed-over":
		v.Lead.HandingOver = 0
	case "chosen": // the own epoch came back from the log
		v.Epoch.State, v.Epoch.Newest, v.Epoch.Node = EpochChosen, v.Epoch.Own, v.Self
	case "newest":
		v.Epoch.Newest = n
	case "by":
		v.Epoch.Node = paxos.NodeID(n)
	default:
		return m.setMore(key, val, n, yes, d)
	}
	return nil
}

func (m *model) setMore(key, val string, n uint64, yes bool, d time.Duration) error {
	v := &m.v
	switch key {
	case "crashed":
		m.engineGone()
		v.Busy, v.Engine.State, v.Engine.Wait, v.Engine.Reason = "", EngineCrashed, d, "signal: killed"
		v.Engine.Crashes++
	case "stopped":
		v.Engine.State, v.Engine.Wait = EngineStopped, 0
	case "wait":
		v.Engine.Wait = d
	case "retry": // the pause after a failed step is over
		v.Failed.Wait = 0
	case "replica":
		v.Engine.Replica = map[string]ReplicaState{"off": ReplicaOff, "running": ReplicaRunning, "broken": ReplicaBroken}[val]
	case "replica-wait":
		v.Engine.ReplicaWait = d
	case "applied":
		v.Engine.Applied = yes
	case "behind":
		v.Engine.Behind = n
	case "lagging":
		v.Engine.Lagging = d
	case "stranded":
		v.Engine.Stranded = yes
	case "errant":
		v.Engine.Errant = val
	case "need":
		v.Restore.Need, v.Restore.Reason = map[string]Need{"place": NeedPlace, "copy": NeedCopy, "fresh": NeedFresh}[val], "it lacks what no log has"
	case "unproved":
		v.Restore.Unproved = yes
	case "tail":
		if val == "failed" {
			v.Tail, v.Epoch.State = TailFailed, EpochSpent
		}
	case "drained":
		v.Drained = yes
	case "switchover":
		v.Switch = &Switchover{Target: paxos.NodeID(n), Left: 10 * time.Second, DrainLeft: time.Second}
	case "left":
		v.Switch.Left = d
	case "drain-left":
		v.Switch.DrainLeft = d
	case "stopping":
		v.Stopping, v.StopLeft = true, d
	case "well":
		v.Health = nil
	case "on-probation":
		v.Health = []Problem{{Name: "on_probation", Reason: "it was unfit a moment ago", Wary: true}}
	case "disk-low":
		v.Health = []Problem{{Name: "disk_low", Reason: "the disk is almost full", Wary: true, Yield: true}}
	case "sick":
		v.Health = []Problem{{Name: "disk_stall", Reason: "the log's disk does not answer", Severe: true}}
	default:
		return fmt.Errorf("unknown key %q", key)
	}
	return nil
}

// peer reads a line such as "2 alive able behind=10 gate applied".
func (m *model) peer(line string) {
	f := strings.Fields(line)
	id, _ := strconv.ParseUint(f[0], 10, 64)
	p := Peer{ID: paxos.NodeID(id), Role: paxos.Voter}
	for _, w := range f[1:] {
		switch {
		case w == "alive":
			p.Alive = true
		case w == "able":
			p.Able = true
		case w == "wary":
			p.Wary = true
		case w == "gate":
			p.Gate = true
		case w == "applied":
			p.Applied = true
		case w == "current":
			p.Current = true
		case w == "near":
			p.Near = true
		case w == "declined":
			p.Declined = true
		case w == "witness":
			p.Role = paxos.Witness
		case strings.HasPrefix(w, "behind="):
			p.Behind, _ = strconv.ParseUint(w[len("behind="):], 10, 64)
		}
	}
	for i := range m.v.Peers {
		if m.v.Peers[i].ID == p.ID {
			m.v.Peers[i] = p
			return
		}
	}
	m.v.Peers = append(m.v.Peers, p)
}
