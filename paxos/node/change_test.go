package node

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/phxsql/phxsql/paxos"
)

// onLeader asks whoever leads for a change until there is an answer that is not about
// leadership, which may move on a busy machine.
func (c *trio) onLeader(change func(*Node) error) (err error) {
	c.t.Helper()
	until(c.t, "answer of a leader", func() bool {
		err = change(c.leader(0))
		return !errors.Is(err, ErrNotLeader) && !errors.Is(err, ErrUnknown)
	})
	return err
}

// must is onLeader for a change that will be made: a new leader has not heard of all yet, and
// on a busy machine members that are up may say so too late.
func (c *trio) must(what string, change func(*Node) error) {
	c.t.Helper()
	until(c.t, what, func() bool {
		err := c.onLeader(change)
		if err != nil && !errors.Is(err, ErrNoMajority) {
			c.t.Fatalf("%s: %v", what, err)
		}
		return err == nil
	})
}

// add starts a node and makes it a learner that has caught up.
func (c *trio) add(id paxos.NodeID) paxos.Member {
	c.t.Helper()
	l := listen(c.t, "127.0.0.1:0")
	n := c.start(id, l)
	m := paxos.Member{ID: id, Role: paxos.Learner, Addr: l.Addr().String(), Log: n.LogIdentity()}
	c.must("add a learner", func(n *Node) error { return n.AddMember(within(c.t), 0, m) })
	until(c.t, "learner that has caught up", func() bool {
		behind, err := c.leader(0).Behind(within(c.t), 0, id)
		return err == nil && behind == 0
	})
	return m
}

// roles are the members as the leader knows them.
func (c *trio) roles() map[paxos.NodeID]paxos.Role {
	roles := map[paxos.NodeID]paxos.Role{}
	for _, m := range c.leader(0).Members(0).List {
		roles[m.ID] = m.Role
	}
	return roles
}

// follower is a member that does not lead, at this moment.
func (c *trio) follower() paxos.NodeID { return c.leader(0).opt.ID%3 + 1 }

// TestChangesThatLoseTheMajorityAreRefused: one of three is down. Neither of the others may
// go, in any way. Forced, the change is made; what it does to the group is over when the
// one that was down comes up.
func TestChangesThatLoseTheMajorityAreRefused(t *testing.T) {
	c := newTrio(t, nil)
	c.same(0, c.propose(0, 0, 5), seq(0, 5))
	down := c.follower()
	c.stop(down)
	up := 6 - down - c.leader(0).opt.ID
	m, _ := c.leader(0).Members(0).Find(up)
	m.Role = paxos.Learner
	for what, change := range map[string]func(*Node) error{
		"removes":  func(n *Node) error { return n.RemoveMember(within(t), 0, up) },
		"demotes":  func(n *Node) error { return n.AddMember(within(t), 0, m) },
		"replaces": func(n *Node) error { return n.ReplaceMember(within(t), 0, up, down) },
	} {
		if err := c.onLeader(change); !errors.Is(err, ErrChange) || !errors.Is(err, ErrNoMajority) {
			t.Errorf("a change that %s one of the two that are up: %v", what, err)
		}
	}
	if roles := c.roles(); len(roles) != 3 || roles[up] != paxos.Voter {
		t.Fatalf("all was refused, and members are %v", roles)
	}
	until(t, "forced removal", func() bool {
		if n := c.leading(0); n != nil { // it hands over first if it is the one
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			if err := n.RemoveMemberEvenIfNoMajorityIsLeft(ctx, 0, up); err != nil && !errors.Is(err, ErrNotLeader) && !errors.Is(err, ErrUnknown) {
				t.Fatalf("forced: %v", err)
			}
		}
		for _, n := range c.nodes {
			if _, ok := n.Members(0).Find(up); !ok {
				return true
			}
		}
		return false
	})
	c.restart(down)
	until(t, "leader of those that are left", func() bool { n := c.leading(0); return n != nil && n.opt.ID != up })
	c.stop(up)
	c.same(0, c.propose(0, 5, 5), seq(0, 10))
	if roles := c.roles(); len(roles) != 2 || roles[up] != 0 {
		t.Fatalf("members are %v", roles)
	}
}

