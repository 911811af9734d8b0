package cluster

import (
	"fmt"

	"github.com/phxsql/phxsql/paxos"
)

// Check returns an error when the actions break an invariant of the package for
// the view they were decided from. The shell panics on one: the program is wrong.
func Check(v View, actions []Action) error {
	v.settle()
	c := checker{v: &v, closed: v.Gate == GateClosed}
	for _, a := range actions {
		if err := c.action(a); err != nil {
			return fmt.Errorf("check %s: %w", a, err)
		}
	}
	return nil
}

type checker struct {
	v      *View
	closed bool // the gate is closed at this point of the list
	slow   bool
	killed bool
}

type rule struct {
	holds bool
	say   string
}

func verify(rules ...rule) error {
	for _, r := range rules {
		if !r.holds {
			return fmt.Errorf("not allowed: %s", r.say)
		}
	}
	return nil
}

func (c *checker) action(a Action) error {
	if a.Kind().Slow() {
		if c.slow || c.v.Busy != "" || c.killed {
			return fmt.Errorf("not allowed: a second slow action at a time")
		}
		c.slow = true
	}
	v, e := c.v, c.v.Engine
	running := rule{e.State == EngineRunning, "the server does not run"}
	clean := rule{!e.Dirty, "the server is dirty"}
	switch a := a.(type) {
	case CloseGate:
		c.closed = true
	case OpenGate:
		return c.open()
	case KillEngine:
		c.killed = true
		return verify(rule{c.closed, "the gate is not closed"})
	case HandOver:
		return verify(rule{c.closed, "the gate is not closed"}, rule{v.Lead.Self, "this node does not lead"},
			rule{a.To != v.Self && a.To != 0, "no other member"}, rule{v.Lead.HandingOver == 0, "already under way"},
			rule{!e.Dirty || e.State != EngineRunning || c.killed, "the server is dirty and lives"})
	case AttachTail:
		return verify(running, clean, c.mayMaster(), rule{v.Tail == TailOff && !e.Writable, "wrong order"})
	case MakeWritable:
		return verify(running, c.mayMaster(), rule{v.Tail == TailAttached, "no tail"})
	case EnableEvents:
		return verify(running, c.mayMaster(), rule{v.Tail == TailAttached && e.Writable, "wrong order"})
	case StartReplica:
		return verify(running, clean, rule{v.Tail == TailOff && !e.Writable, "the server is a master"}, rule{e.Errant == "", "diverged"})
	case StopReplica:
		return verify(running, clean)
	case StopEngine:
		return verify(running, clean)
	case StartEngine:
		return verify(rule{e.State == EngineStopped || (e.State == EngineCrashed && e.Wait <= 0), "wrong state"})
	case FetchCopy:
		return verify(running, clean, rule{c.closed, "the gate is not closed"}, rule{v.Tail == TailOff && e.Replica == ReplicaOff, "the server is in use"},
			rule{v.Restore.Need == NeedCopy, "no copy is needed"})
	case AdoptCopy:
		return verify(clean, rule{v.Restore.Ready, "there is no copy"}, rule{down(e.State), "the server is not down"})
	case SetAside:
		return verify(clean, rule{v.Restore.Need == NeedFresh && !v.Restore.Ready, "the data are not at fault"}, rule{down(e.State), "the server is not down"},
			rule{!v.Lead.Self, "this node leads"})
	case PlaceLog:
		return verify(clean, rule{!v.Lead.Self, "this node leads"}, rule{v.Restore.Need == NeedPlace, "the log goes on"})
	case DetachTail:
		return verify(clean)
	case ProposeEpoch:
		return verify(rule{v.Lead.Self && v.Lead.Ready, "not the leader"}, rule{a.Number > v.Epoch.Newest, "not a new number"},
			rule{v.Epoch.State != EpochProposed, "already proposed"})
	}
	return nil
}

// mayMaster is what every step of the promotion needs.
func (c *checker) mayMaster() rule {
	v := c.v
	return rule{v.Member && v.Role == paxos.Voter && v.current() && v.Engine.Applied && v.Engine.Replica == ReplicaOff && v.Engine.Errant == "" && !v.Stopping,
		"not the leader of the newest epoch with everything executed"}
}

func (c *checker) open() error {
	v := c.v
	err := verify(c.mayMaster(), rule{v.Lead.Lease, "no lease"}, rule{v.Engine.State == EngineRunning, "the server does not run"},
		rule{v.Tail == TailAttached && v.Engine.Writable, "wrong order"}, rule{!c.killed, "the server was killed"},
		rule{v.Lead.HandingOver == 0, "leadership is being handed over"},
		rule{v.Switch == nil || !v.Switch.Accepted, "a switchover is under way"})
	c.closed = false
	return err
}
