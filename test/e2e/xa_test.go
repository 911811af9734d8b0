package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/phxsql/phxsql/internal/drill"
)

// TestPreparedTransactionsSurvive prepares XA transactions and kills nodes before
// the application decides about them: a follower, the master, a master again, all.
// Whoever is master then, the application connects again, finds what is prepared
// and decides; no node needs help to come back, and all hold the same.
func TestPreparedTransactionsSurvive(t *testing.T) {
	c := start(t, drill.Options{})
	ctx := limit(t, 5*time.Minute)
	if err := c.Exec(ctx, "CREATE DATABASE xa", "CREATE TABLE xa.t (id INT PRIMARY KEY AUTO_INCREMENT, v VARCHAR(40))"); err != nil {
		t.Fatal(err)
	}
	killFollowers := drill.Fault{Name: "kill followers",
		Break: func(_ context.Context, c *drill.Cluster, m *drill.Node) error {
			return besides(c, m, (*drill.Node).KillAll)
		},
		Mend: func(_ context.Context, c *drill.Cluster, m *drill.Node) error {
			return besides(c, m, (*drill.Node).Start)
		},
	}
	for n, f := range []drill.Fault{killFollowers, drill.KillMaster, drill.KillMasterServer, drill.KillAll} {
		id := func(name string) string { return fmt.Sprintf("'%s%d'", name, n) }
		prepare(t, ctx, c, id("commit"), id("back"), id("open"), id("done"), id("gone"))
		if err := c.Exec(ctx, "XA COMMIT "+id("done"), "INSERT INTO xa.t (v) VALUES ('between')", "XA ROLLBACK "+id("gone")); err != nil {
			t.Fatal(err)
		}
		bear(t, ctx, c, f)
		settled(t, c)
		alike(t, ctx, c, 3+n)
		if err := c.Exec(ctx, "XA COMMIT "+id("commit"), "XA ROLLBACK "+id("back")); err != nil {
			t.Fatalf("%s: %v", f.Name, err)
		}
		settled(t, c)
		alike(t, ctx, c, 1+n)
		if t.Failed() {
			return
		}
	}
	if err := c.Exec(ctx, "XA COMMIT 'open0'", "XA COMMIT 'open1'", "XA ROLLBACK 'open2'", "XA COMMIT 'open3'"); err != nil {
		t.Fatal(err)
	}
	settled(t, c)
	alike(t, ctx, c, 0)
	if got := column(t, ctx, c, c.Nodes[1], "SELECT COUNT(*) FROM xa.t", 0); got[0] != "15" {
		t.Errorf("%s rows, want 15", got[0])
	}
}

// besides does something to all nodes but one.
func besides(c *drill.Cluster, m *drill.Node, do func(*drill.Node) error) error {
	for _, n := range c.Nodes {
		if n != m {
			if err := do(n); err != nil {
				return err
			}
		}
	}
	return nil
}

// prepare prepares transactions of one row each, and leaves.
func prepare(t *testing.T, ctx context.Context, c *drill.Cluster, ids ...string) {
	t.Helper()
	for _, id := range ids {
		if err := c.Exec(ctx, "XA START "+id, "INSERT INTO xa.t (v) VALUES ("+id+")", "XA END "+id, "XA PREPARE "+id); err != nil {
			t.Fatal(err)
		}
	}
}

// alike checks that all nodes hold the same, with so many transactions prepared.
func alike(t *testing.T, ctx context.Context, c *drill.Cluster, prepared int) {
	t.Helper()
	if err := c.Compare(ctx); err != nil {
		t.Error(err)
	}
	var first []string
	for _, n := range c.Nodes {
		ids := column(t, ctx, c, n, "XA RECOVER", 3)
		slices.Sort(ids)
		if first == nil {
			first = ids
		}
		if len(ids) != prepared || !slices.Equal(ids, first) {
			t.Errorf("node %d has prepared %s, want %d", n.ID, strings.Join(ids, " "), prepared)
		}
	}
}

// column reads one column of a node's answer.
func column(t *testing.T, ctx context.Context, c *drill.Cluster, n *drill.Node, query string, i int) []string {
	t.Helper()
	db, err := c.Open(n.RO, "")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	rows, err := db.QueryContext(ctx, query)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	names, err := rows.Columns()
	if err != nil {
		t.Fatal(err)
	}
	values := make([]string, len(names))
	into := make([]any, len(names))
	for k := range values {
		into[k] = &values[k]
	}
	out := []string{}
	for rows.Next() {
		if err := rows.Scan(into...); err != nil {
			t.Fatal(err)
		}
		out = append(out, values[i])
	}
	return out
}
