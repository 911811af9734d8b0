package node

import (
	"context"
	"fmt"
	"time"

	"github.com/phxsql/phxsql/paxos"
)

// Leader says who leads a group, as far as this node knows: 0 when nobody is
// known. Use it as a hint; only LeaseValid and Barrier are proofs.
func (n *Node) Leader(id paxos.Group) paxos.NodeID {
	if g := n.groups[id]; g != nil {
		return g.log.Leader().Leader
	}
	return 0
}

// LeaseValid reports whether this node leads the group, knows everything that was
// chosen before, and nobody else can lead right now. It costs a clock reading.
func (n *Node) LeaseValid(id paxos.Group) bool {
	g := n.groups[id]
	return g != nil && g.log.LeaseValid() && g.log.Leader().Ready
}

// LeaseRemaining is how long the lease runs on if nobody is heard of any more.
func (n *Node) LeaseRemaining(id paxos.Group) time.Duration {
	if g := n.groups[id]; g != nil && n.LeaseValid(id) {
		return g.log.LeaseRemaining()
	}
	return 0
}

// Changed returns a channel that is closed when leader or members of a group
// change next. Ask for it before looking at what may change.
func (n *Node) Changed(id paxos.Group) <-chan struct{} {
	if g := n.groups[id]; g != nil {
		return g.log.Changed()
	}
	return nil
}

// WaitLeader waits until a member is known to lead, and returns it. If it is this
// node it has a lease and knows all that was chosen.
func (n *Node) WaitLeader(ctx context.Context, id paxos.Group) (paxos.NodeID, error) {
	g, err := n.group(id)
	if err != nil {
		return 0, fmt.Errorf("wait for leader: %w", err)
	}
	for {
		changed := g.log.Changed()
		v := g.log.Leader()
		if v.Leader != 0 && (v.Leader != n.opt.ID || n.LeaseValid(id)) {
			return v.Leader, nil
		}
		// The lease alone may begin without a change of the view.
		poll := time.NewTimer(10 * time.Millisecond)
		select {
		case <-changed:
		case <-poll.C:
		case <-ctx.Done():
			return 0, fmt.Errorf("wait for leader of group %d: %w", id, ctx.Err())
		case <-n.ctx.Done():
			return 0, fmt.Errorf("wait for leader of group %d: %w", id, ErrClosed)
		}
		poll.Stop()
	}
}

// Barrier waits until the state machine has everything that was answered to any
// proposer of the group, anywhere, before the call. A read of the local state machine
// after it is linearizable. It works on the leader only: elsewhere, and when the
// lease runs out meanwhile, it fails with ErrNoLease.
func (n *Node) Barrier(ctx context.Context, id paxos.Group) error {
	g, err := n.group(id)
	if err != nil {
		return fmt.Errorf("barrier: %w", err)
	}
	// Under a lease that is valid now, everything answered before was answered by
	// this leader or is part of what it learned to become Ready.
	term := g.log.Leader().Term
	if !n.LeaseValid(id) {
		return fmt.Errorf("barrier of group %d: %w", id, ErrNoLease)
	}
	if err := g.waitApplied(ctx, g.log.Chosen()); err != nil {
		return fmt.Errorf("barrier of group %d: %w", id, err)
	}
	if !n.LeaseValid(id) || g.log.Leader().Term != term {
		return fmt.Errorf("barrier of group %d: %w", id, ErrNoLease)
	}
	return nil
}

// WaitApplied waits until the local state machine has applied instance i.
func (n *Node) WaitApplied(ctx context.Context, id paxos.Group, i paxos.Instance) error {
	g, err := n.group(id)
	if err == nil {
		err = g.waitApplied(ctx, i)
	}
	if err != nil {
		return fmt.Errorf("wait for instance %d: %w", i, err)
	}
	return nil
}

func (g *group) waitApplied(ctx context.Context, i paxos.Instance) error {
	for paxos.Instance(g.applied.Load()) < i {
		moved := g.moved.wait()
		if paxos.Instance(g.applied.Load()) >= i {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return ctx.Err()
		case <-g.node.ctx.Done():
			return ErrClosed
		}
	}
	return nil
}

// Transfer hands leadership of a group to a member, without waiting for a lease to
// run out; 0 takes the fittest. Proposals on their way get ErrUnknown. It does not
// wait for the new leader: see WaitLeader.
func (n *Node) Transfer(id paxos.Group, to paxos.NodeID) error {
	g, err := n.group(id)
	if err == nil {
		err = g.log.Transfer(to)
	}
	if err != nil {
		return fmt.Errorf("transfer leadership: %w", err)
	}
	return nil
}

// SetLease changes how long this node grants leases in a group, until it is changed again
// or the node is closed; Options.Lease is what the next Open begins with. It refuses what
// is shorter than three heartbeats or longer than paxos.MaxLease with ErrLease.
//
// Nodes may differ, and none waits for another: each says with each grant how long it is.
// The leader's lease lasts until each node of some majority, itself included, has let it
// end. So change it on all nodes, in any order; a longer lease survives longer pauses, a
// shorter one lets another node lead sooner. What was granted is not cut short: the first
// election after a change to a shorter length may still take the longer one.
func (n *Node) SetLease(id paxos.Group, length time.Duration) error {
	g, err := n.group(id)
	if err == nil {
		err = g.log.SetLease(length)
	}
	if err != nil {
		return fmt.Errorf("set lease: %w", err)
	}
	return nil
}

// SetCandidacy says whether this node may lead a group, and how long it lets others
// go first.
func (n *Node) SetCandidacy(id paxos.Group, able bool, delay time.Duration) error {
	g, err := n.group(id)
	if err != nil {
		return fmt.Errorf("set candidacy: %w", err)
	}
	g.candidacy.Store(&candidacy{able, delay})
	g.stand()
	return nil
}
