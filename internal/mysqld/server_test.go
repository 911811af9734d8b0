package mysqld

import (
	"bufio"
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
)

func mustConnector(t *testing.T, s *Server) driver.Connector {
	t.Helper()
	c := mysql.NewConfig()
	c.User, c.Passwd = s.Agent()
	c.Net, c.Addr, c.Logger = "unix", s.Socket(), noLog{}
	con, err := mysql.NewConnector(c)
	if err != nil {
		t.Fatal(err)
	}
	return con
}

func TestInitializeLeavesNoTrace(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close() //nolint:errcheck // the test is over
	if err := s.Start(bounded(t)); !errors.Is(err, ErrNotInitialized) {
		t.Fatalf("start without data: %v", err)
	}
	// What an interrupted initialisation leaves is replaced.
	if err := os.MkdirAll(filepath.Join(cfg.Dir, dataNewName, "mysql"), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := s.Initialize(bounded(t), false); err != nil {
		t.Fatal(err)
	}
	if err := s.Initialize(bounded(t), false); !errors.Is(err, ErrInitialized) {
		t.Fatalf("initialised twice: %v", err)
	}
	start(t, s)
	if set := executed(t, s); set != "" {
		t.Errorf("gtid_executed = %q, want none", set)
	}
	if n := scan[int](t, s, "SELECT COUNT(*) FROM mysql.user WHERE user = 'root' AND account_locked <> 'Y'"); n != 0 {
		t.Error("root is not locked")
	}
	for _, name := range []string{secretName, accountsName} {
		st, err := os.Stat(filepath.Join(cfg.Dir, name))
		if err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, st.Mode(), err)
		}
	}
}

func TestCancelledInitializeIsRedone(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close() //nolint:errcheck // the test is over
	ctx, cancel := context.WithCancel(bounded(t))
	go func() {
		waitUntil(ctx, func() bool {
			_, err := os.Stat(filepath.Join(cfg.Dir, dataNewName, "ibdata1"))
			return err == nil
		})
		cancel()
	}()
	if err := s.Initialize(ctx, false); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if s.Initialized() {
		t.Fatal("half a data directory counts as one")
	}
	if err := s.Initialize(bounded(t), false); err != nil {
		t.Fatal(err)
	}
}

func TestForeignDataIsRefused(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	data := filepath.Join(cfg.Dir, dataName)
	if err := os.MkdirAll(data, 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(data, "ibdata1"), []byte("precious"), 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(cfg); !errors.Is(err, ErrForeignData) {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(data, "ibdata1")); err != nil || string(b) != "precious" {
		t.Fatal("foreign data was touched")
	}
}

func TestOneSupervisorPerFolder(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	s := openServer(t, cfg)
	if _, err := Open(cfg); !errors.Is(err, ErrDirInUse) {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
}

// The facts of a started server that everything else leans on.
func TestStartedServerIsFenced(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.Options = map[string]string{"max_heap_table_size": "1M", "innodb-io-capacity": "300"}
	s := startServer(t, cfg)
	for query, want := range map[string]string{
		"SELECT @@GLOBAL.super_read_only":              "1",
		"SELECT @@GLOBAL.skip_networking":              "1",
		"SELECT @@GLOBAL.port":                         "0",
		"SELECT @@GLOBAL.innodb_io_capacity":           "300",
		"SELECT @@GLOBAL.rpl_semi_sync_source_timeout": "18446744073709551615",
		"SELECT @@GLOBAL.sync_binlog":                  "0",
		"SELECT COUNT(*) FROM information_schema.plugins WHERE plugin_name = 'clone' AND plugin_status = 'ACTIVE'": "1",
	} {
		if got := scan[string](t, s, query); got != want {
			t.Errorf("%s = %s, want %s", query, got, want)
		}
	}
	if _, err := s.db.ExecContext(bounded(t), "CREATE DATABASE d"); err == nil {
		t.Error("a started server takes writes")
	}
	writable(t, s, true)
	must(t, s, "CREATE DATABASE d")
	if _, err := s.db.ExecContext(bounded(t), "CREATE TABLE d.t (a INT) ENGINE=MyISAM"); err == nil {
		t.Error("a table was made that cannot be undone")
	}
	if uuid, err := s.ServerUUID(bounded(t)); err != nil || executed(t, s) != uuid+":1" {
		t.Errorf("gtid_executed = %s, uuid = %s, %v", executed(t, s), uuid, err)
	}
	if v, err := s.Version(bounded(t)); err != nil || !strings.HasPrefix(v, s.cfg.Install.Version.Release()) {
		t.Errorf("version = %s, %v", v, err)
	}
	if err := s.Start(bounded(t)); !errors.Is(err, ErrRunning) {
		t.Errorf("started twice: %v", err)
	}
}

// A commit that waits with no replica attached is undone by the next start,
// and so is a statement that changes the dictionary.
func TestUnconfirmedTailIsRolledBack(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, query, check string }{
		{"insert", "INSERT INTO d.t VALUES (2)", "SELECT COUNT(*) FROM d.t WHERE a = 2"},
		{"drop table", "DROP TABLE d.t", "SELECT COUNT(*) = 0 FROM information_schema.tables WHERE table_schema = 'd' AND table_name = 't'"},
		{"drop procedure", "DROP PROCEDURE d.p", `SELECT 2 - (SELECT COUNT(*) FROM information_schema.routines WHERE routine_schema = 'd')
			- (SELECT COUNT(*) FROM mysql.procs_priv WHERE db = 'd' AND routine_name = 'p' AND user = 'g')`},
		{"create user", "CREATE USER u@'%'", "SELECT COUNT(*) FROM mysql.user WHERE user = 'u'"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := startServer(t, testConfig(t))
			writable(t, s, true)
			must(t, s, "CREATE DATABASE d")
			must(t, s, "CREATE TABLE d.t (a INT PRIMARY KEY)")
			must(t, s, "INSERT INTO d.t VALUES (1)")
			must(t, s, "CREATE USER g")
			must(t, s, "CREATE PROCEDURE d.p() SELECT 1")
			must(t, s, "GRANT EXECUTE ON PROCEDURE d.p TO g")
			before := executed(t, s)
			must(t, s, "SET GLOBAL rpl_semi_sync_source_enabled = ON")
			background(t, s, tc.query)
			eventually(t, "the commit waits", func() bool { return waiting(t, s) == 1 })
			if got := executed(t, s); got != before {
				t.Errorf("an unconfirmed GTID shows: %s, before %s", got, before)
			}
			if err := s.Kill(); err != nil {
				t.Fatal(err)
			}
			start(t, s)
			if n := scan[int](t, s, tc.check); n != 0 {
				t.Error("the unconfirmed change is there")
			}
			if n := scan[int](t, s, "SELECT COUNT(*) FROM d.t WHERE a = 1"); n != 1 {
				t.Error("the confirmed row is gone")
			}
			if got := executed(t, s); got != before {
				t.Errorf("gtid_executed = %s, want %s", got, before)
			}
		})
	}
}

