package config

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/phxsql/phxsql/internal/identity"
	"github.com/phxsql/phxsql/paxos"
)

// Config is the configuration of one node.
type Config struct {
	Node      Node      `toml:"node"`
	Listen    Addresses `toml:"listen"`
	Advertise Advertise `toml:"advertise"`
	Cluster   Cluster   `toml:"cluster"`
	Engine    Engine    `toml:"engine"`
	Consensus Consensus `toml:"consensus"`
	Health    Health    `toml:"health"`
	// The next three may be set for all members at once: see SharedKeys.
	Log        Log        `toml:"log"`
	Copy       Copy       `toml:"copy"`
	Flow       Flow       `toml:"flow"`
	Proxy      Proxy      `toml:"proxy"`
	Switchover Switchover `toml:"switchover"`
	Audit      Audit      `toml:"audit"`
	Logging    Logging    `toml:"logging"`
}

// Audit configures the comparison of the rows of all members.
type Audit struct {
	Enabled bool `toml:"enabled"`
	// Interval is the time between two passes over all tables, counted from the end of
	// one, or from when the node became the master.
	Interval Duration `toml:"interval"`
	// Rate is how many rows each member reads in a second, at most.
	Rate int `toml:"rate"`
	// ProveRate is the same while new data are compared with the master's before they are
	// read. It holds on the master.
	ProveRate int `toml:"prove_rate"`
}

// Node says who the node is and where it keeps its data.
type Node struct {
	// ID is the node's number in the cluster. It has no default.
	ID paxos.NodeID `toml:"id"`
	// Name is for people; empty is "node" and the id.
	Name string `toml:"name"`
	// DataDir holds the log, the engine's data and the node's own secrets.
	DataDir string `toml:"data_dir"`
}

// Addresses are the node's four ports, each host:port.
type Addresses struct {
	RW    string `toml:"rw"`    // MySQL clients; leads to the master
	RO    string `toml:"ro"`    // MySQL clients; leads to the local mysqld
	Peer  string `toml:"peer"`  // the other members
	Admin string `toml:"admin"` // the admin API
}

// Advertise says how others reach the node, where that differs from Listen.
type Advertise struct {
	// Host replaces the host of a listen address that has none or a wildcard.
	// Empty is the machine's host name.
	Host string `toml:"host"`
	// The addresses replace a whole address, for port forwarding.
	RW    string `toml:"rw"`
	RO    string `toml:"ro"`
	Peer  string `toml:"peer"`
	Admin string `toml:"admin"`
}

// Cluster is what all members share.
type Cluster struct {
	// SecretFile holds the secret that proves membership.
	SecretFile string `toml:"secret_file"`
	// CertificateLifetime is how long the certificates live that the node issues to
	// itself. Each is renewed after two thirds of that.
	CertificateLifetime Duration `toml:"certificate_lifetime"`
}

// Engine configures the node's mysqld.
type Engine struct {
	// Basedir is an engine's installation; empty looks on PATH, then in the
	// folder of fetched engines.
	Basedir string `toml:"basedir"`
	// BufferPoolSize is InnoDB's buffer pool.
	BufferPoolSize Size `toml:"buffer_pool_size"`
	// PerformanceSchema costs about 300 MB of memory.
	PerformanceSchema bool `toml:"performance_schema"`
	// MaxConnections limits the sessions of the mysqld.
	MaxConnections int `toml:"max_connections"`
	// StrictFlush has the engine sync its own files at every commit as well.
	// The log is what makes a commit durable, with or without it.
	StrictFlush bool `toml:"strict_flush"`
	// Options are further lines of the option file's [mysqld] section. Names
	// are written with underscores. An empty value is an option without one.
	Options map[string]string `toml:"options"`
}

// Consensus are the timings of the consensus. All members must agree on the heartbeat
// and the clock error.
type Consensus struct {
	// Lease is how long a leader may answer after it last heard a majority; the
	// time without a master after a crash is a little more than that.
	Lease Duration `toml:"lease"`
	// Heartbeat is how often the leader renews the lease.
	Heartbeat Duration `toml:"heartbeat"`
	// ClockError bounds by how much the rate of two members' clocks may differ,
	// as a fraction.
	ClockError float64 `toml:"clock_error"`
}

// Copy limits what giving other members a copy of the data costs.
type Copy struct {
	// Rate is the most bytes per second that this node gives. It gives less, down to a
	// sixteenth, while commits on the master take longer than without the copy.
	Rate Size `toml:"rate"`
	// ReplayRate is how many bytes of the log a new member is believed to execute in a
	// second, before it has shown: from that it is told whether a copy is shorter.
	ReplayRate Size `toml:"replay_rate"`
}

// Health limits what a node puts up with of its disks and its server before it leaves
// the master's role to another member.
type Health struct {
	// StallLimit is for how long the disks of the log and of the data, and an idle
	// server, may not answer.
	StallLimit Duration `toml:"stall_limit"`
	// MinFree is how much must be free on these disks.
	MinFree Size `toml:"min_free"`
}

