package mysqld

import (
	"context"
	"database/sql"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/phxsql/phxsql/internal/engine"
)

// deadline bounds every wait of these tests.
const deadline = 3 * time.Minute

var template struct {
	once    sync.Once
	dir     string
	install engine.Install
	err     error
}

// TestMain removes the template that tests copy. When the binary is run as the
// helper of a test, it is that helper instead.
func TestMain(m *testing.M) {
	if dir := os.Getenv("PHXSQL_TEST_SUPERVISE"); dir != "" {
		supervise(dir)
		return
	}
	code := m.Run()
	if template.dir != "" {
		_ = os.RemoveAll(template.dir)
	}
	os.Exit(code)
}

// testConfig is that of a small server in a fresh folder.
func testConfig(t *testing.T) Config {
	t.Helper()
	in := realEngine(t)
	return Config{
		Install: in, Dir: t.TempDir(), ServerID: 7,
		BufferPool: 32 << 20, MaxConnections: 50, Logger: slog.New(slog.DiscardHandler),
		StartTimeout: deadline,
	}
}

// realEngine finds or fetches an engine and initialises one data directory for
// all tests to copy.
func realEngine(t *testing.T) engine.Install {
	t.Helper()
	template.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
		defer cancel()
		template.install, template.err = engine.Ensure(ctx, engine.Options{})
		if template.err != nil {
			return
		}
		template.dir, template.err = os.MkdirTemp("", "phxsql-mysqld-")
		if template.err != nil {
			return
		}
		s, err := Open(Config{Install: template.install, Dir: template.dir, ServerID: 1, BufferPool: 32 << 20})
		if err != nil {
			template.err = err
			return
		}
		template.err = s.Initialize(ctx, false)
		_ = s.Close()
	})
	if template.err != nil {
		t.Fatal(template.err)
	}
	return template.install
}

// openServer opens a server over a copy of the initialised data directory.
func openServer(t *testing.T, cfg Config) *Server {
	t.Helper()
	if err := os.CopyFS(filepath.Join(cfg.Dir, dataName), os.DirFS(filepath.Join(template.dir, dataName))); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(cfg.Dir, dataName, "auto.cnf")); err != nil && !os.IsNotExist(err) {
		t.Fatal(err) // each server has a UUID of its own
	}
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func startServer(t *testing.T, cfg Config) *Server {
	t.Helper()
	s := openServer(t, cfg)
	start(t, s)
	return s
}

func start(t *testing.T, s *Server) {
	t.Helper()
	if err := s.Start(bounded(t)); err != nil {
		t.Fatal(err)
	}
}

func bounded(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	t.Cleanup(cancel)
	return ctx
}

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	if !waitUntil(bounded(t), cond) {
		t.Fatalf("not within %v: %s", deadline, what)
	}
}

func must(t *testing.T, s *Server, query string, args ...any) {
	t.Helper()
	if _, err := s.db.ExecContext(bounded(t), query, args...); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

// scan reads one value.
func scan[T any](t *testing.T, s *Server, query string, args ...any) T {
	t.Helper()
	var v T
	if err := s.db.QueryRowContext(bounded(t), query, args...).Scan(&v); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return v
}

func executed(t *testing.T, s *Server) string {
	t.Helper()
	set, err := s.GTIDExecuted(bounded(t))
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// writable opens the server for writes; with ack, commits do not wait.
func writable(t *testing.T, s *Server, ack bool) {
	t.Helper()
	if ack {
		must(t, s, "SET GLOBAL rpl_semi_sync_source_enabled = OFF")
	}
	if err := s.SetReadOnly(bounded(t), false); err != nil {
		t.Fatal(err)
	}
}

// waiting counts the sessions that wait for an acknowledgement.
func waiting(t *testing.T, s *Server) int64 {
	t.Helper()
	st, err := s.SemiSync(bounded(t))
	if err != nil {
		t.Fatal(err)
	}
	return st.Waiting
}

// background runs a statement that will wait in its commit. Its end does not
// matter.
func background(t *testing.T, s *Server, query string) {
	t.Helper()
	db := sql.OpenDB(mustConnector(t, s))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = db.ExecContext(ctx, query)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		_ = db.Close()
	})
}

// helperConfig is testConfig in a helper process, over a folder that exists.
func helperConfig(dir string) (Config, error) {
	in, err := engine.Find(context.Background(), engine.Options{})
	return Config{Install: in, Dir: dir, ServerID: 7, BufferPool: 32 << 20, StartTimeout: deadline}, err
}