// TestTheMemberThatIsDownMayBeRemoved: that needs no force.
func TestTheMemberThatIsDownMayBeRemoved(t *testing.T) {
	c := newTrio(t, nil)
	down := c.follower()
	c.stop(down)
	c.must("remove the one that is down", func(n *Node) error { return n.RemoveMember(within(t), 0, down) })
	c.same(0, c.propose(0, 0, 5), seq(0, 5))
	if roles := c.roles(); len(roles) != 2 || roles[down] != 0 {
		t.Fatalf("members are %v", roles)
	}
}

// TestAVoterMustHaveCaughtUp: beside the only member, a blank second voter would stop the
// group; one that has learned the log does not.
func TestAVoterMustHaveCaughtUp(t *testing.T) {
	c := newTrio(t, nil)
	c.propose(0, 0, 3)
	for len(c.nodes) > 1 {
		who := c.follower()
		for c.nodes[who] == nil {
			who = who%3 + 1
		}
		if who == c.leader(0).opt.ID {
			continue // leadership has moved meanwhile
		}
		c.must("remove a follower", func(n *Node) error { return n.RemoveMember(within(t), 0, who) })
		c.stop(who)
	}
	l := listen(t, "127.0.0.1:0")
	c.start(4, l)
	blank := paxos.Member{ID: 4, Role: paxos.Voter, Addr: l.Addr().String()}
	if err := c.onLeader(func(n *Node) error { return n.AddMember(within(t), 0, blank) }); !errors.Is(err, ErrNoMajority) {
		t.Fatalf("a blank voter beside the only one: %v", err)
	}
	if _, err := c.leader(0).Behind(within(t), 0, 4); !errors.Is(err, ErrChange) {
		t.Fatalf("behind of no member: %v", err)
	}
	m := c.add(5)
	m.Role = paxos.Voter
	c.must("make a learner that has caught up a voter", func(n *Node) error { return n.AddMember(within(t), 0, m) })
	c.stop(4)
	c.same(0, c.propose(0, 3, 3), seq(0, 6))
}

// TestTheLeaderIsReplaced: it hands over, and the new leader gives its place to a learner.
func TestTheLeaderIsReplaced(t *testing.T) {
	c := newTrio(t, nil)
	c.same(0, c.propose(0, 0, 5), seq(0, 5))
	c.add(4)
	old := c.leader(0).opt.ID
	if err := c.onLeader(func(n *Node) error { return n.ReplaceMember(within(t), 0, old, 9) }); !errors.Is(err, ErrChange) {
		t.Fatalf("an heir that is no member: %v", err)
	}
	c.must("replace the leader", func(n *Node) error { return n.ReplaceMember(within(t), 0, old, 4) })
	if roles := c.roles(); len(roles) != 3 || roles[4] != paxos.Voter || roles[old] != 0 {
		t.Fatalf("members are %v", roles)
	}
	c.stop(old)
	c.same(0, c.propose(0, 5, 5), seq(0, 10))
}

// TestTheLeaderIsRemoved: it hands over, says so, and the new leader removes it.
func TestTheLeaderIsRemoved(t *testing.T) {
	c := newTrio(t, nil)
	c.same(0, c.propose(0, 0, 5), seq(0, 5))
	old := c.leader(0).opt.ID
	c.must("remove the leader", func(n *Node) error { return n.RemoveMember(within(t), 0, old) })
	if roles := c.roles(); len(roles) != 2 || roles[old] != 0 {
		t.Fatalf("members are %v", roles)
	}
}

// TestTheLengthOfLeasesIsANodesOwn: it is changed while the group is still being founded, and
// stays.
func TestTheLengthOfLeasesIsANodesOwn(t *testing.T) {
	c := newTrio(t, nil)
	if err := c.nodes[1].SetLease(0, 10*time.Millisecond); !errors.Is(err, ErrLease) {
		t.Fatalf("a lease shorter than a heartbeat: %v", err)
	}
	for _, n := range c.nodes {
		if err := n.SetLease(0, time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "longer lease", func() bool { return c.leader(0).LeaseRemaining(0) > time.Minute })
	for id, n := range c.nodes {
		if st, err := n.Status(within(t), 0); err != nil || st.Length != time.Hour {
			t.Fatalf("node %d grants %v, %v", id, st.Length, err)
		}
	}
}