// Log limits the replicated log on the node's disk.
type Log struct {
	// Keep is how much of the log is kept even if no member needs it any more.
	Keep Size `toml:"keep"`
	// Limit is how much is kept for members that are behind. What is above goes
	// once a majority has it in its engines; who needed it gets a copy of the data.
	Limit Size `toml:"limit"`
}

// Proxy limits the client ports.
type Proxy struct {
	// MaxConnections limits the clients of each of the two ports. One more gets
	// MySQL's error 1040.
	MaxConnections int `toml:"max_connections"`
	// ConnectTimeout is how long a new client waits for a master before it gets
	// an error.
	ConnectTimeout Duration `toml:"connect_timeout"`
}

// Switchover limits planned changes of the master.
type Switchover struct {
	// Limit is how long one may take; then it is taken back.
	Limit Duration `toml:"limit"`
	// Drain is how long transactions that are open when it begins may go on; then
	// their sessions are cut.
	Drain Duration `toml:"drain"`
}

// Flow keeps the followers close to the master.
type Flow struct {
	// MaxLag is how far the best follower that could be the next master may be behind
	// before the master's commits are held up; 0 is without a limit.
	MaxLag Duration `toml:"max_lag"`
}

// Logging configures the node's own log, written to standard error.
type Logging struct {
	Level  string `toml:"level"`  // debug, info, warn, error
	Format string `toml:"format"` // text, json
}

// Default returns the configuration of an empty file. It lacks Node.ID, which
// every file must give.
func Default() Config {
	return Config{
		Node:    Node{DataDir: "/var/lib/phxsql"},
		Listen:  Addresses{RW: ":3306", RO: ":3307", Peer: ":3308", Admin: ":3309"},
		Cluster: Cluster{SecretFile: "/etc/phxsql/cluster.secret", CertificateLifetime: Duration(identity.CertificateLifetime)},
		Engine: Engine{
			BufferPoolSize: 128 << 20,
			MaxConnections: 2000,
			Options:        map[string]string{},
		},
		Consensus: Consensus{
			Lease:      Duration(900 * time.Millisecond),
			Heartbeat:  Duration(100 * time.Millisecond),
			ClockError: 0.01,
		},
		Health:     Health{StallLimit: Duration(3 * time.Second), MinFree: 64 << 20},
		Log:        Log{Keep: 256 << 20, Limit: 8 << 30},
		Copy:       Copy{Rate: 100 << 20, ReplayRate: 8 << 20},
		Flow:       Flow{MaxLag: Duration(5 * time.Second)},
		Proxy:      Proxy{MaxConnections: 4000, ConnectTimeout: Duration(10 * time.Second)},
		Switchover: Switchover{Limit: Duration(15 * time.Second), Drain: Duration(2 * time.Second)},
		Audit:      Audit{Enabled: true, Interval: Duration(time.Hour), Rate: 5000, ProveRate: 50000},
		Logging:    Logging{Level: "info", Format: "text"},
	}
}

// Load reads the file and makes its relative paths relative to the folder that
// it is in. It returns Faults if the content is wrong.
func Load(path string) (Config, error) {
	data, err := readLimited(path)
	if err != nil {
		return Config{}, fmt.Errorf("read configuration: %w", err)
	}
	c, err := Parse(data)
	if err != nil {
		return Config{}, fmt.Errorf("check configuration %s: %w", path, err)
	}
	dir, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return Config{}, fmt.Errorf("resolve configuration path: %w", err)
	}
	for _, p := range []*string{&c.Node.DataDir, &c.Cluster.SecretFile, &c.Engine.Basedir} {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
	return c, nil
}

// maxFile limits the size of a configuration file.
const maxFile = 1 << 20

func readLimited(path string) ([]byte, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if fi.Size() > maxFile {
		return nil, fmt.Errorf("%s has %d bytes, the limit is %d", path, fi.Size(), maxFile)
	}
	return os.ReadFile(path)
}

// DisplayName is the node's name, or "node" and its id.
func (c *Config) DisplayName() string {
	if c.Node.Name != "" {
		return c.Node.Name
	}
	return fmt.Sprintf("node%d", c.Node.ID)
}

// SocketPath is the Unix socket of the node's mysqld.
func (c *Config) SocketPath() string {
	return filepath.Join(c.Node.DataDir, "mysqld", "mysqld.sock")
}

// Advertised returns the addresses that others use. The host name of the machine
// is asked for only where it is needed.
func (c *Config) Advertised() (Addresses, error) {
	var err error
	host := c.Advertise.Host
	pick := func(listen, whole string) string {
		if whole != "" {
			return whole
		}
		h, port, ok := splitAddr(listen)
		if !ok || !isWildcard(h) {
			return listen
		}
		if host == "" && err == nil {
			host, err = os.Hostname()
		}
		return joinAddr(host, port)
	}
	a := Addresses{
		RW:    pick(c.Listen.RW, c.Advertise.RW),
		RO:    pick(c.Listen.RO, c.Advertise.RO),
		Peer:  pick(c.Listen.Peer, c.Advertise.Peer),
		Admin: pick(c.Listen.Admin, c.Advertise.Admin),
	}
	if err != nil {
		return Addresses{}, fmt.Errorf("ask for the machine's host name: %w", err)
	}
	return a, nil
}
