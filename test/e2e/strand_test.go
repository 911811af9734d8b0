package e2e

import (
	"context"
	"database/sql"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	mysql "github.com/go-sql-driver/mysql"

	"github.com/phxsql/phxsql/internal/drill"
)

// maxTries is how often something is put in flight: a machine that is busy elsewhere may
// not get it far enough before the node notices that it is alone.
const maxTries = 15

// strand cuts the master off, has it write something that nobody else gets, and kills it
// while that waits. It returns that master.
func strand(t *testing.T, c *drill.Cluster, statement string) *drill.Node {
	t.Helper()
	ctx := limit(t, 3*time.Minute)
	var seen []string
	for range maxTries {
		m := master(t, c, ctx)
		if strandOnce(t, ctx, c, m, statement, &seen) {
			return m
		}
		// It was too slow. Nobody else has it: the node comes back as it was.
		if err := m.Rejoin(); err != nil {
			t.Fatal(err)
		}
		if err := c.WaitHealthy(ctx); err != nil {
			t.Fatal(err)
		}
	}
	t.Fatalf("the statement was not seen waiting for a majority at any of %d tries; at last %s", maxTries, strings.Join(seen, "; "))
	return nil
}

// strandOnce reports false when the node has noticed that it is alone before the
// statement waited. The node lives then.
func strandOnce(t *testing.T, ctx context.Context, c *drill.Cluster, m *drill.Node, statement string, seen *[]string) bool {
	t.Helper()
	db, err := c.Open(m.RW, "")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	writer, err := db.Conn(ctx)
	if err != nil {
		t.Fatal(err)
	}
	watcher := inside(t, m)
	defer watcher.Close()
	if err := watcher.PingContext(ctx); err != nil {
		t.Fatal(err)
	}
	if err := m.Isolate(); err != nil {
		t.Fatal(err)
	}
	var told error
	ended := make(chan struct{})
	go func() {
		_, told = writer.ExecContext(context.WithoutCancel(ctx), statement)
		close(ended)
	}()
	waits := awaitWaiting(ctx, watcher, c.User, 1, ended, seen)
	if waits {
		if err := m.KillAll(); err != nil {
			t.Fatal(err)
		}
	}
	<-ended
	if told == nil {
		t.Fatal("the client was told that it is done")
	}
	return waits
}

// inside opens a node's server by its socket: its agent does not stand in between.
func inside(t *testing.T, n *drill.Node) *sql.DB {
	t.Helper()
	dir := filepath.Join(n.Dir(), drill.DataPart)
	secret, err := os.ReadFile(filepath.Join(dir, "agent.secret"))
	if err != nil {
		t.Fatal(err)
	}
	cfg := mysql.NewConfig()
	cfg.User, cfg.Passwd, cfg.Net, cfg.Addr = "phxsql_agent", strings.TrimSpace(string(secret)), "unix", filepath.Join(dir, "mysqld.sock")
	cfg.InterpolateParams, cfg.Logger = true, &mysql.NopLogger{}
	conn, err := mysql.NewConnector(cfg)
	if err != nil {
		t.Fatal(err)
	}
	db := sql.OpenDB(conn)
	db.SetMaxOpenConns(1)
	return db
}

// awaitWaiting waits until so many sessions of a user wait in their commit. It reports
// false when the server has ended before, or the sessions have. Seen is what they were
// last doing.
func awaitWaiting(ctx context.Context, db *sql.DB, user string, sessions int, ended <-chan struct{}, seen *[]string) bool {
	t := time.NewTicker(5 * time.Millisecond)
	defer t.Stop()
	for {
		states, err := sessionStates(ctx, db, user)
		if err != nil {
			return false
		}
		*seen = states
		n := 0
		for _, s := range states {
			if strings.HasPrefix(s, "Waiting for semi-sync ACK") || strings.HasPrefix(s, "waiting for handler commit") {
				n++
			}
		}
		if n >= sessions {
			return true
		}
		select {
		case <-ended:
			return false
		case <-t.C:
		}
	}
}

// sessionStates are what a user's sessions are doing, each with the beginning of its
// statement.
func sessionStates(ctx context.Context, db *sql.DB, user string) (list []string, err error) {
	rows, err := db.QueryContext(ctx, "SELECT CONCAT(state, ': ', LEFT(info, 50)) FROM information_schema.processlist WHERE user = ? AND info IS NOT NULL", user)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	return list, rows.Err()
}
