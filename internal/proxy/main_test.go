package proxy

import (
	"context"
	"crypto/rsa"
	"crypto/x509"
	"database/sql"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/phxsql/phxsql/internal/engine"
)

// testLimit bounds every wait of these tests, on a busy machine.
const testLimit = 90 * time.Second

// startLimit bounds the making and the start of the real server.
const startLimit = 3 * time.Minute

func TestMain(m *testing.M) {
	code := m.Run()
	if mysqldErr == nil && mysqldReal != nil {
		mysqldReal.stop()
	}
	os.Exit(code)
}

// realServer is one mysqld on a Unix socket, shared by the tests of a run.
type realServer struct {
	install engine.Install
	dir     string
	socket  string
	process *exec.Cmd
}

var (
	mysqldOnce sync.Once
	mysqldReal *realServer
	mysqldErr  error
)

// realMysqld returns the shared mysqld. The test is skipped without an engine.
func realMysqld(tb testing.TB) *realServer {
	tb.Helper()
	if testing.Short() {
		tb.Skip("needs a real server")
	}
	mysqldOnce.Do(func() { mysqldReal, mysqldErr = startServer() })
	if errors.Is(mysqldErr, engine.ErrNotFound) {
		tb.Skip(mysqldErr)
	}
	if mysqldErr != nil {
		tb.Fatal(mysqldErr)
	}
	return mysqldReal
}

func startServer() (*realServer, error) {
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	in, err := engine.Find(ctx, engine.Options{})
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "proxy")
	if err != nil {
		return nil, err
	}
	s := &realServer{install: in, dir: dir, socket: filepath.Join(dir, "s.sock")}
	args := []string{"--no-defaults", "--datadir=" + filepath.Join(dir, "data"), "--socket=" + s.socket,
		"--skip-networking", "--mysqlx=OFF", "--secure-file-priv=NULL", "--performance-schema=OFF", "--innodb-buffer-pool-size=64M",
		"--innodb-flush-log-at-trx-commit=2", "--skip-log-bin", "--max-connections=3000", "--local-infile=ON",
		"--log-error=" + filepath.Join(dir, "error.log"), "--pid-file=" + filepath.Join(dir, "pid")}
	if os.Getuid() == 0 {
		args = append(args, "--user=root")
	}
	if out, err := in.Command(ctx, "mysqld", append(args, "--initialize-insecure")...).CombinedOutput(); err != nil {
		_ = os.RemoveAll(dir)
		return nil, fmt.Errorf("initialize: %w: %s", err, out)
	}
	s.process = in.Command(context.Background(), "mysqld", args...)
	s.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.process.Start(); err != nil {
		return nil, err
	}
	if err := s.prepare(ctx); err != nil {
		s.stop()
		return nil, err
	}
	return s, nil
}

func (s *realServer) stop() {
	_ = s.process.Process.Kill()
	_ = s.process.Wait()
	_ = os.RemoveAll(s.dir)
}

// prepare waits for the server and makes accounts: each has its name as its
// password.
func (s *realServer) prepare(ctx context.Context) error {
	db, err := sql.Open("mysql", "root@unix("+s.socket+")/?multiStatements=true")
	if err != nil {
		return err
	}
	defer db.Close()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for err = db.PingContext(ctx); err != nil; err = db.PingContext(ctx) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			log, _ := os.ReadFile(filepath.Join(s.dir, "error.log"))
			return fmt.Errorf("server does not start: %w; its log: %s", err, log)
		}
	}
	_, err = db.ExecContext(ctx, `
		CREATE DATABASE t; CREATE TABLE t.k (id BIGINT PRIMARY KEY AUTO_INCREMENT, v VARCHAR(200));
		INSERT INTO t.k (v) VALUES ('one'), ('two');
		CREATE USER sha2@localhost IDENTIFIED WITH caching_sha2_password BY 'sha2';
		CREATE USER old@localhost IDENTIFIED WITH sha256_password BY 'old';
		CREATE USER tls@localhost IDENTIFIED WITH caching_sha2_password BY 'tls' REQUIRE SSL;
		CREATE USER blank@localhost IDENTIFIED WITH caching_sha2_password BY '';
		GRANT ALL ON t.* TO sha2@localhost, old@localhost, tls@localhost, blank@localhost;
		GRANT PROCESS ON *.* TO sha2@localhost`)
	return err
}

// forget empties the server's password cache, so that the next login to an
// account of caching_sha2_password is a full one.
func (s *realServer) forget(tb testing.TB) { s.exec(tb, "FLUSH PRIVILEGES") }

func (s *realServer) exec(tb testing.TB, query string) {
	tb.Helper()
	db, err := sql.Open("mysql", "root@unix("+s.socket+")/")
	if err != nil {
		tb.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(query); err != nil {
		tb.Fatal(err)
	}
}

// key reads the server's RSA key.
func (s *realServer) key() (*rsa.PrivateKey, error) {
	b, err := os.ReadFile(filepath.Join(s.dir, "data", "private_key.pem"))
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, errors.New("no PEM")
	}
	if k, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
		return k, nil
	}
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	return k.(*rsa.PrivateKey), nil
}

// node is a proxy with its two ports.
type node struct {
	*Proxy
	rw, ro string
}

func testOptions(socket string) Options {
	return Options{Socket: socket, Secret: []byte("the members' secret"), Node: 1, HoldLimit: testLimit, LoginLimit: testLimit}
}

// startNode starts a proxy. It routes nowhere yet.
func startNode(tb testing.TB, opt Options) *node {
	tb.Helper()
	p, err := New(opt)
	if err != nil {
		tb.Fatal(err)
	}
	n := &node{Proxy: p}
	var done sync.WaitGroup
	for _, x := range []struct {
		addr  *string
		serve func(net.Listener) error
	}{{&n.rw, p.ServeRW}, {&n.ro, p.ServeRO}} {
		ln := listen(tb, "tcp", "127.0.0.1:0")
		*x.addr = ln.Addr().String()
		done.Go(func() { _ = x.serve(ln) })
	}
	tb.Cleanup(func() { _ = p.Close(); done.Wait() })
	return n
}

func listen(tb testing.TB, network, addr string) net.Listener {
	tb.Helper()
	ln, err := net.Listen(network, addr)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = ln.Close() })
	return ln
}

// masterNode is a proxy in front of the real server, which is the master.
func masterNode(tb testing.TB, change func(*Options)) (*node, *realServer) {
	tb.Helper()
	s := realMysqld(tb)
	opt := testOptions(s.socket)
	opt.Key = s.key
	if change != nil {
		change(&opt)
	}
	n := startNode(tb, opt)
	n.SetRoute(Local())
	n.SetLocal(true, "")
	return n, s
}

// openDB opens a pool; user is also the password.
func openDB(tb testing.TB, addr, user string, change func(*mysql.Config)) *sql.DB {
	tb.Helper()
	cfg := mysql.NewConfig()
	cfg.Net, cfg.Addr, cfg.User, cfg.Passwd, cfg.DBName = "tcp", addr, user, user, "t"
	cfg.Timeout = testLimit
	cfg.AllowNativePasswords = false
	cfg.Logger = &mysql.NopLogger{}
	if user == "blank" {
		cfg.Passwd = ""
	}
	if change != nil {
		change(cfg)
	}
	c, err := mysql.NewConnector(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	db := sql.OpenDB(c)
	tb.Cleanup(func() { _ = db.Close() })
	return db
}

// eventually waits until ok answers true.
func eventually(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	limit := time.After(testLimit)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			tb.Fatalf("waited too long: %s", what)
		}
	}
}
