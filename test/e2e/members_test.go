package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/phxsql/phxsql/internal/drill"
)

// smallLog makes a log that is trimmed as soon as the engines allow it.
const smallLog = "[log]\nkeep = \"1MiB\"\nlimit = \"16MiB\"\n"

// fill writes so much that the log is trimmed, and waits until all nodes that run have
// given up everything that was chosen before.
func fill(t *testing.T, c *drill.Cluster, megabytes int) {
	t.Helper()
	ctx := limit(t, 3*time.Minute)
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
	for _, s := range stmts { // a machine that is busy with more than this may lose its lease
		if err := drill.Eventually(ctx, func() error { return c.Exec(ctx, s) }); err != nil {
			t.Fatal(err)
		}
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
// trimmed. TestACopyThatIsInterrupted loses the data and kills in the middle.
func TestAMemberThatTheLogCannotBringBackIsRebuilt(t *testing.T) {
	c := start(t, drill.Options{Extra: steady + smallLog})
	ctx := limit(t, 4*time.Minute)
	w := load(t, c)
	master, err := c.Master(ctx)
	if err != nil {
		t.Fatal(err)
	}
	late := other(c, master)
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
	restored(t, "the log was trimmed meanwhile", late, 1)
	copied(t, late)
	judge(t, c, w)
}
