package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	_ "github.com/go-sql-driver/mysql"

	"github.com/phxsql/phxsql/internal/drill"
	"github.com/phxsql/phxsql/internal/engine"
)

// system is something that sysbench runs against.
type system interface {
	name() string
	address() (host, port, user, password string)
	// drain waits until every follower has applied everything.
	drain(ctx context.Context) error
	close()
}

const startLimit = 2 * time.Minute

func start(ctx context.Context, name, dir string, in engine.Install) (system, error) {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	switch name {
	case "phxsql":
		return startPhxSQL(ctx, name, dir, "")
	case "unbounded": // the same without flow control
		return startPhxSQL(ctx, name, dir, "[flow]\nmax_lag = \"0s\"\n")
	case "standalone":
		return startServers(ctx, name, dir, in, 1)
	case "semisync":
		return startServers(ctx, name, dir, in, 3)
	}
	return nil, fmt.Errorf("unknown system %q", name)
}

// phxsql is a cluster of three nodes.
type phxsql struct {
	label  string
	c      *drill.Cluster
	master *drill.Node
}

func startPhxSQL(ctx context.Context, label, dir, extra string) (system, error) {
	program := filepath.Join(dir, "phxsql")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", program, "github.com/phxsql/phxsql/cmd/phxsql").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build phxsql: %w: %s", err, out)
	}
	c, err := drill.New(drill.Options{Dir: filepath.Join(dir, "nodes"), Program: program, Nodes: 3, Extra: extra})
	if err != nil {
		return nil, err
	}
	s := &phxsql{label: label, c: c}
	if err := c.Start(ctx); err != nil {
		s.close()
		return nil, err
	}
	if err := c.Exec(ctx, "CREATE DATABASE sbtest"); err != nil {
		s.close()
		return nil, err
	}
	if s.master, err = c.Master(ctx); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *phxsql) name() string { return s.label }
func (s *phxsql) close()       { s.c.Close() }

func (s *phxsql) address() (host, port, user, password string) {
	host, port, _ = net.SplitHostPort(s.master.RW)
	return host, port, s.c.User, s.c.Password
}

func (s *phxsql) drain(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	if err := s.c.WaitHealthy(ctx); err != nil {
		return err
	}
	m, err := s.c.Master(ctx)
	if err == nil {
		s.master = m
	}
	return err
}

// servers is a plain MySQL server, or a source with its semi-sync replicas.
type servers struct {
	label string
	ports []int
	cmds  []*exec.Cmd
	dbs   []*sql.DB
}

const account, secret = "bench", "bench"

// common are the settings that all peers share with a PhxSQL node.
const common = `innodb_buffer_pool_size=64M
performance_schema=OFF
gtid_mode=ON
enforce_gtid_consistency=ON
log_bin=binlog
binlog_row_image=MINIMAL
max_connections=2000
mysqlx=OFF
secure_file_priv=NULL
sync_binlog=1
innodb_flush_log_at_trx_commit=1
`

func startServers(ctx context.Context, label, dir string, in engine.Install, n int) (system, error) {
	s := &servers{label: label}
	for i := range n {
		if err := s.start(ctx, filepath.Join(dir, strconv.Itoa(i+1)), in, i); err != nil {
			s.close()
			return nil, err
		}
	}
	if n > 1 {
		if err := s.replicate(ctx); err != nil {
			s.close()
			return nil, err
		}
	}
	_, err := s.dbs[0].ExecContext(ctx, "CREATE DATABASE sbtest")
	return s, errors.Join(err, s.drain(ctx))
}

