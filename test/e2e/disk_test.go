package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/phxsql/phxsql/internal/api"
	"github.com/phxsql/phxsql/internal/drill"
	"github.com/phxsql/phxsql/internal/powerloss"
)

// TestDisks has one cluster bear what disks do. They forget what was not synced when
// the power fails; what was acknowledged is there all the same. They stick and fill up;
// then somebody else is master, and the old one says why.
func TestDisks(t *testing.T) {
	if err := powerloss.Possible(); err != nil {
		t.Skip(err)
	}
	c := start(t, drill.Options{Disks: true})
	for _, f := range []drill.Fault{drill.MasterLosesPower, drill.AllLosePower} {
		t.Run(f.Name, func(t *testing.T) { endure(t, c, f, 1) })
		if t.Failed() {
			return
		}
	}
	for _, k := range []struct {
		fault   drill.Fault
		problem string
	}{
		{drill.MasterLogSticks, "log_stalled"},
		{drill.MasterDataSticks, "data_stalled"},
		{drill.MasterDataFills, "data_disk_full"},
	} {
		t.Run(k.fault.Name, func(t *testing.T) { yields(t, c, k.fault, k.problem) })
		if t.Failed() {
			return
		}
	}
}

// yields breaks a disk of the master under load. Another node must become master while
// the disk is broken, and the old one say why it is not; once the disk is well, all are.
func yields(t *testing.T, c *drill.Cluster, f drill.Fault, problem string) {
	ctx := limit(t, 2*time.Minute)
	w := load(t, c)
	old, err := c.Master(ctx)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := f.Break(ctx, c, old); err != nil {
		t.Fatal(err)
	}
	if err := drill.Eventually(limitOf(t, ctx, time.Minute), func() error { return c.MasterBesides(ctx, old) }); err != nil {
		t.Fatalf("%v\n%s", err, old.LogTail())
	}
	t.Logf("another master after %v", time.Since(began).Round(10*time.Millisecond))
	if err := drill.Eventually(ctx, func() error { return says(ctx, old, problem) }); err != nil {
		t.Error(err)
	}
	if err := w.WaitAck(ctx, time.Now()); err != nil {
		t.Error(err)
	}
	mended := time.Now()
	if err := f.Mend(ctx, c, old); err != nil {
		t.Fatal(err)
	}
	judge(t, c, w)
	t.Logf("all well %v after the mend", time.Since(mended).Round(10*time.Millisecond))
}

// says checks that a node names a problem, with a hint.
func says(ctx context.Context, n *drill.Node, problem string) error {
	m, err := n.Self(ctx)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(m.Problems, func(p api.Problem) bool { return p.Name == problem })
	if i < 0 {
		return fmt.Errorf("node %d does not say %s: %v", n.ID, problem, m.Problems)
	}
	if m.Problems[i].Hint == "" || m.Problems[i].Reason == "" {
		return errors.New(problem + " has no reason or no hint")
	}
	return nil
}
