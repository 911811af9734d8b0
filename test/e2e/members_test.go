package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/phxsql/phxsql/internal/api"
	"github.com/phxsql/phxsql/internal/drill"
)

// smallLog makes a log that is trimmed as soon as the engines allow it.
const smallLog = "[log]\nkeep = \"1MiB\"\nlimit = \"16MiB\"\n"

// fill writes so much that the log is trimmed, and waits until all nodes that run have
// given up everything that was chosen before.
func fill(t *testing.T, c *drill.Cluster, megabytes int) {
	t.Helper()
	ctx := limit(t, time.Minute)
	master, err := c.Master(ctx)
	if err != nil {
		t.Fatal(err)
	}
	before, err := master.Self(ctx)
	if err != nil {
		t.Fatal(err)
	}
	stmts := []string{"CREATE DATABASE IF NOT EXISTS fill", "CREATE TABLE IF NOT EXISTS fill.t (id INT AUTO_INCREMENT PRIMARY KEY, b LONGBLOB)"}
	for range megabytes {
		stmts = append(stmts, "INSERT INTO fill.t (b) VALUES (REPEAT('x', 1000000))")
	}
	if err := c.Exec(ctx, stmts...); err != nil {
		t.Fatal(err)
	}
	err = drill.Eventually(ctx, func() error {
		for _, n := range c.Nodes {
			m, err := n.Self(ctx)
			if err != nil && n.Running() {
				return err
			}
			if err == nil && m.Log.First <= before.Log.Chosen+10 {
				return fmt.Errorf("the log of node %d begins at %d, its end was %d before: %+v", n.ID, m.Log.First, before.Log.Chosen, m.Log)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func other(c *drill.Cluster, not ...*drill.Node) *drill.Node {
next:
	for _, n := range c.Nodes {
		for _, x := range not {
			if n == x {
				continue next
			}
		}
		return n
	}
	return nil
}

// TestAMemberThatTheLogCannotBringBackIsRebuilt: away for so long that the log is
// trimmed; without its server's data; with transactions of its own; and killed in the
// middle of it.
func TestAMemberThatTheLogCannotBringBackIsRebuilt(t *testing.T) {
	c := start(t, drill.Options{Extra: smallLog})
	ctx := limit(t, 4*time.Minute)
	w := load(t, c)
	master, err := c.Master(ctx)
	if err != nil {
		t.Fatal(err)
	}
	late := other(c, master)
	rebuilt := func(what string, n *drill.Node) {
		t.Helper()
		began := time.Now()
		err := drill.Eventually(limit(t, time.Minute), func() error {
			m, err := n.Self(ctx)
			if err == nil && (m.State != api.StateFollower && m.State != api.StateMaster || m.Copy != nil) {
				err = fmt.Errorf("node %d is %s: %+v %+v", n.ID, m.State, m.Copy, m.Problems)
			}
			return err
		})
		if err != nil {
			t.Fatalf("%s: %v\n%s", what, err, n.LogTail())
		}
		t.Logf("%s: rebuilt in %v", what, time.Since(began).Round(10*time.Millisecond))
		if !strings.Contains(n.LogTail(), "node is restored") {
			t.Errorf("%s: the node was not rebuilt\n%s", what, n.LogTail())
		}
	}

	if err := late.KillAll(); err != nil {
		t.Fatal(err)
	}
	fill(t, c, 20)
	for _, n := range c.Nodes { // what they have in memory is gone, too
		if n == late {
			continue
		}
		if err := n.KillAll(); err != nil {
			t.Fatal(err)
		}
		if err := n.Start(); err != nil {
			t.Fatal(err)
		}
	}
	if err := late.Start(); err != nil {
		t.Fatal(err)
	}
	waitCopy(limit(t, time.Minute), t, late)
	rebuilt("the log was trimmed meanwhile", late)

	if err := late.KillAll(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(late.Dir(), "mysqld", "data")); err != nil {
		t.Fatal(err)
	}
	if err := late.Start(); err != nil {
		t.Fatal(err)
	}
	waitCopy(limit(t, time.Minute), t, late)
	if err := late.KillAll(); err != nil { // in the middle
		t.Fatal(err)
	}
	if err := late.Start(); err != nil {
		t.Fatal(err)
	}
	waitCopy(limit(t, time.Minute), t, late)
	rebuilt("the server's data were lost, and the node killed on its way", late)
	judge(t, c, w)
}

// waitCopy waits until a node gets a copy.
func waitCopy(ctx context.Context, t *testing.T, n *drill.Node) {
	t.Helper()
	err := drill.Eventually(ctx, func() error {
		m, err := n.Self(ctx)
		if err == nil && m.Copy == nil {
			err = fmt.Errorf("node %d gets no copy: %+v", n.ID, m)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
