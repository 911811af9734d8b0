package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
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
		{drill.MasterLogFills, "disk_low"}, // it gives way before its log is full
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
	ctx := limit(t, 4*time.Minute)
	w := load(t, c)
	old, err := c.Master(ctx)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := f.Break(ctx, c, old); err != nil {
		t.Fatal(err)
	}
	if err := drill.Eventually(limitOf(t, ctx, 2*time.Minute), func() error { return c.MasterBesides(ctx, old) }); err != nil {
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

var (
	diskRounds = flag.Int("disk-rounds", 0, "rounds of TestPowerCuts; none without it")
	diskSeed   = flag.Uint64("disk-seed", 1, "what TestPowerCuts draws its first round from")
)

// TestPowerCuts cuts the power of all nodes at once, again and again, under load. A part
// of what was not synced survives, by chance. They come back in every order; any majority
// serves before the last one is there, the old master or not, and nothing is lost.
func TestPowerCuts(t *testing.T) {
	if *diskRounds == 0 {
		t.Skip("it takes long: make soak-disk")
	}
	if err := powerloss.Possible(); err != nil {
		t.Skip(err)
	}
	c := start(t, drill.Options{Disks: true})
	for i := range *diskRounds {
		seed := *diskSeed + uint64(i)
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) { powerCut(t, c, rand.New(rand.NewPCG(seed, 7)), i) })
		if t.Failed() {
			return
		}
	}
}

func powerCut(t *testing.T, c *drill.Cluster, dice *rand.Rand, round int) {
	ctx := limit(t, 4*time.Minute)
	w := load(t, c)
	old, err := c.Master(ctx)
	if err != nil {
		t.Fatal(err)
	}
	// The moment of the cut is some moment of the load.
	for range 1 + dice.IntN(20) {
		if err := w.WaitAck(ctx, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	order := slices.Clone(c.Nodes)
	dice.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	if round%2 == 0 { // the old master stays away longest
		i := slices.Index(order, old)
		order = append(slices.Delete(order, i, i+1), old)
	}
	chance := dice
	if round%4 == 3 {
		chance = nil
	}
	if err := c.LosePower(c.Nodes, chance); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for i, n := range order {
		if err := n.Start(); err != nil {
			t.Fatal(err)
		}
		if i != 1 {
			continue
		}
		if err := w.WaitAck(ctx, began); err != nil {
			t.Fatalf("nodes %d and %d are back and do not serve: %v\n%s\n%s", order[0].ID, n.ID, err, order[0].LogTail(), n.LogTail())
		}
		t.Logf("master was node %d; nodes %d and %d serve after %v", old.ID, order[0].ID, n.ID, time.Since(began).Round(10*time.Millisecond))
	}
	judge(t, c, w)
}
