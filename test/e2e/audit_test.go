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

// TestAudit changes a row on one follower and makes an account on another behind the
// log's back, as root over their servers' sockets. The audit finds both under load, names
// the places and the nodes; they leave service, get the data anew, and say so. What
// clients do to accounts and grants through the log is no difference.
func TestAudit(t *testing.T) {
	c := start(t, drill.Options{Extra: steady + "[audit]\nrate = 50000\n[logging]\nlevel = \"debug\""})
	ctx := limit(t, 8*time.Minute)
	if err := c.Exec(ctx, "CREATE DATABASE shop",
		"CREATE TABLE shop.items (id INT PRIMARY KEY, name VARCHAR(40), price DECIMAL(9,2), at TIMESTAMP DEFAULT CURRENT_TIMESTAMP, t TEXT, f DOUBLE, j JSON)",
		"INSERT INTO shop.items (id, name, price, t, f, j) WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 900) SELECT i, CONCAT('item ', i), i / 7, REPEAT('x', i), i / 3, JSON_OBJECT('a', i) FROM n",
		"INSERT INTO shop.items (id, name) SELECT id + 1000, name FROM shop.items", "INSERT INTO shop.items (id, name) SELECT id + 2000, name FROM shop.items",
		"CREATE TABLE shop.pairs (a VARCHAR(20) COLLATE utf8mb4_0900_ai_ci, b BIGINT UNSIGNED, v INT, PRIMARY KEY (a, b))",
		"INSERT INTO shop.pairs SELECT CONCAT('K', id % 5), 18446744073709551615 - id, id FROM shop.items",
		"CREATE TABLE shop.none (v INT)", "INSERT INTO shop.none VALUES (1), (1), (NULL)"); err != nil {
		t.Fatal(err)
	}
	if err := c.Exec(ctx, grants...); err != nil {
		t.Fatal(err)
	}
	if err := c.WaitHealthy(ctx); err != nil {
		t.Fatal(err)
	}
	w := load(t, c)
	same(t, c, ctx)
	m := master(t, c, ctx)
	var victims []*drill.Node
	for _, n := range c.Nodes {
		if n != m {
			victims = append(victims, n)
		}
	}
	rows, accounts := victims[0], victims[1]
	behind(t, ctx, rows, "UPDATE shop.pairs SET v = v + 1 WHERE a = 'K3' LIMIT 1")
	behind(t, ctx, accounts, "CREATE USER errant IDENTIFIED BY 'x'", "GRANT DROP ON shop.* TO errant", "GRANT EXECUTE ON PROCEDURE shop.p TO dev",
		"CREATE PROCEDURE shop.hidden() DELETE FROM shop.none")
	found, advice := differing(t, c, ctx, 2)
	for _, want := range []struct {
		node          *drill.Node
		tables, where string
	}{{rows, "shop.pairs", ""}, {accounts, "mysql.user mysql.db information_schema.ROUTINES", "'errant'@'%'"}} {
		if d := found[paxos.NodeID(want.node.ID)]; d.Tie || strings.Join(d.Tables, " ") != want.tables || !strings.Contains(d.Where, want.where) {
			t.Fatalf("%s differ on node %d, and the audit says %+v", want.tables, want.node.ID, found)
		}
	}
	if len(advice) == 0 || !strings.Contains(advice[0], "'dev'@'%' on procedure shop.p") {
		t.Fatalf("a grant on a routine differs, and the audit says %q", advice)
	}
	told(t, c, rows, m)
	told(t, c, accounts, m)
	w.Stop()
	judge(t, c, w)
	same(t, c, ctx)
}

