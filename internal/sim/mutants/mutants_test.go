package mutants

import (
	"context"
	"testing"
	"time"
)

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

// TestClassicFaultsAreFound builds the simulator with the classic faults, all in
// one program, and wakes one after the other.
func TestClassicFaultsAreFound(t *testing.T) {
	if testing.Short() {
		t.Skip("builds a program")
	}
	root, err := Root()
	if err != nil {
		t.Fatal(err)
	}
	var classics []Mutant
	for _, m := range All {
		if m.Classic {
			classics = append(classics, m)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute) // most of it builds a program
	defer cancel()
	program, err := Together(ctx, root, t.TempDir(), classics)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range classics {
		t.Run(m.Name, func(t *testing.T) {
			r, err := m.Hunt(ctx, program, 1, time.Minute)
			if err != nil {
				t.Fatal(err)
			}
			if !r.Found {
				t.Fatalf("the simulator did not find: %s", m.Why)
			}
			if m.Scenario != "" && r.Rule != "two-values" && r.Rule != "two-leases" {
				t.Errorf("scenario %s ends with %s, which is no harm yet", m.Scenario, r.Rule)
			}
			t.Logf("%s is broken after %d runs, %v", r.Rule, r.Runs, r.After)
		})
	}
	asleep := Mutant{Name: "none"}
	if r, err := asleep.Hunt(ctx, program, 1, 100*time.Millisecond); err != nil || r.Found {
		t.Errorf("with all faults asleep: %+v, %v", r, err)
	}
}
