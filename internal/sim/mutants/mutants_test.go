package mutants

import (
	"context"
	"flag"
	"testing"
	"time"
)

var hunt = flag.Bool("mutants.hunt", false, "build and hunt the classic mutants")

// TestTextsAreInTheSource keeps mutants from rotting.
func TestTextsAreInTheSource(t *testing.T) {
	root, err := Root()
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, m := range All {
		if names[m.Name] {
			t.Errorf("two mutants are named %s", m.Name)
		}
		names[m.Name] = true
		if m.Why == "" || m.Old == m.New {
			t.Errorf("mutant %s says or changes nothing", m.Name)
		}
		if _, err := m.Source(root); err != nil {
			t.Error(err)
		}
	}
}

// TestClassicFaultsAreFound builds the simulator with each classic fault.
func TestClassicFaultsAreFound(t *testing.T) {
	if !*hunt {
		t.Skip("run with -mutants.hunt, or run internal/sim/cmd/phxmutants for all mutants")
	}
	root, err := Root()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range All {
		if !m.Classic {
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
		r, err := m.Find(ctx, root, t.TempDir(), 1, 2*time.Minute)
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		if !r.Found {
			t.Errorf("the simulator did not find %s: %s", m.Name, m.Why)
			continue
		}
		t.Logf("%s breaks %s with seed %d after %v", m.Name, r.Rule, r.Seed, r.After)
	}
}
