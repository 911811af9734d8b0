package e2e

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/phxsql/phxsql/internal/drill"
)

// TestAForgottenStatementIsNotRepeated kills a master that has executed
// statements which changed nothing. Its engine has no trace of them, so that it
// asks for them again when it comes back; by then a DROP TABLE IF EXISTS that
// dropped nothing would drop what was made after it.
func TestAForgottenStatementIsNotRepeated(t *testing.T) {
	c := start(t, drill.Options{})
	ctx := limit(t, 4*time.Minute)
	if err := c.Exec(ctx, "DROP DATABASE IF EXISTS n", "CREATE DATABASE n",
		"DROP TABLE IF EXISTS n.t", "CREATE TABLE n.t (id INT PRIMARY KEY)", "INSERT INTO n.t VALUES (1), (2)",
		"CREATE TABLE n.gone (id INT PRIMARY KEY)", "CREATE TABLE IF NOT EXISTS n.gone (id INT PRIMARY KEY)", "DROP TABLE n.gone",
		"DROP USER IF EXISTS u", "CREATE USER u", "DROP VIEW IF EXISTS n.v", "CREATE VIEW n.v AS SELECT * FROM n.t",
		"DROP PROCEDURE IF EXISTS n.p", "CREATE PROCEDURE n.p() SELECT 1", "DROP EVENT IF EXISTS n.e",
		"CREATE EVENT n.e ON SCHEDULE EVERY 1 DAY DO DELETE FROM n.t WHERE id < 0", "FLUSH TABLES", "INSERT INTO n.t VALUES (3)"); err != nil {
		t.Fatal(err)
	}
	settled(t, c)
	want := holdings(t, ctx, c, c.Nodes[0])
	for _, f := range []drill.Fault{drill.KillMaster, drill.KillMaster, drill.KillAll} {
		bear(t, ctx, c, f)
		settled(t, c)
		for _, n := range c.Nodes {
			if d := drill.Difference(want, holdings(t, ctx, c, n)); d != "" {
				t.Fatalf("%s: node %d has changed:\n%s", f.Name, n.ID, d)
			}
		}
	}
}

// holdings is a node's portrait without its GTID set, which grows with each
// promotion: scheduled events are enabled by statements.
func holdings(t *testing.T, ctx context.Context, c *drill.Cluster, n *drill.Node) string {
	t.Helper()
	text, err := c.Portrait(ctx, n)
	if err != nil {
		t.Fatal(err)
	}
	return text[strings.Index(text, "\nn | "):]
}

// bear breaks a cluster without load, and mends it.
func bear(t *testing.T, ctx context.Context, c *drill.Cluster, f drill.Fault) {
	t.Helper()
	m, err := c.Master(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Break(ctx, c, m); err != nil {
		t.Fatal(err)
	}
	if f.Mend == nil {
		return
	}
	if err := f.Mend(ctx, c, m); err != nil {
		t.Fatal(err)
	}
}
