package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/phxsql/phxsql/internal/drill"
)

// TestCopiesKnowWhatIsPrepared: XA transactions are prepared and undecided when a node
// gets a copy of the data, once of the master, once of a follower; the log before them is
// trimmed, and the nodes are killed before the application decides. All hold the same.
func TestCopiesKnowWhatIsPrepared(t *testing.T) {
	onlyLong(t)
	c := start(t, drill.Options{Nodes: 1, Extra: smallLog})
	ctx := limit(t, 5*time.Minute)
	w := load(t, c)
	fill(t, c, 8)
	if err := c.Exec(ctx, "CREATE DATABASE xa", "CREATE TABLE xa.t (id INT PRIMARY KEY AUTO_INCREMENT, v VARCHAR(40))"); err != nil {
		t.Fatal(err)
	}
	prepare(t, ctx, c, "'a1'", "'a2'", "'a3'", "'a4'")
	again(t, c.Nodes[0])
	if err := c.WaitServing(ctx); err != nil {
		t.Fatal(err)
	}
	copied(t, bring(t, c, 2, voters(1, 2))) // from the master
	serving(t, c)
	prepare(t, ctx, c, "'b1'", "'b2'")
	copied(t, bring(t, c, 3, voters(1, 2, 3))) // from the follower
	serving(t, c)
	if err := c.Exec(ctx, "XA COMMIT 'a1'", "XA ROLLBACK 'a2'", "XA COMMIT 'b1'"); err != nil {
		t.Fatal(err)
	}
	grow(t, c, 20) // beyond the limit: nothing that is prepared may be trimmed away
	for _, n := range c.Nodes {
		again(t, n)
		serving(t, c)
	}
	w.Stop()
	settled(t, c)
	alike(t, ctx, c, 3)

	if err := c.Nodes[0].KillAll(); err != nil { // the others take over
		t.Fatal(err)
	}
	if err := drill.Eventually(ctx, func() error { return c.MasterBesides(ctx, c.Nodes[0]) }); err != nil {
		t.Fatal(err)
	}
	if err := c.Exec(ctx, "XA COMMIT 'a3'", "XA COMMIT 'b2'"); err != nil {
		t.Fatal(err)
	}
	if err := c.Nodes[0].Start(); err != nil {
		t.Fatal(err)
	}
	settled(t, c)
	alike(t, ctx, c, 1)
	if err := c.Exec(ctx, "XA ROLLBACK 'a4'"); err != nil {
		t.Fatal(err)
	}
	settled(t, c)
	alike(t, ctx, c, 0)
	for _, n := range c.Nodes {
		if got := fmt.Sprint(column(t, ctx, c, n, "SELECT v FROM xa.t ORDER BY v", 0)); got != "[a1 a3 b1 b2]" {
			t.Errorf("node %d holds %s", n.ID, got)
		}
	}
}

// grow writes so many megabytes, or some more where a lease ends for want of a processor.
func grow(t *testing.T, c *drill.Cluster, megabytes int) {
	t.Helper()
	ctx := limit(t, 3*time.Minute)
	for range megabytes {
		insert := func() error { return c.Exec(ctx, "INSERT INTO fill.t (b) VALUES (REPEAT('x', 1000000))") }
		if err := drill.Eventually(ctx, insert); err != nil {
			t.Fatal(err)
		}
	}
}
