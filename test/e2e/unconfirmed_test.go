package e2e

import (
	"testing"
	"time"

	"github.com/phxsql/phxsql/internal/drill"
)

// TestUnconfirmedDDLIsUndone kills a master while it waits for a majority with
// DDL that nobody else has. MySQL has executed it already; when the node comes
// back as a follower nothing of it may be left, and nothing may be copied for it.
func TestUnconfirmedDDLIsUndone(t *testing.T) {
	c := start(t, drill.Options{Namespaces: true})
	if err := c.Exec(limit(t, time.Minute),
		"CREATE DATABASE ddl", "CREATE TABLE ddl.a (id INT PRIMARY KEY, v VARCHAR(20)) ", "CREATE TABLE ddl.b (id INT PRIMARY KEY)",
		"INSERT INTO ddl.a VALUES (1, 'one'), (2, 'two'), (3, 'three')", "INSERT INTO ddl.b VALUES (1), (2)"); err != nil {
		t.Fatal(err)
	}
	for _, ddl := range []string{
		"CREATE TABLE ddl.c AS SELECT * FROM ddl.a",
		"DROP TABLE ddl.a",
		"ALTER TABLE ddl.a ADD COLUMN w INT, ALGORITHM=INSTANT",
		"ALTER TABLE ddl.a ADD INDEX (v), ALGORITHM=INPLACE",
		"ALTER TABLE ddl.a MODIFY v TEXT, ALGORITHM=COPY",
		"TRUNCATE TABLE ddl.b",
		"RENAME TABLE ddl.b TO ddl.z",
		"CREATE USER late@'%' IDENTIFIED BY 'x'",
		"DROP DATABASE ddl",
		"UPDATE ddl.a SET v = 'lost'",
	} {
		t.Run(ddl, func(t *testing.T) { undone(t, c, ddl) })
		if t.Failed() {
			return
		}
	}
}

func undone(t *testing.T, c *drill.Cluster, ddl string) {
	ctx := limit(t, 3*time.Minute)
	if err := c.WaitHealthy(ctx); err != nil {
		t.Fatal(err)
	}
	before, err := c.Portrait(ctx, c.Nodes[0])
	if err != nil {
		t.Fatal(err)
	}
	m := strand(t, c, ddl)
	// Another node must lead before the old one's network comes back: the kernel
	// still holds what the dead process had sent.
	if err := drill.Eventually(ctx, func() error { return c.MasterBesides(ctx, m) }); err != nil {
		t.Fatal(err)
	}
	if err := m.Rejoin(); err != nil {
		t.Fatal(err)
	}
	if err := m.Start(); err != nil {
		t.Fatal(err)
	}
	if err := c.WaitHealthy(ctx); err != nil {
		t.Fatal(err)
	}
	if err := c.Compare(ctx); err != nil {
		t.Fatal(err)
	}
	after, err := c.Portrait(ctx, m)
	if err != nil {
		t.Fatal(err)
	}
	if after != before {
		t.Fatalf("the old master is not as it was:\n%s", drill.Difference(before, after))
	}
}
