package drill

import (
	"bytes"
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	mysql "github.com/go-sql-driver/mysql"

	"github.com/phxsql/phxsql/internal/api"
	"github.com/phxsql/phxsql/internal/host"
	"github.com/phxsql/phxsql/internal/identity"
	"github.com/phxsql/phxsql/internal/netlab"
)

// pollEvery is how often a condition of the cluster is looked at.
const pollEvery = 25 * time.Millisecond

// Options say what cluster to run.
type Options struct {
	Dir     string // everything the cluster writes
	Program string // the phxsql binary
	Nodes   int
	// Namespaces gives every node a network of its own (needs root), so that
	// it can be cut off from its peers while its clients still reach it.
	Namespaces bool
	// Disks puts every node's data on a disk of its own that can lose power, fill up
	// and hang (needs root and /dev/fuse).
	Disks bool
	// Clocks gives every node a clock of its own that can be made wrong.
	Clocks bool
	// LogPipes puts a pipe before every node's log, whose reader can stand still.
	LogPipes bool
	// Extra is added to every node's configuration, TOML.
	Extra string
	// Say gets a line about what happens.
	Say func(format string, args ...any)
}

// Cluster is a running cluster. Its methods are for one goroutine.
type Cluster struct {
	opt      Options
	Nodes    []*Node
	User     string
	Password string
	client   *api.Client
	net      *netlab.Lab
}

// New writes the nodes' configuration; nothing runs yet. The caller must Close.
func New(opt Options) (*Cluster, error) {
	c := &Cluster{opt: opt, User: "app", Password: rand.Text()}
	if opt.Say == nil {
		c.opt.Say = func(string, ...any) {}
	}
	if err := os.MkdirAll(opt.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make folder of cluster: %w", err)
	}
	secret, err := identity.CreateSecret(c.path("cluster.secret"))
	if err != nil {
		return nil, err
	}
	if opt.Namespaces {
		if c.net, err = netlab.New(opt.Nodes); err != nil {
			return nil, err
		}
	}
	var admin []string
	for i := 1; i <= opt.Nodes; i++ {
		n, err := c.newNode(i, "cluster.secret")
		if err != nil {
			c.Close()
			return nil, err
		}
		c.Nodes = append(c.Nodes, n)
		admin = append(admin, n.Admin)
	}
	if err := c.mountDisks(); err != nil {
		c.Close()
		return nil, err
	}
	cred, err := secret.Credentials(1)
	if err != nil {
		c.Close()
		return nil, err
	}
	c.client = api.NewClient(admin, api.ClientTLS(cred))
	for _, n := range c.Nodes {
		n.client = api.NewClient([]string{n.Admin}, api.ClientTLS(cred))
	}
	return c, nil
}

func (c *Cluster) path(name string) string { return filepath.Join(c.opt.Dir, name) }

// newNode chooses a node's addresses and writes its configuration. Certificates live so
// short that every run which takes longer meets their renewal.
func (c *Cluster) newNode(i int, secret string) (*Node, error) {
	n := &Node{ID: i, cluster: c, config: c.path(fmt.Sprintf("node%d.toml", i)), dir: c.path(fmt.Sprintf("node%d", i))}
	client, peer := netlab.Loopback(), netlab.Loopback()
	ports := []int{3306, 3307, 3308, 3309}
	if c.net != nil {
		client, peer = c.net.ClientAddr(i), c.net.PeerAddr(i)
	} else {
		var err error
		if ports, err = netlab.FreePorts(client, 4); err != nil {
			return nil, err
		}
	}
	at := func(h string, p int) string { return net.JoinHostPort(h, strconv.Itoa(p)) }
	n.RW, n.RO, n.Peer, n.Admin = at(client, ports[0]), at(client, ports[1]), at(peer, ports[2]), at(client, ports[3])
	text := fmt.Sprintf("[node]\nid = %d\ndata_dir = %q\n[listen]\nrw = %q\nro = %q\npeer = %q\nadmin = %q\n[cluster]\nsecret_file = %q\ncertificate_lifetime = \"30s\"\n[engine]\nbuffer_pool_size = \"64MiB\"\n%s\n",
		i, n.dir, n.RW, n.RO, n.Peer, n.Admin, c.path(secret), c.opt.Extra)
	if c.opt.Clocks {
		if err := n.SetClock(host.Skew{}); err != nil {
			return nil, err
		}
	}
	return n, os.WriteFile(n.config, []byte(text), 0o600)
}

