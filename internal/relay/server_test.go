package relay

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/phxsql/phxsql/internal/binlog"
	"github.com/phxsql/phxsql/internal/engine"
	"github.com/phxsql/phxsql/internal/gtid"
)

// deadline bounds every wait of these tests.
const deadline = 3 * time.Minute

const agentUser, agentPassword = "phxsql_agent", "s3cret'; -- word"

// made says that the template was asked for.
var made atomic.Bool

// template is an initialised data directory that every test server copies.
var template = sync.OnceValues(func() (string, error) {
	in, err := theEngine()
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp("", "phxsql-relay-")
	if err != nil {
		return "", err
	}
	data := filepath.Join(dir, "data")
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	cmd := in.Command(ctx, "mysqld", "--no-defaults", "--initialize-insecure", "--datadir="+data,
		"--innodb-redo-log-capacity=16M", "--user="+userName())
	if out, err := cmd.CombinedOutput(); err != nil {
		return dir, fmt.Errorf("initialise: %w: %s", err, out)
	}
	return dir, os.Remove(filepath.Join(data, "auto.cnf"))
})

var theEngine = sync.OnceValues(func() (engine.Install, error) {
	return engine.Ensure(context.Background(), engine.Options{})
})

func TestMain(m *testing.M) {
	code := m.Run()
	if made.Load() {
		if dir, _ := template(); dir != "" {
			_ = os.RemoveAll(dir)
		}
	}
	os.Exit(code)
}

func userName() string {
	if os.Getuid() == 0 {
		return "root"
	}
	return ""
}

// server is a real mysqld of a test.
type server struct {
	t    testing.TB
	dir  string
	id   int
	args []string
	cmd  *exec.Cmd
	dead chan struct{}
	db   *sql.DB
	runs int
}

func newServer(t testing.TB, id int, args ...string) *server {
	t.Helper()
	made.Store(true)
	tmpl, err := template()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "phx")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if out, err := exec.Command("cp", "-r", filepath.Join(tmpl, "data"), dir).CombinedOutput(); err != nil {
		t.Fatalf("copy: %v: %s", err, out)
	}
	s := &server{t: t, dir: dir, id: id, args: args}
	t.Cleanup(s.kill)
	s.start()
	s.exec("SET sql_log_bin = 0")
	s.exec("CREATE USER " + agentUser + "@localhost IDENTIFIED BY " + quote(agentPassword))
	s.exec("GRANT ALL ON *.* TO " + agentUser + "@localhost WITH GRANT OPTION")
	s.exec("SET sql_log_bin = 1")
	return s
}

func (s *server) socket() string { return filepath.Join(s.dir, "s.sock") }

// start starts the server on a fresh binlog, so that it undoes what was never
// acknowledged.
func (s *server) start() {
	s.t.Helper()
	in, err := theEngine()
	if err != nil {
		s.t.Fatal(err)
	}
	data := filepath.Join(s.dir, "data")
	old, _ := filepath.Glob(filepath.Join(data, "binlog.*"))
	for _, f := range old {
		_ = os.Remove(f)
	}
	s.runs++
	name := fmt.Sprintf("binlog.%06d", s.runs)
	_ = os.WriteFile(filepath.Join(data, name), binlog.RestartFile(in.Version.Release(), uint32(s.id), time.Now()), 0o640)
	_ = os.WriteFile(filepath.Join(data, "binlog.index"), []byte("./"+name+"\n"), 0o640)
	args := append([]string{
		"--no-defaults", "--user=" + userName(), "--datadir=" + data, "--socket=" + s.socket(), "--log-error=" + filepath.Join(s.dir, "err"),
		"--pid-file=" + filepath.Join(s.dir, "pid"), "--skip-networking", "--mysqlx=OFF", "--secure-file-priv=NULL",
		fmt.Sprintf("--server-id=%d", s.id), "--gtid-mode=ON", "--enforce-gtid-consistency=ON", "--log-bin=binlog",
		"--log-replica-updates=OFF", "--replicate-same-server-id=1", "--skip-replica-start=ON", "--relay-log-recovery=ON",
		"--performance-schema=OFF", "--innodb-buffer-pool-size=64M", "--innodb-redo-log-capacity=64M",
		"--sync-binlog=0", "--innodb-flush-log-at-trx-commit=2", "--max-allowed-packet=1G",
	}, s.args...)
	s.cmd = in.Command(context.Background(), "mysqld", args...)
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // no orphan when a test panics
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.dead = make(chan struct{})
	go func(cmd *exec.Cmd, dead chan struct{}) { _ = cmd.Wait(); close(dead) }(s.cmd, s.dead)
	_ = mysql.SetLogger(log.New(io.Discard, "", 0)) // connections to killed servers
	if s.db, err = sql.Open("mysql", "root@unix("+s.socket()+")/?interpolateParams=true&maxAllowedPacket=0"); err != nil {
		s.t.Fatal(err)
	}
	s.db.SetMaxOpenConns(1) // SET statements last
	eventually(s.t, "server answers", func() bool { return s.db.Ping() == nil })
}

