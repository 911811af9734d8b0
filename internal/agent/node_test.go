package agent

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	_ "github.com/go-sql-driver/mysql"

	"github.com/phxsql/phxsql/internal/api"
	"github.com/phxsql/phxsql/internal/config"
	"github.com/phxsql/phxsql/internal/engine"
	"github.com/phxsql/phxsql/internal/identity"
	"github.com/phxsql/phxsql/internal/mysqld"
	"github.com/phxsql/phxsql/internal/netlab"
)

// realLimit bounds every wait of the test with a real server.
const realLimit = 90 * time.Second

// realConfig is that of a node on free ports of the loopback.
func realConfig(t *testing.T) config.Config {
	t.Helper()
	if _, err := engine.Ensure(t.Context(), engine.Options{}); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	c := config.Default()
	c.Node.ID, c.Node.DataDir, c.Cluster.SecretFile = 1, filepath.Join(dir, "n"), filepath.Join(dir, "secret")
	c.Engine.BufferPoolSize, c.Engine.MaxConnections = 32<<20, 50
	ports, err := netlab.FreePorts(netlab.Loopback(), 4)
	if err != nil {
		t.Fatal(err)
	}
	for i, addr := range []*string{&c.Listen.RW, &c.Listen.RO, &c.Listen.Peer, &c.Listen.Admin} {
		*addr = net.JoinHostPort(netlab.Loopback(), strconv.Itoa(ports[i]))
	}
	if _, err := identity.CreateSecret(c.Cluster.SecretFile); err != nil {
		t.Fatal(err)
	}
	return c
}

// node is a node that runs in this process.
type node struct {
	cfg    config.Config
	client *api.Client
	stop   context.CancelFunc
	ended  chan error
}

func startNode(t *testing.T, cfg config.Config) *node {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	n := &node{cfg: cfg, stop: cancel, ended: make(chan error, 1)}
	ready := make(chan struct{})
	go func() {
		n.ended <- Run(ctx, cfg, Options{Logger: slog.New(slog.DiscardHandler), Ready: func() { close(ready) }})
	}()
	select {
	case <-ready:
	case err := <-n.ended:
		t.Fatal(err)
	}
	secret, err := identity.LoadSecret(cfg.Cluster.SecretFile)
	if err != nil {
		t.Fatal(err)
	}
	creds, err := secret.Credentials(cfg.Node.ID)
	if err != nil {
		t.Fatal(err)
	}
	n.client = api.NewClient([]string{cfg.Listen.Admin}, api.ClientTLS(creds))
	t.Cleanup(func() { cancel(); <-n.ended })
	return n
}

// end stops the node and returns what Run did.
func (n *node) end() error {
	n.stop()
	err := <-n.ended
	n.ended <- nil
	return err
}

// waitMaster returns the node's own status when it is the master of an epoch
// beyond the given one.
func (n *node) waitMaster(t *testing.T, beyond uint64) api.MemberStatus {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), realLimit)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		st, err := n.client.Status(ctx)
		if err == nil && st.Members[0].Master && st.Members[0].Epoch > beyond {
			return st.Members[0]
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("no master: %+v, %v", st, err)
		}
	}
}