// Add makes a node beside the cluster, that has nothing but its configuration: not even
// the cluster's secret. Join brings it in. Not with Options.Namespaces.
func (c *Cluster) Add(id int) (*Node, error) {
	n, err := c.newNode(id, fmt.Sprintf("node%d.secret", id))
	if err != nil {
		return nil, err
	}
	secret, err := identity.LoadSecret(c.path("cluster.secret"))
	if err != nil {
		return nil, err
	}
	cred, err := secret.Credentials(1)
	if err != nil {
		return nil, err
	}
	n.client = api.NewClient([]string{n.Admin}, api.ClientTLS(cred))
	c.Nodes = append(c.Nodes, n)
	c.reconnect(cred)
	return n, nil
}

// Forget ends a node and leaves it out of everything that follows.
func (c *Cluster) Forget(n *Node) error {
	err := n.KillAll()
	n.client.Close()
	c.Nodes = slices.DeleteFunc(c.Nodes, func(o *Node) bool { return o == n })
	secret, serr := identity.LoadSecret(c.path("cluster.secret"))
	if serr != nil {
		return errors.Join(err, serr)
	}
	cred, serr := secret.Credentials(1)
	if serr != nil {
		return errors.Join(err, serr)
	}
	c.reconnect(cred)
	return errors.Join(err, os.Remove(n.config))
}

// reconnect makes the cluster's client ask the nodes that there are.
func (c *Cluster) reconnect(cred *identity.Credentials) {
	c.client.Close()
	var admin []string
	for _, n := range c.Nodes {
		admin = append(admin, n.Admin)
	}
	c.client = api.NewClient(admin, api.ClientTLS(cred))
}

// Start starts all nodes, makes them a cluster, and waits until they serve.
func (c *Cluster) Start(ctx context.Context) error {
	for _, n := range c.Nodes {
		if err := n.Start(); err != nil {
			return err
		}
	}
	if err := c.init(ctx); err != nil {
		return err
	}
	return c.WaitHealthy(ctx)
}

