package node

import (
	"context"
	"fmt"

	"github.com/phxsql/phxsql/paxos"
)

// ReadBarrier waits until the local state machine has everything that was answered to
// any proposer or reader of the group, anywhere, before the call. A read of the local
// state machine after it is linearizable, on any member. A leader under its lease
// answers without a message, others ask it, which takes one round trip and what the
// state machine is behind. While nobody leads under a lease it waits, until ctx ends.
func (n *Node) ReadBarrier(ctx context.Context, id paxos.Group) error {
	g, err := n.group(id)
	if err != nil {
		return fmt.Errorf("read barrier: %w", err)
	}
	i, err := g.log.ReadIndex(ctx)
	if err == nil {
		err = g.waitApplied(ctx, i)
	}
	if err != nil {
		return fmt.Errorf("read barrier of group %d: %w", id, err)
	}
	return nil
}
