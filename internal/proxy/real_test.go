package proxy

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
)

func selectOne(t *testing.T, addr, user string, change func(*mysql.Config)) {
	t.Helper()
	db := openDB(t, addr, user, change)
	var got string
	if err := db.QueryRow("SELECT v FROM k WHERE id = ?", 1).Scan(&got); err != nil || got != "one" {
		t.Errorf("%s: got %q, %v", user, got, err)
	}
}

func withTLS(c *mysql.Config) { c.TLSConfig = "skip-verify" }

// TestLoginsOfGoDriver logs in with every plugin, with and without TLS, with a
// cold and a warm password cache, at the master, through a hop, and at the
// read-only port.
func TestLoginsOfGoDriver(t *testing.T) {
	master, s := masterNode(t, nil)
	other := startNode(t, testOptions(s.socket))
	other.SetRoute(Remote(master.rw))
	for name, addr := range map[string]string{"master": master.rw, "hop": other.rw, "ro": master.ro} {
		t.Run(name, func(t *testing.T) {
			for _, user := range []string{"sha2", "old", "blank"} {
				s.forget(t)
				selectOne(t, addr, user, nil)
				selectOne(t, addr, user, nil)
				s.forget(t)
				selectOne(t, addr, user, withTLS)
				selectOne(t, addr, user, withTLS)
			}
			selectOne(t, addr, "tls", withTLS)
		})
	}
	if st := master.Stats(); st.RW.Hops == 0 {
		t.Errorf("no hop was counted: %+v", st)
	}
}

func TestWrongPasswordIsTheServersError(t *testing.T) {
	master, s := masterNode(t, nil)
	s.forget(t)
	db := openDB(t, master.rw, "sha2", func(c *mysql.Config) { c.Passwd = "wrong" })
	err := db.Ping()
	if err == nil || !strings.Contains(err.Error(), "1045") {
		t.Errorf("got %v, want the server's 1045", err)
	}
}

