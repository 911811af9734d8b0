package model

import (
	"context"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

var full = flag.Bool("full", false, "check the large sizes, which take minutes")

// limit ends a search that is too large for the machine.
const limit = 20 * time.Minute

// run is a model with its sizes. A planted fault must be found, the protocol as
// built must have none.
type run struct {
	name  string
	model string
	sizes string
	fault string
	depth string // look no further than so many steps; the first hundred or so start the processes
	large bool
}

var runs = []run{
	{name: "a crash", model: "agreement", sizes: "BALLOTS=2 INSTANCES=1 CRASHES=1"},
	{name: "three ballots", model: "agreement", sizes: "BALLOTS=3 INSTANCES=1 CRASHES=0"},
	{name: "two instances", model: "agreement", sizes: "BALLOTS=2 INSTANCES=2 CRASHES=0"},
	{name: "membership", model: "agreement", sizes: "N=4 MEMBERSHIP CHANGE_FIRST BALLOTS=2 INSTANCES=2 CRASHES=0"},
	{name: "damage", model: "agreement", sizes: "DAMAGE BALLOTS=2 INSTANCES=1 CRASHES=2"},
	{name: "reads", model: "read", sizes: "TERMS=2 LOG=2 ASKS=2 RESTARTS=1"},
	{name: "leases", model: "lease", sizes: "BALLOTS=2 CRASHES=0 HANDOVERS=0"},
	{name: "leases and a crash", model: "lease", sizes: "BALLOTS=2 CRASHES=2 HANDOVERS=0 SAME_RATE"},
	{name: "leases and membership", model: "lease", sizes: "N=4 MEMBERSHIP BALLOTS=2 CRASHES=0 HANDOVERS=0 SAME_RATE", depth: "118", large: true},

	{name: "damage and three ballots", model: "agreement", sizes: "DAMAGE BALLOTS=3 INSTANCES=1 CRASHES=1", large: true},
	{name: "reads of a longer log", model: "read", sizes: "TERMS=2 LOG=3 ASKS=2 RESTARTS=1", large: true},
	{name: "clocks apart and a crash", model: "lease", sizes: "BALLOTS=2 CRASHES=1 HANDOVERS=0", large: true},
	{name: "three ballots and a crash", model: "agreement", sizes: "BALLOTS=3 INSTANCES=1 CRASHES=1", large: true},
	{name: "two instances and a crash", model: "agreement", sizes: "BALLOTS=2 INSTANCES=2 CRASHES=1", large: true},
	{name: "three ballots and two instances", model: "agreement", sizes: "BALLOTS=3 INSTANCES=2 CRASHES=0", large: true},
	{name: "membership and three ballots", model: "agreement", sizes: "N=4 MEMBERSHIP CHANGE_FIRST BALLOTS=3 INSTANCES=2 CRASHES=0", large: true},
	{name: "leases and hand-over", model: "lease", sizes: "BALLOTS=3 OWNERS=8 CRASHES=0 HANDOVERS=1", large: true},

	{fault: "PROMISE_FORGOTTEN", model: "agreement", sizes: "BALLOTS=2 INSTANCES=1 CRASHES=1"},
	{fault: "PROMISE_SHRINKS", model: "agreement", sizes: "BALLOTS=2 INSTANCES=2 CRASHES=0"},
	{fault: "COMMIT_BY_INDEX", model: "agreement", sizes: "BALLOTS=2 INSTANCES=1 CRASHES=0"},
	{fault: "ADOPT_LAST", model: "agreement", sizes: "BALLOTS=3 INSTANCES=1 CRASHES=0"},
	{fault: "OWN_PROMISE", model: "agreement", sizes: "BALLOTS=2 INSTANCES=1 CRASHES=1"},
	{fault: "CARRY_OVER", model: "agreement", sizes: "N=4 MEMBERSHIP CHANGE_FIRST BALLOTS=2 INSTANCES=2 CRASHES=0"},
	{fault: "DAMAGED_VOTE", model: "agreement", sizes: "DAMAGE BALLOTS=2 INSTANCES=1 CRASHES=1"},
	{fault: "DAMAGED_PROMISE", model: "agreement", sizes: "DAMAGE BALLOTS=2 INSTANCES=1 CRASHES=1"},
	{fault: "MEND_BY_PROPOSAL", model: "agreement", sizes: "DAMAGE BALLOTS=2 INSTANCES=1 CRASHES=1"},
	{fault: "OLDER_RECORD", model: "agreement", sizes: "DAMAGE BALLOTS=2 INSTANCES=1 CRASHES=1"},
	{fault: "READ_WITHOUT_LEASE", model: "read", sizes: "TERMS=2 LOG=3 ASKS=1 RESTARTS=0"},
	{fault: "READ_BEFORE_READY", model: "read", sizes: "TERMS=2 LOG=3 ASKS=1 RESTARTS=0"},
	{fault: "READ_OLD_CLOCK", model: "read", sizes: "TERMS=2 LOG=3 ASKS=1 RESTARTS=0"},
	{fault: "READ_ANY_TOKEN", model: "read", sizes: "TERMS=2 LOG=3 ASKS=2 RESTARTS=1"},
	{fault: "READ_UNAPPLIED", model: "read", sizes: "TERMS=2 LOG=3 ASKS=1 RESTARTS=0"},
	{fault: "NO_REFUSAL", model: "lease", sizes: "BALLOTS=2 CRASHES=0 HANDOVERS=0"},
	{fault: "NO_RESTART_WAIT", model: "lease", sizes: "BALLOTS=2 CRASHES=1 HANDOVERS=0"},
	{fault: "NO_ASYMMETRY", model: "lease", sizes: "BALLOTS=2 CRASHES=0 HANDOVERS=0"},
	{fault: "OPEN_LEASE", model: "lease", sizes: "N=4 MEMBERSHIP BALLOTS=2 CRASHES=0 HANDOVERS=0"},
	{fault: "CONSENT_ANY", model: "lease", sizes: "BALLOTS=3 OWNERS=8 CRASHES=0 HANDOVERS=1", large: true},
}

func TestModel(t *testing.T) {
	for _, tool := range []string{"spin", "gcc"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed; on Debian: apt-get install spin gcc", tool)
		}
	}
	for _, r := range runs {
		name := r.name
		if r.fault != "" {
			name = "fault " + r.fault
		}
		t.Run(name, func(t *testing.T) {
			if r.large && !*full {
				t.Skip("a large size; 'make model' runs it")
			}
			if d, ok := t.Deadline(); ok && time.Until(d) < 2*time.Minute {
				t.Skip("the machine is busy and little time is left; 'make model' has more")
			}
			check(t, r)
		})
	}
}