func TestReadOnlyWaitsForTheTail(t *testing.T) {
	t.Parallel()
	s := startServer(t, testConfig(t))
	writable(t, s, true)
	must(t, s, "CREATE DATABASE d")
	must(t, s, "SET GLOBAL rpl_semi_sync_source_enabled = ON")
	background(t, s, "CREATE TABLE d.t (a INT)")
	eventually(t, "the commit waits", func() bool { return waiting(t, s) == 1 })
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := s.SetReadOnly(ctx, true); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("super_read_only did not wait: %v", err)
	}
	if on, err := s.ReadOnly(bounded(t)); err != nil || on {
		t.Errorf("read only %v, %v while a commit waits", on, err)
	}
}

func TestFlushMovesTheEnginesLogToDisk(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.Options = map[string]string{"innodb_flush_log_at_timeout": "2700"} // no sync behind our back
	s := startServer(t, cfg)
	writable(t, s, true)
	must(t, s, "CREATE DATABASE d")
	must(t, s, "CREATE TABLE d.t (a INT)")
	must(t, s, "INSERT INTO d.t VALUES (1)")
	if err := s.SetReadOnly(bounded(t), true); err != nil {
		t.Fatal(err)
	}
	must(t, s, "SET GLOBAL innodb_monitor_enable = 'log_lsn%'")
	const lsn = "SELECT count FROM information_schema.innodb_metrics WHERE name = ?"
	before := scan[uint64](t, s, lsn, "log_lsn_current")
	want := executed(t, s)
	set, err := s.Flush(bounded(t))
	if err != nil || set != want {
		t.Fatalf("%s, %v, want %s", set, err, want)
	}
	if got := scan[uint64](t, s, lsn, "log_lsn_last_flush"); got < before {
		t.Errorf("flushed to %d, written before the flush: %d", got, before)
	}
}

