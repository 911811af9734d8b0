package e2e

import (
	"context"
	"testing"
	"time"

	"github.com/phxsql/phxsql/internal/drill"
	"github.com/phxsql/phxsql/internal/powerloss"
)

// disks starts a cluster whose nodes have disks of their own.
func disks(t *testing.T, opt drill.Options) *drill.Cluster {
	t.Helper()
	if err := powerloss.Possible(); err != nil {
		t.Skip(err)
	}
	opt.Disks = true
	began := time.Now()
	c := start(t, opt)
	t.Logf("started after %v", time.Since(began).Round(10*time.Millisecond))
	return c
}

// TestPowerLoss cuts the power of the master, and of all nodes at once, under load.
// What was not synced is gone; what was acknowledged is not.
func TestPowerLoss(t *testing.T) {
	c := disks(t, drill.Options{})
	for _, f := range []drill.Fault{
		{
			Name: "the master loses power",
			Break: func(_ context.Context, c *drill.Cluster, m *drill.Node) error {
				return c.LosePower([]*drill.Node{m}, nil)
			},
			Mend: func(_ context.Context, _ *drill.Cluster, m *drill.Node) error { return m.Start() },
		},
		{
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
		},
	} {
		t.Run(f.Name, func(t *testing.T) { endure(t, c, f, 1) })
		if t.Failed() {
			return
		}
	}
}