// One node with a real server: made, written to, its server killed, stopped and
// started again with another secret.
func TestNode(t *testing.T) {
	cfg := realConfig(t)
	n := startNode(t, cfg)
	if err := Run(t.Context(), cfg, Options{Logger: slog.New(slog.DiscardHandler)}); err == nil || !strings.Contains(err.Error(), "is taken by") {
		t.Errorf("a second node on the same ports: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 4*realLimit) // all of it, on a busy machine
	defer cancel()
	req := api.InitRequest{Members: []api.InitMember{{ID: 1, Peer: cfg.Listen.Peer}}, User: "app", Password: "correct horse"}
	interrupted := req
	interrupted.User, interrupted.Password = "", "" // as if init had ended here
	if _, err := n.client.Init(ctx, interrupted); err != nil {
		t.Fatal(err)
	}
	if _, err := n.client.Init(ctx, req); err != nil {
		t.Fatalf("an init that was interrupted cannot be repeated: %v", err)
	}
	if _, err := n.client.Init(ctx, req); err == nil || !strings.Contains(err.Error(), "belongs to cluster") {
		t.Errorf("a second init: %v", err)
	}
	db, err := sql.Open("mysql", fmt.Sprintf("app:correct horse@tcp(%s)/", cfg.Listen.RW))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, q := range []string{"CREATE DATABASE t", "CREATE TABLE t.x (id INT PRIMARY KEY)", "INSERT INTO t.x VALUES (1)"} {
		if _, err := db.ExecContext(ctx, q); err != nil {
			t.Fatalf("%s: %v", q, err)
		}
	}

	plantGrants(t, ctx, cfg, db)
	first := n.waitMaster(t, 0)
	if err := syscall.Kill(first.Engine.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	second := n.waitMaster(t, first.Epoch)
	if second.Engine.PID == first.Engine.PID {
		t.Errorf("after the kill: %+v", second.Engine)
	}
	db.SetMaxIdleConns(0)
	checkGrants(t, ctx, db)
	if _, err := db.ExecContext(ctx, "INSERT INTO t.x VALUES (2)"); err != nil {
		t.Fatal(err)
	}
	// Passwords that are made of the cluster's secret, which is another one afterwards.
	if res, err := n.client.RotateAccounts(ctx, api.RotateRequest{}); err != nil || len(res.Done) != 1 {
		t.Errorf("rotation: %+v, %v", res, err)
	}
	if err := n.end(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(cfg.Cluster.SecretFile); err != nil {
		t.Fatal(err)
	}
	if _, err := identity.CreateSecret(cfg.Cluster.SecretFile); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(second.Engine.PID, 0); err == nil {
		t.Error("the server outlives its node")
	}

	n = startNode(t, cfg)
	n.waitMaster(t, second.Epoch)
	var rows int
	if err := db.QueryRowContext(ctx, "SELECT COUNT(*) FROM t.x").Scan(&rows); err != nil || rows != 2 {
		t.Errorf("%d rows after a restart, %v", rows, err)
	}
	kinds := map[string]int{}
	if err := n.client.LogDump(ctx, 0, 0, func(e api.LogEntry) error { kinds[e.Kind]++; return nil }); err != nil {
		t.Fatal(err)
	}
	if kinds["epoch"] != 3 || kinds["membership"] != 1 || kinds["transactions"] < 5 {
		t.Errorf("the log holds %v", kinds)
	}
}

// plantGrants leaves a server as one that has ended within DROP PROCEDURE and DROP
// FUNCTION: it has executed them, and keeps what was granted. The grants that DROP
// DATABASE leaves are there by right, though the routine was dropped before, too.
func plantGrants(t *testing.T, ctx context.Context, cfg config.Config, db *sql.DB) {
	t.Helper()
	for _, q := range []string{
		"CREATE USER reader", "CREATE PROCEDURE t.Gone() SELECT 1", "GRANT EXECUTE ON PROCEDURE t.Gone TO reader",
		"CREATE FUNCTION t.stays() RETURNS INT DETERMINISTIC RETURN 1", "GRANT EXECUTE ON FUNCTION t.stays TO reader",
		"CREATE DATABASE o", "CREATE PROCEDURE o.p() SELECT 1", "DROP PROCEDURE o.p",
		"CREATE PROCEDURE o.p() SELECT 1", "GRANT EXECUTE ON PROCEDURE o.p TO reader", "DROP DATABASE o",
		"CREATE DATABASE o", "DROP PROCEDURE IF EXISTS o.p", // without effect
	} {
		if _, err := db.ExecContext(ctx, q); err != nil {
			t.Fatalf("%s: %v", q, err)
		}
	}
	dir := filepath.Dir(cfg.SocketPath())
	secret, err := os.ReadFile(filepath.Join(dir, "agent.secret"))
	if err != nil {
		t.Fatal(err)
	}
	own, err := sql.Open("mysql", fmt.Sprintf("%s:%s@unix(%s)/", mysqld.AgentUser, strings.TrimSpace(string(secret)), cfg.SocketPath()))
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	own.SetMaxOpenConns(1)
	for _, q := range []string{
		"SET sql_log_bin = 0", "CREATE TEMPORARY TABLE t.kept AS SELECT * FROM mysql.procs_priv WHERE db = 't' AND routine_name = 'gone'",
	} {
		if _, err := own.ExecContext(ctx, q); err != nil {
			t.Fatalf("%s: %v", q, err)
		}
	}
	if _, err := db.ExecContext(ctx, "DROP PROCEDURE IF EXISTS t.gone"); err != nil {
		t.Fatal(err)
	}
	res, err := own.ExecContext(ctx, "INSERT INTO mysql.procs_priv SELECT * FROM t.kept")
	if err != nil {
		t.Fatal(err)
	}
	if n, err := res.RowsAffected(); err != nil || n != 1 {
		t.Fatalf("%d grants kept, %v", n, err)
	}
}

// checkGrants looks at what is left of that after a start.
func checkGrants(t *testing.T, ctx context.Context, db *sql.DB) {
	t.Helper()
	var grants string
	err := db.QueryRowContext(ctx, "SELECT GROUP_CONCAT(db, '.', routine_name ORDER BY db, routine_name) FROM mysql.procs_priv WHERE user = 'reader'").Scan(&grants)
	if want := "o.p,t.stays"; err != nil || grants != want {
		t.Errorf("granted on %s, %v, want %s", grants, err, want)
	}
	if _, err := db.ExecContext(ctx, "CREATE PROCEDURE t.gone() SELECT 1"); err != nil {
		t.Fatal(err)
	}
	var name, all string
	rows, err := db.QueryContext(ctx, "SHOW GRANTS FOR reader")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		if err := rows.Scan(&name); err != nil {
			t.Fatal(err)
		}
		all += name + "\n"
	}
	if err := rows.Err(); err != nil || strings.Contains(strings.ToLower(all), "gone") {
		t.Errorf("a new procedure of that name: %s, %v", all, err)
	}
}
