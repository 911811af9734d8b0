package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/phxsql/phxsql/internal/drill"
)

// TestTheLeaseIsChangedUnderLoad makes leases longer and shorter while clients write, and
// kills the master under each length: nothing acknowledged is lost, and nobody takes over
// before a long lease is over.
func TestTheLeaseIsChangedUnderLoad(t *testing.T) {
	c := start(t, drill.Options{})
	w := load(t, c)
	ctx := limit(t, 3*time.Minute)
	refuses(t, c, "three heartbeats", "config", "set", "consensus.lease", "150ms")
	refuses(t, c, "while the cluster runs", "config", "set", "consensus.heartbeat", "50ms")

	if _, err := c.Run(ctx, "config", "set", "consensus.lease", "6s"); err != nil {
		t.Fatal(err)
	}
	leaseBetween(t, c, 4*time.Second, 6*time.Second)
	if took := failOver(ctx, t, c, w); took < 2*time.Second { // it had 4 s left a moment before
		t.Errorf("another master took over after %v, the lease was 6s long", took)
	}
	leaseBetween(t, c, 4*time.Second, 6*time.Second)

	if _, err := c.Run(ctx, "config", "unset", "consensus.lease"); err != nil {
		t.Fatal(err)
	}
	leaseBetween(t, c, time.Millisecond, 900*time.Millisecond)
	failOver(ctx, t, c, w)
	changeRoles(ctx, t, c, w)
	out, err := c.Run(ctx, "config", "history")
	if err != nil || strings.Count(out, "consensus.lease") != 2 {
		t.Errorf("the history of the settings: %v\n%s", err, out)
	}
	judge(t, c, w)
}

// changeRoles takes the master its vote and gives it back, under load.
func changeRoles(ctx context.Context, t *testing.T, c *drill.Cluster, w *drill.Workload) {
	t.Helper()
	m, err := c.Master(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, role := range []string{"learner", "voter"} {
		began := time.Now()
		if err := drill.Eventually(ctx, func() error { // a voter is refused until it has caught up
			_, err := c.Run(ctx, "member", "role", fmt.Sprint(m.ID), role)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		if err := drill.Eventually(ctx, func() error {
			st, err := c.Status(ctx)
			for _, s := range st.Members {
				if int(s.ID) == m.ID && (s.Role != role || s.Master) {
					return fmt.Errorf("member %d is a %s, want a %s that follows: %v", m.ID, s.Role, role, err)
				}
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		if err := w.WaitAck(ctx, time.Now()); err != nil {
			t.Fatal(err)
		}
		t.Logf("node %d as %s: longest pause %v", m.ID, role, w.Pause(began).Round(time.Millisecond))
		if err := c.WaitServing(ctx); err != nil {
			t.Fatal(err)
		}
	}
}

// leaseBetween waits until the master has a lease of a length, and all members work by
// the newest settings.
func leaseBetween(t *testing.T, c *drill.Cluster, low, high time.Duration) {
	t.Helper()
	err := drill.Eventually(limit(t, time.Minute), func() error {
		m, err := c.Master(limit(t, time.Minute))
		if err != nil {
			return err
		}
		self, err := m.Self(context.Background())
		if err != nil {
			return err
		}
		if left := time.Duration(self.Lease.Remaining); left < low || left > high {
			return fmt.Errorf("the lease of node %d has %v left, want %v to %v", m.ID, left, low, high)
		}
		for _, n := range c.Nodes {
			o, err := n.Self(context.Background())
			if err != nil || o.SettingsAt == nil || *o.SettingsAt < *self.SettingsAt {
				return fmt.Errorf("node %d does not work by the newest settings: %v", n.ID, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// failOver kills the master and starts it again when another one serves. It returns how
// long it took until another one was the master.
func failOver(ctx context.Context, t *testing.T, c *drill.Cluster, w *drill.Workload) time.Duration {
	t.Helper()
	m, err := c.Master(ctx)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := m.KillAll(); err != nil {
		t.Fatal(err)
	}
	if err := drill.Eventually(ctx, func() error { return c.MasterBesides(ctx, m) }); err != nil {
		t.Fatal(err)
	}
	took := time.Since(began)
	if err := w.WaitAck(ctx, time.Now()); err != nil {
		t.Fatal(err)
	}
	t.Logf("node %d killed: another master after %v, %v without an acknowledgement", m.ID, took.Round(time.Millisecond), w.Pause(began).Round(time.Millisecond))
	if err := m.Start(); err != nil {
		t.Fatal(err)
	}
	if err := c.WaitServing(ctx); err != nil {
		t.Fatal(err)
	}
	return took
}
