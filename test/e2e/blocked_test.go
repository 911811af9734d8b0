package e2e

import (
	"context"
	"database/sql"
	"errors"
	"testing"
	"time"

	"github.com/phxsql/phxsql/internal/drill"
)

// TestLocksHoldUpNothing has clients of the read-only ports hold locks
// on every follower, so that replication waits for them, and then kills the
// master. A reader's lock must not decide whether there is a master.
func TestLocksHoldUpNothing(t *testing.T) {
	c := start(t, drill.Options{})
	t.Run("of readers, a failover", func(t *testing.T) { readersAndFailover(t, c) })
	t.Run("of clients, a switchover", func(t *testing.T) { clientsAndSwitchover(t, c) })
}

func readersAndFailover(t *testing.T, c *drill.Cluster) {
	ctx := limit(t, 3*time.Minute)
	if err := c.Exec(ctx, "CREATE DATABASE h", "CREATE TABLE h.t (id INT PRIMARY KEY)", "INSERT INTO h.t VALUES (1)"); err != nil {
		t.Fatal(err)
	}
	for _, lock := range [][]string{
		{"FLUSH TABLES WITH READ LOCK"},
		{"LOCK TABLES h.t READ"},
		{"START TRANSACTION", "SELECT * FROM h.t"},
	} {
		t.Run(lock[len(lock)-1], func(t *testing.T) { heldUp(t, ctx, c, lock) })
		if t.Failed() {
			return
		}
	}
}

