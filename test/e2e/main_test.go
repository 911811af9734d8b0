// Package e2e holds the tests that run real clusters: three phxsql processes,
// three mysqld servers, real clients, real kills.
package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/phxsql/phxsql/internal/drill"
	"github.com/phxsql/phxsql/internal/engine"
)

// program is the phxsql binary under test, built once.
var program string

// install is the engine, for its client programs.
var install engine.Install

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "phxe2e")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	program = filepath.Join(dir, "phxsql")
	build := exec.Command("go", "build", "-o", program, "github.com/phxsql/phxsql/cmd/phxsql")
	build.Stdout, build.Stderr = os.Stdout, os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "build phxsql:", err)
		return 1
	}
	install, err = engine.Ensure(context.Background(), engine.Options{Progress: func(l string) { fmt.Println(l) }})
	if err != nil {
		fmt.Fprintln(os.Stderr, "find engine:", err)
		return 1
	}
	return m.Run()
}

// start brings up a cluster that serves, and ends it with the test. The folder of
// a failed test is kept and named.
func start(t *testing.T, opt drill.Options) *drill.Cluster {
	t.Helper()
	dir, err := os.MkdirTemp("", "phx")
	if err != nil {
		t.Fatal(err)
	}
	opt.Dir, opt.Program, opt.Say = dir, program, t.Logf
	if opt.Nodes == 0 {
		opt.Nodes = 3
	}
	c, err := drill.New(opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		if t.Failed() {
			t.Logf("the nodes' files are in %s", dir)
			return
		}
		os.RemoveAll(dir)
	})
	if err := c.Start(limit(t, 2*time.Minute)); err != nil {
		t.Fatal(err)
	}
	return c
}

// steady is for tests in which masters hardly fail: a lease that does not end for want of a
// processor.
const steady = "[consensus]\nlease = \"3s\"\n"

func limit(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// load starts the checker's workload.
func load(t *testing.T, c *drill.Cluster) *drill.Workload {
	t.Helper()
	w, err := c.StartWorkload(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Stop)
	if err := w.WaitAck(limit(t, 2*time.Minute), time.Now()); err != nil {
		t.Fatal(err)
	}
	return w
}

// judge stops the workload, waits until all is well and holds what clients were
// told against what every node has.
func judge(t *testing.T, c *drill.Cluster, w *drill.Workload) {
	t.Helper()
	w.Stop()
	ctx := limit(t, 3*time.Minute)
	if err := c.WaitHealthy(ctx); err != nil {
		t.Fatal(err)
	}
	if err := w.Verify(ctx); err != nil {
		t.Error(err)
	}
	if err := c.Compare(ctx); err != nil {
		t.Error(err)
	}
	t.Logf("writes: %d acknowledged, %d refused, %d unknown", w.Count(drill.Acknowledged), w.Count(drill.Refused), w.Count(drill.Unknown))
}
