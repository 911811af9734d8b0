package node

import (
	"context"
	"fmt"
	"time"

	"github.com/phxsql/phxsql/paxos"
)

// Status is a picture of one group on one node, for people and metrics.
type Status struct {
	Group   paxos.Group
	Leader  paxos.NodeID
	Leads   bool          // this node leads and knows everything chosen before its term
	Lease   time.Duration // what is left of it
	Length  time.Duration // of the leases that this node grants
	Members paxos.Members
	First   paxos.Instance // oldest in the log
	Chosen  paxos.Instance
	Applied paxos.Instance
	// Heard is the newest instance that a leader said to be chosen: Heard minus
	// Chosen is how far this member is behind.
	Heard paxos.Instance
	// Lacking is the oldest instance that others still have, when this member needs older
	// ones: it waits for a snapshot. Else 0.
	Lacking  paxos.Instance
	Promised paxos.Ballot
	LogBytes int64            // of the log of all groups
	Progress []paxos.Progress // of the other members, on the leader
}

// Status returns a picture of a group.
func (n *Node) Status(ctx context.Context, id paxos.Group) (Status, error) {
	g, err := n.group(id)
	if err != nil {
		return Status{}, fmt.Errorf("read status: %w", err)
	}
	s, err := g.log.Status(ctx)
	if err != nil {
		return Status{}, err
	}
	return Status{
		Group: id, Leader: s.Leader, Leads: s.Leader == n.opt.ID && s.Ready, Lease: n.LeaseRemaining(id), Length: s.Length,
		Members: s.Members, First: s.First, Chosen: s.Chosen, Applied: paxos.Instance(g.applied.Load()), Heard: s.Heard, Lacking: s.Lacking,
		Promised: s.Promised, LogBytes: n.log.Size(), Progress: s.Progress,
	}, nil
}

// Read returns a chosen value from the log; ok is false when the instance carries
// none (it fills a gap, is a membership, or a piece of a large value before the last).
func (n *Node) Read(id paxos.Group, i paxos.Instance) (value []byte, ok bool, err error) {
	g, err := n.group(id)
	if err != nil {
		return nil, false, fmt.Errorf("read instance %d: %w", i, err)
	}
	if i < g.log.First() {
		return nil, false, fmt.Errorf("read instance %d of group %d, the log begins at %d: %w", i, id, g.log.First(), ErrTrimmed)
	}
	e, err := g.log.Read(i)
	if err != nil {
		return nil, false, fmt.Errorf("read from group %d: %w", id, err)
	}
	if e.Kind != paxos.Normal {
		return nil, false, nil
	}
	if value, ok, err = g.whole(e, 0); err != nil {
		return nil, false, fmt.Errorf("read from group %d: %w", id, err)
	}
	return value, ok, nil
}