// semisyncArgs are the settings of a server that may be master.
func semisyncArgs() []string {
	return []string{
		"--plugin-load-add=semisync_source.so", "--rpl-semi-sync-source-enabled=ON",
		"--rpl-semi-sync-source-timeout=18446744073709551615", "--rpl-semi-sync-source-wait-point=AFTER_SYNC",
		"--rpl-semi-sync-source-wait-no-replica=ON",
	}
}

func (s *server) kill() {
	if s.cmd != nil && s.cmd.Process != nil {
		_ = s.cmd.Process.Kill()
		<-s.dead
	}
	if s.db != nil {
		_ = s.db.Close()
	}
}

func (s *server) exec(q string) {
	s.t.Helper()
	if _, err := s.db.Exec(q); err != nil {
		s.t.Fatalf("%s: %v", q, err)
	}
}

// conns is a pool for many sessions at once.
func (s *server) conns(n int) *sql.DB {
	s.t.Helper()
	db, err := sql.Open("mysql", "root@unix("+s.socket()+")/?interpolateParams=true&maxAllowedPacket=0")
	if err != nil {
		s.t.Fatal(err)
	}
	db.SetMaxOpenConns(n)
	db.SetMaxIdleConns(n)
	s.t.Cleanup(func() { _ = db.Close() })
	return db
}

func (s *server) one(q string) string {
	s.t.Helper()
	var v sql.NullString
	if err := s.db.QueryRow(q).Scan(&v); err != nil {
		s.t.Fatalf("%s: %v", q, err)
	}
	return v.String
}

func (s *server) executed() *gtid.Set {
	s.t.Helper()
	return setOf(s.t, s.one("SELECT @@GLOBAL.gtid_executed"))
}

// replicate makes the server a replica of the source at addr.
func (s *server) replicate(addr net.Addr) {
	s.t.Helper()
	s.exec(replicateStatement(addr.(*net.TCPAddr), "repl", "relay-secret", 200*time.Millisecond))
	s.exec("START REPLICA")
}

// status is one column of SHOW REPLICA STATUS.
func (s *server) status(column string) string {
	s.t.Helper()
	rows, err := s.db.Query("SHOW REPLICA STATUS")
	if err != nil {
		s.t.Fatal(err)
	}
	defer rows.Close()
	names, _ := rows.Columns()
	values := make([]sql.NullString, len(names))
	into := make([]any, len(names))
	for i := range values {
		into[i] = &values[i]
	}
	if !rows.Next() {
		return ""
	}
	if err := rows.Scan(into...); err != nil {
		s.t.Fatal(err)
	}
	for i, n := range names {
		if n == column {
			return values[i].String
		}
	}
	s.t.Fatalf("no column %s", column)
	return ""
}

// waitFor waits until the server has executed everything in the set.
func (s *server) waitFor(set *gtid.Set) {
	s.t.Helper()
	complaint := ""
	eventually(s.t, "replica has everything", func() bool {
		if e := s.status("Last_IO_Error") + s.status("Last_SQL_Error"); e != "" && e != complaint {
			s.t.Log("replica: " + e)
			complaint = e
		}
		return s.executed().ContainsSet(set)
	})
}

// sameTables compares the checksums of tables on two servers.
func sameTables(t testing.TB, a, b *server, tables ...string) {
	t.Helper()
	for _, table := range tables {
		sum := func(s *server) (sum string) {
			var name string
			if err := s.db.QueryRow("CHECKSUM TABLE "+table).Scan(&name, &sum); err != nil {
				t.Fatal(err)
			}
			return sum
		}
		if x, y := sum(a), sum(b); x != y {
			t.Errorf("table %s differs: %s, %s", table, x, y)
		}
		count := "SELECT COUNT(*) FROM " + table
		if x, y := a.one(count), b.one(count); x != y {
			t.Errorf("table %s has %s and %s rows", table, x, y)
		}
	}
}

// eventually waits for a condition, looking again every few milliseconds.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	end := time.NewTimer(deadline)
	defer end.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-end.C:
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// replicateStatement makes a server the replica of a Source at addr, with the settings
// that a node gives its server.
func replicateStatement(addr *net.TCPAddr, user, password string, heartbeat time.Duration) string {
	return fmt.Sprintf("CHANGE REPLICATION SOURCE TO SOURCE_HOST = '%s', SOURCE_PORT = %d, SOURCE_USER = %s, "+
		"SOURCE_PASSWORD = %s, SOURCE_AUTO_POSITION = 1, REQUIRE_ROW_FORMAT = 1, GTID_ONLY = 1, SOURCE_SSL = 0, SOURCE_CONNECT_RETRY = 1, SOURCE_RETRY_COUNT = 0, "+
		"SOURCE_HEARTBEAT_PERIOD = %.3f", addr.IP, addr.Port, quote(user), quote(password), heartbeat.Seconds())
}

// quote makes a string literal that holds under every sql_mode but needs no
// backslash in the text.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