func heldUp(t *testing.T, ctx context.Context, c *drill.Cluster, lock []string) {
	settled(t, c)
	m, err := c.Master(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range c.Nodes {
		if n == m {
			continue
		}
		reader := hold(t, ctx, c, n.RO, lock...)
		defer reader.Close()
	}
	// The followers cannot execute this.
	if err := c.Exec(ctx, "ALTER TABLE h.t ADD COLUMN c INT, ALGORITHM=INSTANT", "ALTER TABLE h.t DROP COLUMN c", "UPDATE h.t SET id = id + 1"); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := m.KillAll(); err != nil {
		t.Fatal(err)
	}
	if err := drill.Eventually(limitOf(t, ctx, time.Minute), func() error { return c.MasterBesides(ctx, m) }); err != nil {
		t.Error(err)
	} else {
		t.Logf("another master after %v", time.Since(began).Round(time.Millisecond))
	}
	if err := m.Start(); err != nil {
		t.Fatal(err)
	}
}

// TestALockThatIsWaitedForStopsNoReplica has a client of a follower wait for a table that a
// prepared XA transaction keeps locked, with another table locked already, and go away. The
// follower must execute what needs that one, and the decision behind it.
func TestALockThatIsWaitedForStopsNoReplica(t *testing.T) {
	onlyLong(t) // it takes as long as such a client may wait
	c := start(t, drill.Options{})
	ctx := limit(t, 4*time.Minute)
	if err := c.Exec(ctx, "CREATE DATABASE w", "CREATE TABLE w.a (id INT PRIMARY KEY)", "CREATE TABLE w.b (id INT PRIMARY KEY)"); err != nil {
		t.Fatal(err)
	}
	m, err := c.Master(ctx)
	if err != nil {
		t.Fatal(err)
	}
	hold(t, ctx, c, m.RW, "XA START 'x'", "INSERT INTO w.b VALUES (1)", "XA END 'x'", "XA PREPARE 'x'").Close()
	settled(t, c)
	follower := c.Nodes[m.ID%len(c.Nodes)]
	db, err := c.Open(follower.RO, "")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	leave, cancel := context.WithCancel(ctx)
	defer cancel()
	gone := make(chan error, 1)
	go func() {
		_, err := db.ExecContext(leave, "LOCK TABLES w.a READ, w.b READ")
		gone <- err
	}()
	awaitRows(t, ctx, c, follower.RO, "information_schema.processlist WHERE state LIKE 'Waiting for table%'", "the client does not wait")
	cancel()
	if err := <-gone; err == nil {
		t.Fatal("the client got its locks")
	}
	if err := c.Exec(ctx, "INSERT INTO w.a VALUES (1)", "XA ROLLBACK 'x'"); err != nil {
		t.Fatal(err)
	}
	awaitRows(t, limitOf(t, ctx, 2*time.Minute), c, follower.RO, "w.a", "the follower has not executed the insert")
	settled(t, c)
}

// awaitRows waits until rows are seen through a port; none says what that means.
func awaitRows(t *testing.T, ctx context.Context, c *drill.Cluster, addr, rows, none string) {
	t.Helper()
	if err := drill.Eventually(ctx, func() error {
		n, err := count(ctx, c, addr, "SELECT COUNT(*) FROM "+rows)
		if err == nil && n == 0 {
			err = errors.New(none)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

// count reads a number through a port.
func count(ctx context.Context, c *drill.Cluster, addr, query string) (n int, err error) {
	db, err := c.Open(addr, "")
	if err != nil {
		return 0, err
	}
	defer db.Close()
	return n, db.QueryRowContext(ctx, query).Scan(&n)
}

// hold has a client execute statements and keep its session.
func hold(t *testing.T, ctx context.Context, c *drill.Cluster, addr string, statements ...string) *sql.Conn {
	t.Helper()
	db, err := c.Open(addr, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	conn, err := db.Conn(ctx)
	for _, s := range statements {
		if err == nil {
			_, err = conn.ExecContext(ctx, s)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

func limitOf(t *testing.T, ctx context.Context, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(ctx, d)
	t.Cleanup(cancel)
	return ctx
}

// TestAHungServerIsReplaced stops the master's mysqld, as a hanging disk does:
// the process is there, its agent is well, and nothing is answered.
func TestAHungServerIsReplaced(t *testing.T) {
	c := start(t, drill.Options{})
	endure(t, c, drill.PauseMasterServer, 1)
}

// clientsAndSwitchover hands over while clients of the master hold everything that
// a session can hold.
func clientsAndSwitchover(t *testing.T, c *drill.Cluster) {
	settled(t, c)
	ctx := limit(t, 3*time.Minute)
	if err := c.Exec(ctx, "CREATE DATABASE s", "CREATE TABLE s.t (id INT PRIMARY KEY, v INT)", "INSERT INTO s.t VALUES (1, 0)",
		"CREATE EVENT s.e ON SCHEDULE EVERY 1 SECOND DO UPDATE s.t SET v = v + 1"); err != nil {
		t.Fatal(err)
	}
	for _, lock := range [][]string{
		{"FLUSH TABLES WITH READ LOCK"},
		{"LOCK TABLES s.t WRITE"},
		{"START TRANSACTION", "UPDATE s.t SET v = v + 1"},
		{"CREATE TEMPORARY TABLE s.tmp (a INT)", "SELECT GET_LOCK('x', 10)"},
		{"XA START 'x'", "UPDATE s.t SET v = v + 1", "XA END 'x'"},
	} {
		t.Run(lock[len(lock)-1], func(t *testing.T) {
			settledRoles(t, c)
			m, err := c.Master(ctx)
			if err != nil {
				t.Fatal(err)
			}
			for _, addr := range []string{m.RW, m.RO} {
				if addr == m.RO && lock[0] != "FLUSH TABLES WITH READ LOCK" {
					continue
				}
				defer hold(t, ctx, c, addr, lock...).Close()
			}
			began := time.Now()
			if err := drill.Switchover.Break(ctx, c, m); err != nil {
				t.Error(err)
			}
			t.Logf("switchover from node %d took %v", m.ID, time.Since(began).Round(time.Millisecond))
		})
	}
	if err := c.Exec(ctx, "DROP EVENT s.e"); err != nil {
		t.Fatal(err)
	}
	settled(t, c)
}

func settledRoles(t *testing.T, c *drill.Cluster) {
	t.Helper()
	if err := c.WaitRoles(limit(t, 2*time.Minute)); err != nil {
		t.Fatal(err)
	}
}
