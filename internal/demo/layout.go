package demo

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/phxsql/phxsql/internal/config"
	"github.com/phxsql/phxsql/internal/identity"
	"github.com/phxsql/phxsql/paxos"
)

// The defaults and limits of a demo.
const (
	DefaultNodes    = 3
	DefaultBasePort = 6100
	MaxNodes        = 9
)

// Layout is where a demo lives and which ports it has. Node i has the ports
// BasePort + 10*i + 6 (read-write), 7 (read-only), 8 (peers) and 9 (admin).
type Layout struct {
	Dir      string `json:"-"`
	Nodes    int    `json:"nodes"`
	BasePort int    `json:"base_port"`
}

// Error is a refusal with a hint.
type Error struct{ Reason, Hint string }

func (e *Error) Error() string { return e.Reason }

// ErrorHint returns what to do next.
func (e *Error) ErrorHint() string { return e.Hint }

func (l Layout) path(name string) string { return filepath.Join(l.Dir, name) }

// ConfigPath is the configuration of a node.
func (l Layout) ConfigPath(i int) string { return l.path(fmt.Sprintf("node%d.toml", i)) }

// LogPath is the file that a node logs to.
func (l Layout) LogPath(i int) string { return l.path(fmt.Sprintf("node%d.log", i)) }

// PIDPath is the file with the process id of a node.
func (l Layout) PIDPath(i int) string { return l.path(fmt.Sprintf("node%d.pid", i)) }

// SecretPath is the cluster's secret.
func (l Layout) SecretPath() string { return l.path("cluster.secret") }

// ClientPath is the option file for MySQL clients.
func (l Layout) ClientPath() string { return l.path("client.cnf") }

// MySQLPath is the script that runs the mysql client.
func (l Layout) MySQLPath() string { return l.path("mysql") }

func (l Layout) statePath() string { return l.path("demo.json") }

// Addresses are the ports of a node.
func (l Layout) Addresses(i int) config.Addresses {
	at := func(last int) string {
		return net.JoinHostPort("127.0.0.1", strconv.Itoa(l.BasePort+10*i+last))
	}
	return config.Addresses{RW: at(6), RO: at(7), Peer: at(8), Admin: at(9)}
}

// RWPort is the read-write port of a node.
func (l Layout) RWPort(i int) int { return l.BasePort + 10*i + 6 }

// PID returns the process of a node as it was started last.
func (l Layout) PID(i int) (int, error) {
	b, err := os.ReadFile(l.PIDPath(i))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(b)))
}

func (l Layout) check() error {
	if l.Nodes < 1 || l.Nodes > MaxNodes {
		return &Error{fmt.Sprintf("%d nodes", l.Nodes), fmt.Sprintf("use 1 to %d; 3 is the smallest number that survives the loss of one", MaxNodes)}
	}
	if last := l.BasePort + 10*l.Nodes + 9; l.BasePort < 1024 || last > 65535 {
		return &Error{fmt.Sprintf("base port %d", l.BasePort), "use one from 1024 to 65000"}
	}
	return nil
}

// Open returns the layout of the demo in a folder: the one that is there, or a new
// one with so many nodes and that base port, of which 0 is the default. A demo
// that is there keeps what it has; asking it for anything else is refused.
func Open(dir string, nodes, basePort int) (Layout, error) {
	l, err := Load(dir)
	if errors.Is(err, fs.ErrNotExist) {
		l = Layout{Dir: l.Dir, Nodes: nodes, BasePort: basePort}
		if nodes == 0 {
			l.Nodes = DefaultNodes
		}
		if basePort == 0 {
			l.BasePort = DefaultBasePort
		}
		return l, l.check()
	}
	if err != nil {
		return l, err
	}
	if nodes != 0 && nodes != l.Nodes || basePort != 0 && basePort != l.BasePort {
		return l, &Error{fmt.Sprintf("the demo in %s has %d nodes and base port %d", dir, l.Nodes, l.BasePort),
			"start it without --nodes and --base-port, remove it with 'phxsql demo clean --dir " + dir + "', or use another --dir"}
	}
	return l, nil
}

// Load returns the layout of the demo in a folder; the error wraps fs.ErrNotExist
// if there is none.
func Load(dir string) (Layout, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return Layout{}, fmt.Errorf("resolve folder of the demo: %w", err)
	}
	l := Layout{Dir: abs}
	b, err := os.ReadFile(l.statePath())
	if err != nil {
		return l, fmt.Errorf("read demo: %w", err)
	}
	if err := json.Unmarshal(b, &l); err != nil {
		return l, fmt.Errorf("read demo %s: %w", l.statePath(), err)
	}
	return l, l.check()
}