// init makes the cluster by the command that a user types.
func (c *Cluster) init(ctx context.Context) error {
	for _, n := range c.Nodes {
		if err := Eventually(ctx, func() error { _, err := n.client.Status(ctx); return err }); err != nil {
			return fmt.Errorf("wait for node %d to come up: %w\n%s", n.ID, err, n.LogTail())
		}
	}
	var members []string
	for _, n := range c.Nodes {
		members = append(members, fmt.Sprintf("%d=%s", n.ID, n.Peer))
	}
	cmd := exec.CommandContext(ctx, c.opt.Program, "init", "--config", c.Nodes[0].config, "--members", strings.Join(members, ","), "--user", c.User, "--password-stdin")
	cmd.Stdin = strings.NewReader(c.Password + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("make cluster: %w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

// Close kills what runs and removes the namespaces. The folder stays.
func (c *Cluster) Close() {
	c.mendDisks() // nothing that waits for a disk can be killed
	for _, n := range c.Nodes {
		n.KillAll()
		if n.client != nil {
			n.client.Close()
		}
	}
	if c.client != nil {
		c.client.Close()
	}
	if c.net != nil {
		c.net.Close()
	}
	if err := c.closeDisks(); err != nil {
		c.opt.Say("%v", err)
	}
}

// Run runs a phxsql command against the cluster and returns what it prints.
func (c *Cluster) Run(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, c.opt.Program, args...)
	cmd.Env = append(os.Environ(), "PHXSQL_CONFIG="+c.opt.Dir)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("run phxsql %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(errs.Bytes()))
	}
	return out.String(), nil
}

// Status asks any node for the status of the cluster.
func (c *Cluster) Status(ctx context.Context) (api.Status, error) { return c.client.Status(ctx) }

// Master returns the node that says of itself that it takes writes.
func (c *Cluster) Master(ctx context.Context) (*Node, error) {
	var found *Node
	err := Eventually(ctx, func() error {
		for _, n := range c.Nodes {
			if n.isMaster(ctx) {
				found = n
				return nil
			}
		}
		return errors.New("no node is master")
	})
	return found, err
}

// MasterBesides returns an error unless another node than this one is master.
func (c *Cluster) MasterBesides(ctx context.Context, old *Node) error {
	for _, n := range c.Nodes {
		if n != old && n.isMaster(ctx) {
			return nil
		}
	}
	return fmt.Errorf("no node but node %d is master", old.ID)
}

func (n *Node) isMaster(ctx context.Context) bool {
	if n.paused {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	m, err := n.self(ctx)
	return err == nil && m.Master
}

// WaitHealthy waits until there is a master and every running node is its
// follower with nothing left to apply.
func (c *Cluster) WaitHealthy(ctx context.Context) error { return c.waitFor(ctx, false) }

// WaitServing is WaitHealthy under load: the followers may have something left to apply.
func (c *Cluster) WaitServing(ctx context.Context) error { return c.waitFor(ctx, true) }

func (c *Cluster) waitFor(ctx context.Context, lagging bool) error {
	err := Eventually(ctx, func() error { return c.unhealthy(ctx, lagging) })
	if err == nil {
		return nil
	}
	text, _ := c.Run(context.WithoutCancel(ctx), "status")
	return fmt.Errorf("wait until the cluster is well: %w\n%s\n%s", err, text, c.logTails())
}

// unhealthy says what is not well, by each node's own word. Unless lagging is
// allowed, everybody must have applied what the master knows to be chosen.
func (c *Cluster) unhealthy(ctx context.Context, lagging bool) error {
	own := make([]api.MemberStatus, len(c.Nodes))
	var master *api.MemberStatus
	for i, n := range c.Nodes {
		m, err := n.self(ctx)
		switch {
		case err != nil:
			return err
		case m.Master && master != nil:
			return fmt.Errorf("nodes %d and %d are both master", master.ID, m.ID)
		case m.Master:
			master = &own[i]
		case m.State == api.StateWitness:
			m.Log.Applied = m.Log.Chosen // it has nothing to apply
		case m.State != api.StateFollower:
			return fmt.Errorf("node %d is %s: %v", n.ID, m.State, m.Problems)
		}
		own[i] = m
	}
	if master == nil {
		return errors.New("no node is master")
	}
	for _, m := range own {
		if m.Log.Applied < master.Log.Chosen && !lagging {
			return fmt.Errorf("node %d has applied instance %d of %d", m.ID, m.Log.Applied, master.Log.Chosen)
		}
	}
	return nil
}

// self is what the node says about itself.
func (n *Node) self(ctx context.Context) (api.MemberStatus, error) {
	if !n.Running() {
		return api.MemberStatus{}, fmt.Errorf("node %d does not run", n.ID)
	}
	st, err := n.client.Status(ctx)
	if err != nil {
		return api.MemberStatus{}, err
	}
	for _, m := range st.Members {
		if int(m.ID) == n.ID {
			return m, nil
		}
	}
	return api.MemberStatus{}, fmt.Errorf("node %d knows nothing of itself", n.ID)
}

// Namespaces reports that nodes can be cut off from each other.
func (c *Cluster) Namespaces() bool { return c.net != nil }

// Size is the number of nodes.
func (c *Cluster) Size() int { return len(c.Nodes) }

// Heal undoes all faults of processes and of the network.
func (c *Cluster) Heal() error {
	var errs []error
	for _, n := range c.Nodes {
		errs = append(errs, n.Heal())
	}
	if c.net != nil {
		errs = append(errs, c.net.Heal())
	}
	return errors.Join(errs...)
}

// DSN is the address of a port for go-sql-driver.
func (c *Cluster) DSN(addr, database string) string {
	cfg := mysql.NewConfig()
	cfg.User, cfg.Passwd, cfg.Net, cfg.Addr, cfg.DBName = c.User, c.Password, "tcp", addr, database
	cfg.AllowNativePasswords = true
	cfg.Timeout = 12 * time.Second
	return cfg.FormatDSN()
}

// Open returns a pool for a port. The driver keeps lost connections to itself:
// they are what drills are about.
func (c *Cluster) Open(addr, database string) (*sql.DB, error) {
	cfg, err := mysql.ParseDSN(c.DSN(addr, database))
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", addr, err)
	}
	cfg.Logger = &mysql.NopLogger{}
	conn, err := mysql.NewConnector(cfg)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", addr, err)
	}
	return sql.OpenDB(conn), nil
}

// Exec runs statements through the read-write port of the first running node.
func (c *Cluster) Exec(ctx context.Context, statements ...string) error {
	for _, n := range c.Nodes {
		if !n.Running() || n.paused {
			continue
		}
		db, err := c.Open(n.RW, "")
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
	return errors.New("execute: no node runs")
}

// Eventually calls f until it succeeds or the context ends, and returns its last
// error then.
func Eventually(ctx context.Context, f func() error) error {
	t := time.NewTicker(pollEvery)
	defer t.Stop()
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-t.C:
		}
	}
}

// discardLog closes a node's log file once.
func discardLog(c io.Closer) {
	if c != nil {
		c.Close()
	}
}