func TestAgentAccountComesBackByItself(t *testing.T) {
	t.Parallel()
	s := startServer(t, testConfig(t))
	writable(t, s, true)
	must(t, s, "DROP USER 'phxsql_agent'@'localhost'")
	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	before := s.secret
	start(t, s)
	if err := s.Ping(bounded(t)); err != nil || s.secret != before {
		t.Fatal(err)
	}
	if err := s.Shutdown(bounded(t)); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(s.cfg.path(secretName)); err != nil {
		t.Fatal(err)
	}
	again, err := Open(s.cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close() //nolint:errcheck // the test is over
	start(t, again)
}

func TestCrashIsNoticedAndBacksOff(t *testing.T) {
	t.Parallel()
	s := startServer(t, testConfig(t))
	exited, pid := s.Exited(), s.PID()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	select {
	case <-exited:
	case <-time.After(deadline):
		t.Fatal("the end was not noticed")
	}
	if e, ok := s.LastExit(); !ok || e.Wanted || e.Reason != "signal: killed" {
		t.Errorf("exit %+v, %v", e, ok)
	}
	eventually(t, "the crash counts", func() bool { return s.Crashes().Count == 1 })
	start(t, s) // the first one has no pause
	s.mu.Lock()
	s.crashes.Count = 10 // so that the pause outlasts this test
	s.mu.Unlock()
	if err := syscall.Kill(s.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the next crash counts", func() bool { return s.Crashes().Count == 11 })
	var loop *CrashLoopError
	if err := s.Start(bounded(t)); !errors.As(err, &loop) || loop.Count != 11 || loop.Reason == "" {
		t.Errorf("no pause in a crash loop: %v", err)
	}
	if err := s.Kill(); err != nil {
		t.Error(err)
	}
}

func TestKilledServerIsNoCrash(t *testing.T) {
	t.Parallel()
	s := startServer(t, testConfig(t))
	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	if e, ok := s.LastExit(); !ok || !e.Wanted || s.Running() || s.PID() != 0 {
		t.Errorf("exit %+v, %v", e, ok)
	}
	if n := s.Crashes().Count; n != 0 {
		t.Errorf("%d crashes", n)
	}
}

func TestFailedStartSaysWhy(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.Options = map[string]string{"no_such_option": "1"}
	s := openServer(t, cfg)
	err := s.Start(bounded(t))
	if err == nil || !strings.Contains(err.Error(), "unknown variable 'no_such_option=1'") {
		t.Fatal(err)
	}
}

func TestTakenSocketIsRefused(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	s := openServer(t, cfg)
	l, err := net.Listen("unix", s.Socket())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(bounded(t)); !errors.Is(err, ErrSocketTaken) {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	// What a dead server leaves is no obstacle, though its pid is in use.
	if err := os.WriteFile(s.Socket()+".lock", fmt.Appendf(nil, "%d\n", os.Getpid()), 0o600); err != nil {
		t.Fatal(err)
	}
	start(t, s)
}

// supervise is the helper process of the tests below: it starts the server of
// dir, says so, and waits to be killed.
func supervise(dir string) {
	cfg, err := helperConfig(dir)
	if err == nil {
		var s *Server
		if s, err = Open(cfg); err == nil {
			if err = s.Start(context.Background()); err == nil {
				fmt.Println("started", s.PID())
				select {}
			}
		}
	}
	fmt.Println("failed", err)
	os.Exit(1)
}

// startHelper runs another process that supervises the server of cfg.
func startHelper(t *testing.T, cfg Config) (helper *exec.Cmd, pid int) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "PHXSQL_TEST_SUPERVISE="+cfg.Dir, "PHXSQL_ENGINE="+cfg.Install.Server)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if _, serr := fmt.Sscanf(line, "started %d", &pid); serr != nil {
		t.Fatalf("helper said %q, %v", line, err)
	}
	return cmd, pid
}

func TestServerDiesWithItsSupervisor(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	if err := openServer(t, cfg).Close(); err != nil {
		t.Fatal(err)
	}
	helper, pid := startHelper(t, cfg)
	if !cfg.isOurs(pid) {
		t.Fatalf("pid %d is not told to be our server", pid)
	}
	if err := helper.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = helper.Wait()
	eventually(t, "the server is gone", func() bool { return !cfg.isOurs(pid) })
}

func TestOrphanIsKilledBeforeTheStart(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	s := openServer(t, cfg)
	if err := s.beforeStart(bounded(t)); err != nil {
		t.Fatal(err)
	}
	// A server that nobody supervises, as if the death signal had failed.
	orphan := s.cfg.Install.Command(context.Background(), "mysqld", "--defaults-file="+s.cfg.path(cnfName))
	if err := orphan.Start(); err != nil {
		t.Fatal(err)
	}
	reaped := make(chan struct{})
	go func() {
		defer close(reaped)
		_ = orphan.Wait()
	}()
	eventually(t, "the orphan answers", func() bool { return s.Ping(bounded(t)) == nil })
	start(t, s)
	select {
	case <-reaped:
	case <-time.After(deadline):
		t.Fatal("the orphan lives")
	}
	if s.PID() == orphan.Process.Pid {
		t.Error("the orphan was adopted")
	}
}
