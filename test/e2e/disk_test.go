package e2e

import (
	"context"
	"testing"

	"github.com/phxsql/phxsql/internal/drill"
	"github.com/phxsql/phxsql/internal/powerloss"
)

// TestDisks has one cluster bear what disks do. They forget what was not synced when
// the power fails; what was acknowledged is there all the same.
func TestDisks(t *testing.T) {
	if err := powerloss.Possible(); err != nil {
		t.Skip(err)
	}
	c := start(t, drill.Options{Disks: true})
	for _, f := range []drill.Fault{powerOfMaster, powerOfAll} {
		t.Run(f.Name, func(t *testing.T) { endure(t, c, f, 1) })
		if t.Failed() {
			return
		}
	}
}

var (
	powerOfMaster = drill.Fault{
		Name:  "the master loses power",
		Break: func(_ context.Context, c *drill.Cluster, m *drill.Node) error { return c.LosePower([]*drill.Node{m}, nil) },
		Mend:  func(_ context.Context, _ *drill.Cluster, m *drill.Node) error { return m.Start() },
	}
	powerOfAll = drill.Fault{
		Name:  "all nodes lose power at once",
		Break: func(_ context.Context, c *drill.Cluster, _ *drill.Node) error { return c.LosePower(c.Nodes, nil) },
		Mend: func(_ context.Context, c *drill.Cluster, _ *drill.Node) error {
			for _, n := range c.Nodes {
				if err := n.Start(); err != nil {
					return err
				}
			}
			return nil
		},
		Outage: true,
	}
)