// check searches all states, breadth first: what it finds is the shortest way there.
func check(t *testing.T, r run) {
	dir := t.TempDir()
	src, err := filepath.Abs(r.model + ".pml")
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"-a"}
	for _, d := range strings.Fields(r.sizes) {
		args = append(args, "-D"+d)
	}
	if r.fault != "" {
		args = append(args, "-DFAULT_"+r.fault)
	}
	do(t, dir, "spin", append(args, src)...)
	optimize := "-O1"
	if r.fault != "" && !r.large {
		optimize = "-O0" // the compiler would take longer than the search
	}
	do(t, dir, "gcc", optimize, "-w", "-DSAFETY", "-DBFS", "-DCOLLAPSE", "-DVECTORSZ=4096", "-DMEMLIM=6000", "-o", "pan", "pan.c")
	search := []string{"-w22"}
	if r.depth != "" {
		search = append(search, "-m"+r.depth)
	}
	out, took := do(t, dir, "./pan", search...)
	states := regexp.MustCompile(`(\S+) states, stored`).FindStringSubmatch(out)
	if states == nil || r.fault == "" && r.depth == "" && strings.Contains(out, "max search depth") {
		t.Fatalf("the search did not end:\n%s", out)
	}
	found := strings.Contains(out, "assertion violated")
	switch {
	case r.fault == "" && !strings.Contains(out, "errors: 0"):
		t.Errorf("a promise is broken (spin -t -p -g tells how):\n%s", out)
	case r.fault != "" && !found:
		t.Errorf("the planted fault was not found:\n%s", out)
	}
	t.Logf("%s %s: %s states, %v of CPU", r.model, r.sizes, states[1], took.Round(10*time.Millisecond))
}

// do runs a command and returns what it says and the CPU time it took.
func do(t *testing.T, dir, name string, args ...string) (string, time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v (%v)\n%s", name, err, ctx.Err(), out)
	}
	return string(out), cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
}
