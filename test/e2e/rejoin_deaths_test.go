package e2e

import (
	"context"
	"errors"
	"math/rand/v2"
	"syscall"
	"time"

	"github.com/phxsql/phxsql/internal/drill"
)

// death is a way in which a node can go away, and how it comes back: by what a machine's
// init system does, and no more.
type death struct {
	name string
	// isolates says that the node is cut off before anything is sent.
	isolates bool
	// returns says that it comes back by itself at once.
	returns bool
	die     func(ctx context.Context, c *drill.Cluster, n *drill.Node) error
	revive  func(ctx context.Context, n *drill.Node) error
}

func restart(_ context.Context, n *drill.Node) error { return n.Start() }

func nothingToDo(context.Context, *drill.Node) error { return nil }

// last lets time pass: a pause and a cut last for a time, longer than a lease.
func last(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(2 * time.Second):
	}
}

var (
	killAgent = death{
		name: "SIGKILL to the agent", revive: restart,
		die: func(_ context.Context, _ *drill.Cluster, n *drill.Node) error { return n.KillAgent() },
	}
	killMysqld = death{
		name: "SIGKILL to mysqld", returns: true, revive: nothingToDo,
		die: func(ctx context.Context, _ *drill.Cluster, n *drill.Node) error {
			old, err := n.ServerPID()
			if err != nil {
				return nil // its agent has just killed it
			}
			if err := n.KillServer(); err != nil && !errors.Is(err, syscall.ESRCH) {
				return err
			}
			return drill.Eventually(ctx, func() error {
				pid, err := n.ServerPID()
				if err == nil && pid == old {
					err = errors.New("the server that was killed is still there")
				}
				return err
			})
		},
	}
	killBoth = death{
		name: "SIGKILL to both", revive: restart,
		die: func(_ context.Context, _ *drill.Cluster, n *drill.Node) error { return n.KillAll() },
	}
	pauseAgent = death{
		name: "SIGSTOP to the agent, SIGCONT",
		die: func(ctx context.Context, _ *drill.Cluster, n *drill.Node) error {
			err := n.Pause()
			last(ctx)
			return err
		},
		revive: func(_ context.Context, n *drill.Node) error { return n.Resume() },
	}
	stopNode = death{
		name: "SIGTERM", revive: restart,
		die: func(ctx context.Context, _ *drill.Cluster, n *drill.Node) error { return n.Stop(ctx) },
	}
	cutOff = death{
		name: "cut off, healed", isolates: true, revive: nothingToDo,
		die: func(ctx context.Context, _ *drill.Cluster, _ *drill.Node) error {
			last(ctx)
			return nil
		},
	}
	powerLoss = death{
		name: "power cut", revive: restart,
		die: func(_ context.Context, c *drill.Cluster, n *drill.Node) error {
			return c.LosePower([]*drill.Node{n}, rand.New(rand.NewPCG(uint64(n.ID), 11)))
		},
	}
	deaths = []death{killAgent, killMysqld, killBoth, pauseAgent, stopNode, cutOff, powerLoss}
)
