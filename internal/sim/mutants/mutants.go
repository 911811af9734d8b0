// Package mutants plants faults into the code of production and shows that the
// simulator finds them. The faults are kept as patches of the source, so that the
// source itself stays clean: a patched copy takes the place of a file through the
// go command's -overlay flag.
package mutants

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/phxsql/phxsql/internal/sim"
)

// Mutant is one planted fault.
type Mutant struct {
	Name string
	Why  string // what the fault is
	File string // from the root of the module
	Old  string // must be in the file exactly once
	New  string
	// Classic marks the faults that every run of the tests must find. Their texts
	// are whole statements, so that they can share a program (see Together).
	Classic bool
	// Every hunts with the multiples of sim.Reshuffle, sim.Forget, sim.Reads or sim.Disk,
	// whose schedules have what the fault needs; 0 takes all seeds.
	Every uint64
	// Scenario names the script of package sim that ends in the harm that the fault
	// does.
	Scenario string
	// Story names the story in paxos/testdata that finds the fault, and Test a
	// test of package replica, where it takes more coincidences than random
	// schedules have in minutes.
	Story, Test string
}

// Source returns the patched source of the mutant.
func (m Mutant) Source(root string) ([]byte, error) {
	b, err := os.ReadFile(filepath.Join(root, m.File))
	if err != nil {
		return nil, fmt.Errorf("read source of mutant %s: %w", m.Name, err)
	}
	if n := bytes.Count(b, []byte(m.Old)); n != 1 {
		return nil, fmt.Errorf("patch mutant %s: its text is %d times in %s, want once (hint: the source has moved on, bring the mutant up to date)", m.Name, n, m.File)
	}
	return bytes.Replace(b, []byte(m.Old), []byte(m.New), 1), nil
}

// Find looks for the mutant: with its story, or with the simulator from a seed on,
// for a time at most. The directory is for what is built.
func (m Mutant) Find(ctx context.Context, root, dir string, seed uint64, limit time.Duration) (Result, error) {
	src, err := m.Source(root)
	if err != nil {
		return Result{}, err
	}
	overlay, err := writeOverlay(root, dir, m.Name, map[string][]byte{m.File: src})
	if err != nil {
		return Result{}, err
	}
	switch {
	case m.Story != "":
		return runTest(ctx, root, overlay, "./paxos", "^TestStories$/^"+m.Story+"$")
	case m.Test != "":
		return runTest(ctx, root, overlay, "./internal/replica", "^"+m.Test+"$")
	}
	program, err := build(ctx, root, dir, m.Name, overlay)
	if err != nil {
		return Result{}, err
	}
	defer os.Remove(program) // the directory goes in the end all the same
	return m.Hunt(ctx, program, seed, limit)
}

// runTest runs a test, which fails if it finds the mutant.
func runTest(ctx context.Context, root, overlay, pkg, name string) (Result, error) {
	start := time.Now()
	cmd := exec.CommandContext(ctx, "go", "test", "-count=1", "-overlay", overlay, "-run", name, pkg)
	cmd.Dir = root
	out, err := cmd.CombinedOutput()
	if bytes.Contains(out, []byte("no tests to run")) {
		return Result{}, fmt.Errorf("run %s in %s: there is no such test", name, pkg)
	}
	if err == nil {
		return Result{}, nil
	}
	if !bytes.Contains(out, []byte("--- FAIL: Test")) {
		return Result{}, fmt.Errorf("run %s in %s: %w\n%s", name, pkg, err, out)
	}
	return Result{Found: true, Rule: "test", After: time.Since(start)}, nil
}

// writeOverlay writes patched sources, by their paths from the root, and the file
// that puts them into their places.
func writeOverlay(root, dir, name string, sources map[string][]byte) (string, error) {
	places := map[string]string{}
	for file, src := range sources {
		patched := filepath.Join(dir, name+"-"+strings.ReplaceAll(file, "/", "-"))
		places[filepath.Join(root, file)] = patched
		if err := os.WriteFile(patched, src, 0o600); err != nil {
			return "", fmt.Errorf("write mutant %s: %w", name, err)
		}
	}
	list, err := json.Marshal(map[string]map[string]string{"Replace": places})
	if err != nil {
		return "", fmt.Errorf("encode overlay: %w", err)
	}
	overlay := filepath.Join(dir, name+".json")
	if err := os.WriteFile(overlay, list, 0o600); err != nil {
		return "", fmt.Errorf("write mutant %s: %w", name, err)
	}
	return overlay, nil
}

// build builds the simulator with mutants inside.
func build(ctx context.Context, root, dir, name, overlay string) (string, error) {
	program := filepath.Join(dir, "phxsim-"+name)
	cmd := exec.CommandContext(ctx, "go", "build", "-overlay", overlay, "-o", program, "./internal/sim/cmd/phxsim")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build mutant %s: %w\n%s", name, err, out)
	}
	return program, nil
}

// By says who is to find the mutant.
func (m Mutant) By() string {
	switch {
	case m.Scenario != "":
		return "scenario " + m.Scenario
	case m.Story != "":
		return "story " + m.Story
	case m.Test != "":
		return "replica: " + m.Test
	case m.Every == sim.Reshuffle:
		return "seeds of changing members"
	case m.Every == sim.Forget:
		return "seeds of snapshots"
	case m.Every == sim.Reads:
		return "seeds of reads"
	case m.Every == sim.Far:
		return "seeds of slow links"
	case m.Every == sim.Lengths:
		return "seeds of lengths of leases"
	case m.Every == sim.Disk:
		return "seeds of failing disks"
	}
	return "seeds"
}

// Result is what became of a mutant.
type Result struct {
	Found bool
	Rule  string // that it broke
	Seed  uint64
	Runs  uint64        // seeds that were needed
	After time.Duration // of simulation
}

var failLine = regexp.MustCompile(`FAIL rule=(\S+) seed=(\d+) after=(\S+)`)

// Hunt runs a program that has the mutant inside: its scenario, or seeds.
func (m Mutant) Hunt(ctx context.Context, program string, seed uint64, limit time.Duration) (Result, error) {
	step := max(1, m.Every)
	seed *= step
	args := []string{"-quiet", "-seed", strconv.FormatUint(seed, 10), "-step", strconv.FormatUint(step, 10), "-for", limit.String()}
	if m.Scenario != "" {
		args = []string{"-quiet", "-blind", "-scenario", m.Scenario}
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), awake+"="+m.Name)
	out, err := cmd.CombinedOutput()
	hit := failLine.FindSubmatch(out)
	if hit == nil {
		if err != nil {
			return Result{}, fmt.Errorf("run %s: %w\n%s", filepath.Base(program), err, out)
		}
		return Result{}, nil
	}
	r := Result{Found: true, Rule: string(hit[1])}
	r.Seed, _ = strconv.ParseUint(string(hit[2]), 10, 64) // the pattern has made sure
	r.After, _ = time.ParseDuration(string(hit[3]))
	if r.Runs = 1; m.Scenario == "" {
		r.Runs = (r.Seed-seed)/step + 1
	}
	return r, nil
}

// Root finds the root of the module, from the working directory upwards.
func Root() (string, error) {
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("find module: %w", err)
	}
	return filepath.Dir(strings.TrimSpace(string(out))), nil
}
