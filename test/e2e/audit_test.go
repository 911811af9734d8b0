package e2e

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	mysql "github.com/go-sql-driver/mysql"

	"github.com/phxsql/phxsql/internal/api"
	"github.com/phxsql/phxsql/internal/drill"
	"github.com/phxsql/phxsql/internal/events"
	"github.com/phxsql/phxsql/internal/mysqld"
	"github.com/phxsql/phxsql/paxos"
)

// TestAudit changes a row on a follower behind the log's back, as root over the
// server's socket. The audit finds it under load, names the place and the node; the
// node leaves service, gets the data anew, and says so.
func TestAudit(t *testing.T) {
	c := start(t, drill.Options{Extra: "[audit]\nrate = 50000\n[logging]\nlevel = \"debug\""})
	ctx := limit(t, 3*time.Minute)
	if err := c.Exec(ctx, "CREATE DATABASE shop",
		"CREATE TABLE shop.items (id INT PRIMARY KEY, name VARCHAR(40), price DECIMAL(9,2), at TIMESTAMP DEFAULT CURRENT_TIMESTAMP, t TEXT, f DOUBLE, j JSON)",
		"INSERT INTO shop.items (id, name, price, t, f, j) WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 900) SELECT i, CONCAT('item ', i), i / 7, REPEAT('x', i), i / 3, JSON_OBJECT('a', i) FROM n",
		"INSERT INTO shop.items (id, name) SELECT id + 1000, name FROM shop.items", "INSERT INTO shop.items (id, name) SELECT id + 2000, name FROM shop.items",
		"CREATE TABLE shop.pairs (a VARCHAR(20) COLLATE utf8mb4_0900_ai_ci, b BIGINT UNSIGNED, v INT, PRIMARY KEY (a, b))",
		"INSERT INTO shop.pairs SELECT CONCAT('K', id % 5), 18446744073709551615 - id, id FROM shop.items",
		"CREATE TABLE shop.none (v INT)", "INSERT INTO shop.none VALUES (1), (1), (NULL)"); err != nil {
		t.Fatal(err)
	}
	if err := c.WaitHealthy(ctx); err != nil {
		t.Fatal(err)
	}
	w := load(t, c)
	res := auditNow(t, c, ctx)
	if len(res.Diverged) != 0 || len(res.Nodes) != 3 || res.Rows < 7000 {
		t.Fatalf("nothing differs, and the audit says %+v", res)
	}
	m := master(t, c, ctx)
	victim := c.Nodes[slices.IndexFunc(c.Nodes, func(n *drill.Node) bool { return n != m })]
	behind(t, ctx, victim, "UPDATE shop.pairs SET v = v + 1 WHERE a = 'K3' LIMIT 1")
	res = auditNow(t, c, ctx)
	if len(res.Diverged) != 1 || res.Diverged[0].Node != paxos.NodeID(victim.ID) || res.Diverged[0].Tie || strings.Join(res.Diverged[0].Tables, " ") != "shop.pairs" {
		t.Fatalf("a row of shop.pairs differs on node %d, and the audit says %+v", victim.ID, res)
	}
	told(t, c, victim, m)
	w.Stop()
	judge(t, c, w)
	if err := drill.Eventually(ctx, func() error {
		if res = auditNow(t, c, ctx); len(res.Nodes) != 3 || len(res.Diverged) != 0 {
			return fmt.Errorf("after the node was rebuilt the audit says %+v", res)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// behind writes on a node's server over its socket, past its agent and the binlog.
func behind(t *testing.T, ctx context.Context, n *drill.Node, statement string) {
	t.Helper()
	dir := filepath.Join(strings.TrimSuffix(n.Log(), ".log"), "mysqld")
	secret, err := os.ReadFile(filepath.Join(dir, "agent.secret"))
	if err != nil {
		t.Fatal(err)
	}
	cfg := mysql.NewConfig()
	cfg.User, cfg.Passwd, cfg.Net, cfg.Addr = mysqld.AgentUser, strings.TrimSpace(string(secret)), "unix", filepath.Join(dir, "mysqld.sock")
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		t.Fatal(err)
	}
	db := sql.OpenDB(connector)
	defer db.Close()
	conn, err := db.Conn(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range []string{"SET sql_log_bin = 0", "SET GLOBAL read_only = OFF", statement, "SET GLOBAL super_read_only = ON"} {
		if _, err := conn.ExecContext(ctx, q); err != nil {
			t.Fatalf("%s: %v", q, err)
		}
	}
}

// auditNow asks for an audit and returns what it says.
func auditNow(t *testing.T, c *drill.Cluster, ctx context.Context) api.AuditResult {
	t.Helper()
	text, err := c.Run(ctx, "audit", "now", "-o", "json")
	var res api.AuditResult
	if jerr := json.Unmarshal([]byte(text), &res); jerr != nil {
		t.Fatalf("%v: %v", jerr, err)
	}
	t.Logf("audit: %d rows of %d tables on nodes %v in %v", res.Rows, res.Tables, res.Nodes, time.Duration(res.Took))
	return res
}

// told waits until the journal names the node whose rows differed and says that it
// was rebuilt.
func told(t *testing.T, c *drill.Cluster, victim, m *drill.Node) {
	t.Helper()
	ctx := limit(t, 2*time.Minute)
	err := drill.Eventually(ctx, func() error {
		text, err := c.Run(ctx, "why", "-o", "json", "--addr", m.Admin)
		if err != nil {
			return err
		}
		var res api.WhyResult
		if err := json.Unmarshal([]byte(text), &res); err != nil {
			return err
		}
		named := slices.IndexFunc(res.Events, func(e events.Event) bool {
			return e.Kind == events.Diverged && e.Peer == paxos.NodeID(victim.ID)
		})
		rebuilt := slices.IndexFunc(res.Events, func(e events.Event) bool {
			return e.Kind == events.Rebuilt && e.Node == paxos.NodeID(victim.ID)
		})
		switch {
		case named < 0:
			return errors.New("nobody says that its rows differ")
		case rebuilt < named:
			return errors.New("it does not say that it was rebuilt")
		}
		return nil
	})
	if err != nil {
		text, _ := c.Run(context.WithoutCancel(ctx), "why")
		status, _ := c.Run(context.WithoutCancel(ctx), "status")
		t.Fatalf("%v\n%s\n%s\n%s", err, text, status, victim.LogTail())
	}
}