func (s *servers) start(ctx context.Context, dir string, in engine.Install, i int) error {
	data := filepath.Join(dir, "data")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	init := filepath.Join(dir, "init.sql")
	text := fmt.Sprintf("SET sql_log_bin=0; CREATE USER '%s'@'%%' IDENTIFIED BY '%s'; GRANT ALL ON *.* TO '%s'@'%%';", account, secret, account)
	if err := os.WriteFile(init, []byte(text), 0o600); err != nil {
		return err
	}
	user := "--user=root"
	if out, err := in.Command(ctx, "mysqld", "--no-defaults", user, "--initialize-insecure", "--datadir="+data, "--init-file="+init).CombinedOutput(); err != nil {
		return fmt.Errorf("initialise server: %w: %s", err, tail(out))
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	conf := common + fmt.Sprintf("server_id=%d\nport=%d\nbind_address=127.0.0.1\nsocket=%s\ndatadir=%s\n", i+1, port, filepath.Join(dir, "s"), data)
	if s.label == "semisync" {
		conf += "sync_relay_log=1\nreplica_parallel_workers=4\nlog_replica_updates=ON\n"
		if i == 0 {
			conf += "plugin_load_add=semisync_source.so\nrpl_semi_sync_source_enabled=ON\nrpl_semi_sync_source_timeout=18446744073709551615\nrpl_semi_sync_source_wait_point=AFTER_SYNC\n"
		} else {
			conf += "plugin_load_add=semisync_replica.so\nrpl_semi_sync_replica_enabled=ON\nsuper_read_only=ON\nskip_replica_start=ON\n"
		}
	}
	file := filepath.Join(dir, "my.cnf")
	if err := os.WriteFile(file, []byte("[mysqld]\n"+conf), 0o600); err != nil {
		return err
	}
	cmd := in.Command(context.WithoutCancel(ctx), "mysqld", "--defaults-file="+file, user)
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return err
	}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return err
	}
	s.cmds, s.ports = append(s.cmds, cmd), append(s.ports, port)
	db, err := sql.Open("mysql", fmt.Sprintf("%s:%s@tcp(127.0.0.1:%d)/", account, secret, port))
	if err != nil {
		return err
	}
	s.dbs = append(s.dbs, db)
	if err := drill.Eventually(ctx, func() error { return db.PingContext(ctx) }); err != nil {
		said, _ := os.ReadFile(log.Name())
		return fmt.Errorf("start server: %w: %s", err, tail(said))
	}
	return nil
}

func (s *servers) replicate(ctx context.Context) error {
	for _, db := range s.dbs[1:] {
		for _, q := range []string{
			fmt.Sprintf("CHANGE REPLICATION SOURCE TO SOURCE_HOST='127.0.0.1', SOURCE_PORT=%d, SOURCE_USER='%s', SOURCE_PASSWORD='%s', SOURCE_AUTO_POSITION=1, GET_SOURCE_PUBLIC_KEY=1", s.ports[0], account, secret),
			"START REPLICA",
		} {
			if _, err := db.ExecContext(ctx, q); err != nil {
				return fmt.Errorf("start replica: %w", err)
			}
		}
	}
	return drill.Eventually(ctx, func() error {
		var name string
		var n int
		if err := s.dbs[0].QueryRowContext(ctx, "SHOW STATUS LIKE 'Rpl_semi_sync_source_clients'").Scan(&name, &n); err != nil {
			return err
		}
		if n != len(s.dbs)-1 {
			return fmt.Errorf("%d semi-sync replicas are connected", n)
		}
		return nil
	})
}

func (s *servers) name() string { return s.label }

func (s *servers) address() (host, port, user, password string) {
	return "127.0.0.1", strconv.Itoa(s.ports[0]), account, secret
}

func (s *servers) drain(ctx context.Context) error {
	var set string
	if err := s.dbs[0].QueryRowContext(ctx, "SELECT @@GLOBAL.gtid_executed").Scan(&set); err != nil {
		return err
	}
	for _, db := range s.dbs[1:] {
		var timedOut int
		if err := db.QueryRowContext(ctx, "SELECT WAIT_FOR_EXECUTED_GTID_SET(?, 120)", set).Scan(&timedOut); err != nil {
			return fmt.Errorf("wait for replica: %w", err)
		}
		if timedOut != 0 {
			return errors.New("wait for replica: it is more than two minutes behind")
		}
	}
	return nil
}

func (s *servers) close() {
	for _, db := range s.dbs {
		db.Close()
	}
	for _, c := range s.cmds {
		c.Process.Kill()
		c.Wait()
	}
}