// write makes the folder and what in it is not there yet.
func (l Layout) write() error {
	if err := os.MkdirAll(l.Dir, 0o700); err != nil {
		return fmt.Errorf("make folder of the demo: %w", err)
	}
	if _, err := os.Stat(l.statePath()); errors.Is(err, fs.ErrNotExist) {
		if err := l.mustBeEmpty(); err != nil {
			return err
		}
		b, err := json.Marshal(l)
		if err != nil {
			return fmt.Errorf("encode demo: %w", err)
		}
		if err := os.WriteFile(l.statePath(), append(b, '\n'), 0o600); err != nil {
			return fmt.Errorf("write demo: %w", err)
		}
	}
	if _, err := os.Stat(l.SecretPath()); errors.Is(err, fs.ErrNotExist) {
		if _, err := identity.CreateSecret(l.SecretPath()); err != nil {
			return err
		}
	}
	for i := 1; i <= l.Nodes; i++ {
		if err := l.writeConfig(i); err != nil {
			return err
		}
	}
	return nil
}

// mustBeEmpty refuses a folder with files of someone else. Our own lock is there
// already.
func (l Layout) mustBeEmpty() error {
	es, err := os.ReadDir(l.Dir)
	if err != nil {
		return fmt.Errorf("look into folder of the demo: %w", err)
	}
	for _, e := range es {
		if e.Name() != lockName {
			return &Error{fmt.Sprintf("%s is not empty and holds no demo", l.Dir), "use another --dir"}
		}
	}
	return nil
}

// writeConfig writes a node's configuration, unless a person has changed it
// since: one that is there stays.
func (l Layout) writeConfig(i int) error {
	path := l.ConfigPath(i)
	if _, err := os.Stat(path); err == nil {
		_, err = config.Load(path)
		return err
	}
	a := l.Addresses(i)
	text := fmt.Sprintf(`# Node %d of a demo. 'phxsql config sample' shows all keys.
[node]
id = %d
data_dir = "node%d"

[listen]
rw = %q
ro = %q
peer = %q
admin = %q

[cluster]
secret_file = "cluster.secret"

[engine]
buffer_pool_size = "64MiB"
`, i, i, i, a.RW, a.RO, a.Peer, a.Admin)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	_, err := config.Load(path)
	return err
}

// Config returns the configuration of a node.
func (l Layout) Config(i int) (config.Config, error) { return config.Load(l.ConfigPath(i)) }

// checkMachine reports everything that keeps the nodes from starting, but ports.
func (l Layout) checkMachine() error {
	var all config.Faults
	for i := 1; i <= l.Nodes; i++ {
		c, err := l.Config(i)
		if err != nil {
			return err
		}
		var fs config.Faults
		if err := c.CheckFiles(); errors.As(err, &fs) {
			for _, f := range fs {
				f.Key = fmt.Sprintf("node%d: %s", i, f.Key)
				all = append(all, f)
			}
		}
	}
	if len(all) > 0 {
		return all
	}
	return nil
}

// checkPorts reports which ports of the nodes are taken, and by whom, in one error.
func (l Layout) checkPorts() error {
	var whose []string
	ports := map[string][]string{} // by holder
	for i := 1; i <= l.Nodes; i++ {
		a := l.listens(i)
		for _, addr := range []string{a.RW, a.RO, a.Peer, a.Admin} {
			why, _ := config.PortFault(addr)
			if why == "" {
				continue
			}
			_, port, err := net.SplitHostPort(addr)
			if err != nil {
				return fmt.Errorf("check ports of node %d: %w", i, err)
			}
			who := config.PortHolder(port)
			if who == "" {
				who = "another process"
			}
			if ports[who] == nil {
				whose = append(whose, who)
			}
			ports[who] = append(ports[who], port)
		}
	}
	if len(whose) == 0 {
		return nil
	}
	var parts []string
	for _, who := range whose {
		parts = append(parts, who+" has "+strings.Join(ports[who], ", "))
	}
	return &Error{"the demo's ports are not free: " + strings.Join(parts, "; "),
		"stop that, or give this demo another --base-port (and another --dir, if it is a second one)"}
}

// listens are the ports of a node: those in its configuration, or those that it
// will get.
func (l Layout) listens(i int) config.Addresses {
	if c, err := l.Config(i); err == nil {
		return c.Listen
	}
	return l.Addresses(i)
}

// IDs are the nodes' ids, ascending.
func (l Layout) IDs() []paxos.NodeID {
	var ids []paxos.NodeID
	for i := 1; i <= l.Nodes; i++ {
		ids = append(ids, paxos.NodeID(i))
	}
	return ids
}