// same waits for an audit that all nodes take part in. It must find nothing, and leave
// nothing out.
func same(t *testing.T, c *drill.Cluster, ctx context.Context) {
	t.Helper()
	err := drill.Eventually(ctx, func() error {
		res, err := auditNow(t, c, ctx)
		if err != nil {
			return err
		}
		if len(res.Diverged) != 0 || len(res.Advice) != 0 {
			t.Fatalf("nothing differs, and the audit says %+v", res)
		}
		if len(res.Nodes) != 3 || res.Rows < 7000 || len(res.Skipped) != 0 {
			return fmt.Errorf("not all was compared on all nodes: %+v", res)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// differing asks for audits until so many nodes are found to differ. A node may be too
// busy to take part in the first one.
func differing(t *testing.T, c *drill.Cluster, ctx context.Context, nodes int) (found map[paxos.NodeID]api.AuditDivergence, advice []string) {
	t.Helper()
	found = map[paxos.NodeID]api.AuditDivergence{}
	err := drill.Eventually(ctx, func() error {
		res, err := auditNow(t, c, ctx)
		if err != nil {
			return err
		}
		for _, d := range res.Diverged {
			if !d.Undecided {
				found[d.Node] = d
			}
		}
		advice = append(advice, res.Advice...)
		if len(found) < nodes {
			return fmt.Errorf("audits have found %+v", found)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found, advice
}

// grants are what clients do to accounts, and to what is granted to them.
var grants = []string{
	"CREATE USER ops IDENTIFIED BY 'x'", "CREATE USER dev IDENTIFIED BY 'x' PASSWORD HISTORY 3 FAILED_LOGIN_ATTEMPTS 3 PASSWORD_LOCK_TIME 1 COMMENT 'it''s'",
	"CREATE USER random IDENTIFIED BY RANDOM PASSWORD", "ALTER USER dev IDENTIFIED BY 'y' RETAIN CURRENT PASSWORD",
	// The granting account may not write the schema mysql: that is passed on, and more is taken.
	"GRANT SELECT, INSERT, UPDATE, CREATE ROUTINE ON *.* TO ops", "REVOKE INSERT, UPDATE ON two.* FROM ops", "REVOKE UPDATE ON shop.* FROM ops", "REVOKE SELECT ON one.* FROM ops",
	"GRANT SELECT, DELETE ON shop.* TO dev WITH GRANT OPTION", "GRANT UPDATE (v), INSERT ON shop.none TO dev", "GRANT ROLE_ADMIN, XA_RECOVER_ADMIN ON *.* TO dev",
	"CREATE ROLE reader, writer", "GRANT SELECT ON shop.* TO reader", "GRANT reader TO writer", "GRANT reader, writer TO dev, ops WITH ADMIN OPTION", "SET DEFAULT ROLE ALL TO dev",
	"CREATE PROCEDURE shop.p() SELECT 1", "GRANT EXECUTE ON PROCEDURE shop.p TO ops", "CREATE DEFINER = ops PROCEDURE shop.q() SELECT 1",
	"CREATE USER gone", "GRANT EXECUTE, ALTER ROUTINE ON PROCEDURE shop.q TO gone", "RENAME USER gone TO renamed", "DROP PROCEDURE shop.q", "DROP USER renamed",
}

// behind writes on a node's server over its socket, past its agent and the binlog.
func behind(t *testing.T, ctx context.Context, n *drill.Node, statements ...string) {
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
	for _, q := range slices.Concat([]string{"SET sql_log_bin = 0", "SET GLOBAL read_only = OFF"}, statements, []string{"SET GLOBAL super_read_only = ON"}) {
		if _, err := conn.ExecContext(ctx, q); err != nil {
			t.Fatalf("%s: %v", q, err)
		}
	}
}

// auditNow asks for an audit and returns what it says; an error says that it did not
// come to its end.
func auditNow(t *testing.T, c *drill.Cluster, ctx context.Context) (api.AuditResult, error) {
	t.Helper()
	text, err := c.Run(ctx, "audit", "now", "-o", "json")
	var res api.AuditResult
	if jerr := json.Unmarshal([]byte(text), &res); jerr != nil {
		return res, errors.Join(err, jerr)
	}
	t.Logf("audit: %d rows of %d tables on nodes %v in %v", res.Rows, res.Tables, res.Nodes, time.Duration(res.Took))
	return res, nil
}

// told waits until the journal names the node whose rows differed and says that it
// was rebuilt.
func told(t *testing.T, c *drill.Cluster, victim, m *drill.Node) {
	t.Helper()
	ctx := limit(t, 4*time.Minute)
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
