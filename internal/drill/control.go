package drill

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
	"syscall"
	"time"

	mysql "github.com/go-sql-driver/mysql"

	"github.com/phxsql/phxsql/internal/engine"
	"github.com/phxsql/phxsql/internal/netlab"
)

// plain is one MySQL server as it comes, without PhxSQL: the control that shows what
// MySQL itself does under the same load.
type plain struct {
	dir  string
	addr string
	cmd  *exec.Cmd
	log  *os.File
}

// plainOptions are those of a node that matter to what clients see.
const plainOptions = `[mysqld]
innodb_buffer_pool_size=64M
performance_schema=OFF
mysqlx=OFF
gtid_mode=ON
enforce_gtid_consistency=ON
log_bin=binlog
secure_file_priv=NULL
server_id=1
`

// startPlain starts a server in an empty folder.
func startPlain(ctx context.Context, dir string, in engine.Install) (*plain, error) {
	ports, err := netlab.FreePorts(netlab.Loopback(), 1)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make folder of server: %w", err)
	}
	p := &plain{dir: dir, addr: net.JoinHostPort(netlab.Loopback(), strconv.Itoa(ports[0]))}
	data, conf := filepath.Join(dir, "data"), filepath.Join(dir, "my.cnf")
	user := []string{}
	if os.Geteuid() == 0 {
		user = append(user, "--user=root")
	}
	init := append([]string{"--no-defaults", "--initialize-insecure", "--datadir=" + data}, user...)
	if out, err := in.Command(ctx, "mysqld", init...).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initialise server: %w: %s", err, out)
	}
	text := plainOptions + fmt.Sprintf("bind_address=%s\nport=%d\nsocket=%s\ndatadir=%s\n", netlab.Loopback(), ports[0], filepath.Join(dir, "s"), data)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		return nil, fmt.Errorf("configure server: %w", err)
	}
	if p.log, err = os.Create(filepath.Join(dir, "mysqld.log")); err != nil {
		return nil, fmt.Errorf("start server: %w", err)
	}
	p.cmd = in.Command(context.WithoutCancel(ctx), "mysqld", append([]string{"--defaults-file=" + conf}, user...)...)
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		p.log.Close()
		return nil, fmt.Errorf("start server: %w", err)
	}
	if err := Eventually(ctx, func() error { return p.Exec(ctx, "SELECT 1") }); err != nil {
		p.close()
		return nil, fmt.Errorf("start server: %w", err)
	}
	return p, nil
}

func (p *plain) close() {
	_ = p.cmd.Process.Kill() // it may have ended by itself
	_ = p.cmd.Wait()
	p.log.Close()
}

// Ports are three times the one port, for as many clients as a cluster has.
func (p *plain) Ports() []Ports {
	return []Ports{{1, p.addr, p.addr}, {2, p.addr, p.addr}, {3, p.addr, p.addr}}
}

// Open returns a pool for the port.
func (p *plain) Open(addr, database string) (*sql.DB, error) {
	cfg := mysql.NewConfig()
	cfg.User, cfg.Net, cfg.Addr, cfg.DBName = "root", "tcp", addr, database
	cfg.Logger = &mysql.NopLogger{}
	conn, err := mysql.NewConnector(cfg)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", addr, err)
	}
	return sql.OpenDB(conn), nil
}

// Exec runs statements.
func (p *plain) Exec(ctx context.Context, statements ...string) error {
	db, err := p.Open(p.addr, "")
	if err != nil {
		return err
	}
	defer db.Close()
	for _, s := range statements {
		if _, err := db.ExecContext(ctx, s); err != nil {
			return fmt.Errorf("execute %.60q: %w", s, err)
		}
	}
	return nil
}

// Control puts loads on one plain server for a time, without any fault, and judges
// them as a drill does. What it finds is MySQL's own.
func Control(ctx context.Context, dir string, kinds []LoadKind, lasting time.Duration) (fs []Finding, err error) {
	in, err := engine.Ensure(ctx, engine.Options{})
	if err != nil {
		return nil, err
	}
	begin, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	p, err := startPlain(begin, dir, in)
	if err != nil {
		return nil, err
	}
	defer p.close()
	rec, err := NewRecorder("")
	if err != nil {
		return nil, err
	}
	loads, err := startLoads(ctx, kinds, Site{Target: p, Rec: rec, Dir: dir})
	if err != nil {
		return nil, err
	}
	defer stopLoads(loads)
	wait(ctx, lasting)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	stopLoads(loads)
	for i, l := range loads {
		f, jerr := l.Judge(ctx)
		if jerr != nil {
			err = errors.Join(err, fmt.Errorf("judge workload %s: %w", kinds[i].Name, jerr))
		}
		fs = append(fs, f)
	}
	return fs, err
}