// mysqlClient runs the real client and returns its output.
func mysqlClient(t *testing.T, s *realServer, addr, user string, args ...string) (string, error) {
	t.Helper()
	host, port, _ := strings.Cut(addr, ":")
	ctx, cancel := context.WithTimeout(context.Background(), testLimit)
	defer cancel()
	args = append([]string{"--no-defaults", "-h", host, "-P", port, "-u", user, "-N", "-B"}, args...)
	cmd := s.install.Command(ctx, "mysql", args...)
	cmd.Env = append(os.Environ(), "MYSQL_PWD="+user)
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// TestLoginsOfTheRealClient does the same with the mysql program.
func TestLoginsOfTheRealClient(t *testing.T) {
	master, s := masterNode(t, nil)
	other := startNode(t, testOptions(s.socket))
	other.SetRoute(Remote(master.rw))
	keyFile := "--server-public-key-path=" + filepath.Join(s.dir, "data", "public_key.pem")
	for _, args := range [][]string{
		{"--ssl-mode=DISABLED", "--get-server-public-key"},
		{"--ssl-mode=DISABLED", keyFile},
		{"--ssl-mode=DISABLED", "--get-server-public-key", "--compression-algorithms=zlib"},
		{"--ssl-mode=REQUIRED"},
		{"--ssl-mode=REQUIRED", "--compression-algorithms=zstd"},
		{},
	} {
		for _, user := range []string{"sha2", "old"} {
			for _, addr := range []string{master.rw, other.rw} {
				s.forget(t)
				out, err := mysqlClient(t, s, addr, user, append(args, "-e", "SELECT v FROM t.k WHERE id=2")...)
				if err != nil || out != "two" {
					t.Errorf("%s %v: %q, %v", user, args, out, err)
				}
			}
		}
	}
}

// TestErrorBeforeTheGreeting shows how the real client reads an error packet in
// place of a greeting.
func TestErrorBeforeTheGreeting(t *testing.T) {
	s := realMysqld(t)
	n := startNode(t, testOptions(s.socket))
	n.SetLocal(false, "it is being rebuilt")
	out, err := mysqlClient(t, s, n.ro, "sha2", "-e", "SELECT 1")
	if err == nil || !strings.Contains(out, "ERROR 1040 (HY000): phxsql: ") || !strings.Contains(out, "it is being rebuilt") {
		t.Errorf("got %q, %v", out, err)
	}
}

// TestLoadDataLocal sends a file through, and another command behind it.
func TestLoadDataLocal(t *testing.T) {
	master, s := masterNode(t, nil)
	file := filepath.Join(t.TempDir(), "rows")
	if err := os.WriteFile(file, []byte(strings.Repeat("some words\n", 200_000)), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := mysqlClient(t, s, master.rw, "sha2", "--ssl-mode=DISABLED", "--get-server-public-key", "--local-infile=1", "-e",
		"USE t; CREATE TABLE f (v VARCHAR(20)); LOAD DATA LOCAL INFILE '"+file+"' INTO TABLE f; SELECT COUNT(*) FROM f; DROP TABLE f")
	if err != nil || out != "200000" {
		t.Errorf("got %q, %v", out, err)
	}
}

// TestChangeUser changes the account of an open plaintext session, with a full
// RSA exchange in the middle of it, and goes on with commands.
func TestChangeUser(t *testing.T) {
	master, s := masterNode(t, nil)
	other := startNode(t, testOptions(s.socket))
	other.SetRoute(Remote(master.rw))
	for _, addr := range []string{master.rw, other.rw} {
		c := &testClient{tb: t, conn: dial(t, addr)}
		s.forget(t)
		c.logIn("blank", "")
		s.forget(t)
		c.changeUser("sha2", "sha2")
		if got := c.query("SELECT USER()"); !strings.Contains(got, "sha2@localhost") {
			t.Errorf("after the change: %q", got)
		}
		c.changeUser("sha2", "sha2") // from the server's cache
		if got := c.query("SELECT 'again'"); !strings.Contains(got, "again") {
			t.Errorf("after the second change: %q", got)
		}
	}
}

// TestKilledSession: the server's own last words reach the client.
func TestKilledSession(t *testing.T) {
	master, s := masterNode(t, nil)
	db := openDB(t, master.rw, "sha2", nil)
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var id string
	if err := conn.QueryRowContext(t.Context(), "SELECT CONNECTION_ID()").Scan(&id); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := conn.ExecContext(t.Context(), "DO SLEEP(60)")
		done <- err
	}()
	eventually(t, "the statement runs", func() bool { return master.Stats().RW.FromClient > 0 })
	s.exec(t, "KILL "+id)
	if err := <-done; err == nil {
		t.Error("no error")
	}
}

// TestCutTellsTheClientThatWaits: the driver sees an error that says what it
// must know, and its pool goes on with a new connection.
func TestCutTellsTheClientThatWaits(t *testing.T) {
	master, s := masterNode(t, nil)
	db := openDB(t, master.rw, "sha2", nil)
	before := master.Stats().RW.FromClient
	done := make(chan error, 1)
	go func() {
		_, err := db.Exec("DO SLEEP(60)")
		done <- err
	}()
	local := openDB(t, s.socket, "sha2", func(c *mysql.Config) { c.Net = "unix" })
	eventually(t, "the statement runs", func() bool {
		n := 0
		err := local.QueryRow("SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE INFO LIKE 'DO SLEEP%'").Scan(&n)
		return err == nil && n == 1 && master.Stats().RW.FromClient > before
	})
	master.Cut("this is a test")
	var e *mysql.MySQLError
	if err := <-done; !errors.As(err, &e) || e.Number != codeShutdown || string(e.SQLState[:]) != stateLost {
		t.Errorf("got %v", err)
	}
	if err := db.Ping(); err != nil {
		t.Error(err)
	}
}

// TestManyIdleSessions opens 2,000 sessions and looks at what each costs.
func TestManyIdleSessions(t *testing.T) {
	if raceEnabled {
		t.Skip("memory is measured without the race detector")
	}
	n, f := fakeMaster(t, nil)
	const sessions = 2000
	before := liveBytes()
	for range sessions {
		f.logIn(t, n.rw)
	}
	each := (liveBytes() - before) / sessions
	t.Logf("%d bytes per idle session, both ends of the test included", each)
	if each > 48<<10 {
		t.Errorf("an idle session costs %d bytes", each)
	}
	start := time.Now()
	if got := n.Cut("test"); got != sessions {
		t.Errorf("cut %d", got)
	}
	t.Logf("cut in %v", time.Since(start))
}

// liveBytes is what the heap and the stacks hold.
func liveBytes() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}
