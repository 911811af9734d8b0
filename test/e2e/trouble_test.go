package e2e

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/phxsql/phxsql/internal/drill"
)

// TestOperators has one cluster bear what operators and careless clients do to it.
func TestOperators(t *testing.T) {
	c := start(t, drill.Options{Extra: "max_connections = 20\n"})
	for _, part := range []struct {
		name string
		run  func(*testing.T, *drill.Cluster)
	}{
		{"every new master is killed", chase},
		{"all nodes are stopped at once, also while they start", stopAll},
		{"clients take all connections", fullServers},
		{"members stay equal", equalMembers},
	} {
		t.Run(part.name, func(t *testing.T) { part.run(t, c) })
		if t.Failed() {
			return
		}
	}
}

// chase kills each node a moment after it has become master, and starts it again
// at once: a majority is there all the time.
func chase(t *testing.T, c *drill.Cluster) {
	w := load(t, c)
	ctx := limit(t, 3*time.Minute)
	for range 8 {
		m, err := c.Master(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.KillAll(); err != nil {
			t.Fatal(err)
		}
		if err := m.Start(); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.WaitAck(ctx, time.Now()); err != nil {
		t.Fatal(err)
	}
	judge(t, c, w)
}

func stopAll(t *testing.T, c *drill.Cluster) {
	w := load(t, c)
	ctx := limit(t, 4*time.Minute)
	for round := range 2 {
		var wg sync.WaitGroup
		for _, n := range c.Nodes {
			wg.Go(func() {
				if err := n.Stop(ctx); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if t.Failed() {
			return
		}
		for _, n := range c.Nodes {
			if pid, err := n.ServerPID(); err == nil {
				t.Errorf("node %d left its server behind: pid %d", n.ID, pid)
			}
			if err := n.Start(); err != nil {
				t.Fatal(err)
			}
		}
		if round == 0 { // the next stop meets servers that start
			if err := drill.Eventually(ctx, func() error { _, err := c.Nodes[0].ServerPID(); return err }); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.WaitAck(ctx, time.Now()); err != nil {
		t.Fatal(err)
	}
	judge(t, c, w)
}

// fullServers has clients take every connection of every server, and keep them
// through a failover and a switchover.
func fullServers(t *testing.T, c *drill.Cluster) {
	ctx := limit(t, 4*time.Minute)
	settled(t, c)
	for _, n := range c.Nodes {
		occupy(t, ctx, c, n.RO)
	}
	m, err := c.Master(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.KillAll(); err != nil {
		t.Fatal(err)
	}
	if err := drill.Eventually(limitOf(t, ctx, time.Minute), func() error { return c.MasterBesides(ctx, m) }); err != nil {
		t.Fatal(err)
	}
	if err := m.Start(); err != nil {
		t.Fatal(err)
	}
	if err := c.WaitRoles(ctx); err != nil {
		t.Fatal(err)
	}
	if m, err = c.Master(ctx); err != nil {
		t.Fatal(err)
	}
	if err := drill.Switchover.Break(ctx, c, m); err != nil {
		t.Error(err)
	}
}

// occupy opens sessions until the port refuses one.
func occupy(t *testing.T, ctx context.Context, c *drill.Cluster, addr string) {
	t.Helper()
	db, err := c.Open(addr, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	for range 40 {
		conn, err := db.Conn(ctx)
		if err != nil {
			return
		}
		t.Cleanup(func() { conn.Close() })
	}
	t.Fatalf("%s takes any number of connections", addr)
}

// equalMembers executes what leaves the order of rows to the server.
func equalMembers(t *testing.T, c *drill.Cluster) {
	settled(t, c)
	ctx := limit(t, 3*time.Minute)
	if err := c.Exec(ctx, "CREATE DATABASE keyless", "CREATE TABLE keyless.t (a INT)"); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	errs := make([]error, 6)
	for i := range errs {
		wg.Go(func() {
			db, err := c.Open(c.Nodes[i%3].RW, "keyless")
			for j := 0; err == nil && j < 100; j++ {
				_, err = db.ExecContext(ctx, fmt.Sprintf("INSERT INTO t VALUES (%d), (%d)", i*1000+j, i*1000+j))
			}
			if db != nil {
				db.Close()
			}
			errs[i] = err
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	if err := c.Exec(ctx, "CREATE TABLE keyless.numbered (id INT AUTO_INCREMENT PRIMARY KEY) AS SELECT a FROM keyless.t",
		"ALTER TABLE keyless.t DROP PRIMARY KEY, DROP COLUMN my_row_id, ADD COLUMN id INT AUTO_INCREMENT PRIMARY KEY"); err != nil {
		t.Fatal(err)
	}
	settled(t, c)
}

// TestLargeTransactionsAndKills kills nodes while a transaction of 100 MB passes.
func TestLargeTransactionsAndKills(t *testing.T) {
	c := start(t, drill.Options{})
	ctx := limit(t, 5*time.Minute)
	if err := c.Exec(ctx, "CREATE DATABASE big", "CREATE TABLE big.b (id INT AUTO_INCREMENT PRIMARY KEY, v LONGBLOB)"); err != nil {
		t.Fatal(err)
	}
	follower := func(c *drill.Cluster, m *drill.Node) *drill.Node { return c.Nodes[m.ID%3] }
	for _, f := range []drill.Fault{
		{
			Name:  "kill a follower",
			Break: func(_ context.Context, c *drill.Cluster, m *drill.Node) error { return follower(c, m).KillAll() },
			Mend:  func(_ context.Context, c *drill.Cluster, m *drill.Node) error { return follower(c, m).Start() },
		},
		drill.KillMaster,
	} {
		t.Run(f.Name, func(t *testing.T) { streaming(t, ctx, c, f) })
	}
}

func streaming(t *testing.T, ctx context.Context, c *drill.Cluster, f drill.Fault) {
	m, err := c.Master(ctx)
	if err != nil {
		t.Fatal(err)
	}
	db, err := c.Open(m.RW, "big")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	before, err := m.Self(ctx)
	if err != nil {
		t.Fatal(err)
	}
	told := make(chan error, 1)
	go func() {
		_, err := db.ExecContext(ctx, "INSERT INTO b (v) WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100) SELECT REPEAT(CHAR(65 + i % 26), 1048576) FROM n")
		told <- err
	}()
	if err := drill.Eventually(ctx, func() error {
		now, err := m.Self(ctx)
		if err == nil && now.Log.Chosen < before.Log.Chosen+10 {
			err = errors.New("nothing of the transaction is in the log")
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	bear(t, ctx, c, f)
	err = <-told
	settled(t, c)
	rows := mysqlClient(t, ctx, c, c.Nodes[0].RW, "SELECT COUNT(*) FROM big.b; DELETE FROM big.b;")
	switch {
	case rows != "100\n" && rows != "0\n":
		t.Errorf("there are %s of the 100 rows", rows)
	case err == nil && rows != "100\n":
		t.Error("an acknowledged transaction is lost")
	}
	t.Logf("the client was told %v", err)
}
