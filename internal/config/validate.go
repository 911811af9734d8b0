package config

import (
	"fmt"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/phxsql/phxsql/internal/identity"
	"github.com/phxsql/phxsql/internal/mysqld"
	"github.com/phxsql/phxsql/paxos"
)

// MaxNodeID is the largest id of a node.
const MaxNodeID paxos.NodeID = 1 << 20

// The limits of consensus.lease. Above the longest a failover takes longer than any
// client waits.
const (
	MinLease = 100 * time.Millisecond
	MaxLease = time.Minute
	// LeaseBeats is how many heartbeats there are in a lease, at least.
	LeaseBeats = 3
)

// maxSocketPath is the longest path of a Unix socket on Linux, without the NUL.
const maxSocketPath = 107

var nameForm = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9._-]{0,62}$`)

// checker collects faults, at most one a key, and none for a key that could not
// even be read.
type checker struct {
	faults Faults
	bad    map[string]bool
}

func (k *checker) add(ok bool, key, reason, hint string) {
	if ok || k.bad[key] {
		return
	}
	k.faults = append(k.faults, Fault{key, reason, hint})
}

// check returns what is wrong with the values themselves. Keys in bad have a
// fault already.
func (c *Config) check(bad map[string]bool) Faults {
	k := &checker{bad: bad}
	c.checkNode(k)
	c.checkAddresses(k)
	c.checkEngine(k)
	c.checkConsensus(k)
	k.add(c.Cluster.SecretFile != "", "cluster.secret_file", "must not be empty", "make one with 'phxsql secret create'")
	k.between("cluster.certificate_lifetime", c.Cluster.CertificateLifetime, identity.MinCertificateLifetime, identity.MaxCertificateLifetime)
	k.add(c.Copy.ReplayRate >= 1<<10, "copy.replay_rate", fmt.Sprintf("is %v, must be at least 1KiB", c.Copy.ReplayRate), "")
	c.checkShared(k)
	k.oneOf("logging.level", c.Logging.Level, "debug", "info", "warn", "error")
	k.oneOf("logging.format", c.Logging.Format, "text", "json")
	return k.faults
}

// checkShared checks what may be set for all members at once.
func (c *Config) checkShared(k *checker) {
	c.checkAudit(k)
	k.add(c.Copy.Rate >= 1<<20, "copy.rate", fmt.Sprintf("is %v, must be at least 1MiB", c.Copy.Rate), "")
	s := c.Consensus
	k.between("consensus.lease", s.Lease, MinLease, MaxLease)
	if !k.bad["consensus.heartbeat"] {
		k.add(s.Lease >= LeaseBeats*s.Heartbeat, "consensus.lease",
			fmt.Sprintf("is %v, less than three heartbeats of %v", s.Lease, s.Heartbeat), "one lost message must not end a lease")
	}
	k.add(c.Log.Keep >= 1<<20, "log.keep", fmt.Sprintf("is %v, must be at least 1MiB", c.Log.Keep), "")
	k.add(c.Log.Limit >= 2*c.Log.Keep, "log.limit", fmt.Sprintf("is %v, less than twice log.keep (%v)", c.Log.Limit, c.Log.Keep), "")
	k.add(c.Proxy.MaxConnections >= 1, "proxy.max_connections", "must be at least 1", "")
	k.between("proxy.connect_timeout", c.Proxy.ConnectTimeout, 100*time.Millisecond, time.Hour)
	k.add(c.Flow.MaxLag == 0 || c.Flow.MaxLag.D() >= 2*time.Second && c.Flow.MaxLag.D() <= 10*time.Minute, "flow.max_lag",
		fmt.Sprintf("is %v, must be between 2s and 10m, or 0s for no limit", c.Flow.MaxLag), "")
	k.between("switchover.limit", c.Switchover.Limit, time.Second, 10*time.Minute)
	if !k.bad["switchover.limit"] {
		k.between("switchover.drain", c.Switchover.Drain, 0, c.Switchover.Limit.D()/2)
	}
}

func (k *checker) between(key string, d Duration, low, high time.Duration) {
	k.add(d.D() >= low && d.D() <= high, key, fmt.Sprintf("is %v, must be between %v and %v", d, low, high), "")
}

func (k *checker) oneOf(key, v string, all ...string) {
	k.add(slices.Contains(all, v), key, fmt.Sprintf("is %q, must be one of %s", v, strings.Join(all, ", ")), "")
}

func (c *Config) checkNode(k *checker) {
	id := c.Node.ID
	k.add(id != 0, "node.id", "missing", "give each node of the cluster its own small number, such as id = 1")
	k.add(id <= MaxNodeID, "node.id", fmt.Sprintf("is %d, must be at most %d", id, MaxNodeID), "")
	k.add(c.Node.Name == "" || nameForm.MatchString(c.Node.Name), "node.name",
		fmt.Sprintf("is %q, must start with a letter and have at most 63 letters, digits, dots, dashes, underscores", c.Node.Name), "")
	k.add(c.Node.DataDir != "", "node.data_dir", "must not be empty", "")
	k.add(!strings.ContainsAny(c.Node.DataDir, "\"'\\\n\r"), "node.data_dir",
		fmt.Sprintf("is %q, must not hold quotes, backslashes or line breaks", c.Node.DataDir), "")
	sock := c.SocketPath()
	k.add(len(sock) <= maxSocketPath, "node.data_dir",
		fmt.Sprintf("makes the path of mysqld's socket %d bytes long, the limit is %d", len(sock), maxSocketPath), "use a shorter path")
}

func (c *Config) checkAddresses(k *checker) {
	var seen []namedAddress
	for _, a := range c.Listen.named("listen.") {
		why := addressFault(a.addr)
		k.add(why == "", a.key, why, "write host:port, or :port for all interfaces")
		if why != "" {
			continue
		}
		for _, b := range seen {
			k.add(!collide(a.addr, b.addr), a.key, fmt.Sprintf("is %q, which collides with %s", a.addr, b.key), "give each of the four its own port")
		}
		seen = append(seen, a)
	}
	for _, a := range (Addresses{c.Advertise.RW, c.Advertise.RO, c.Advertise.Peer, c.Advertise.Admin}).named("advertise.") {
		if a.addr == "" {
			continue
		}
		why := addressFault(a.addr)
		if h, _, _ := splitAddr(a.addr); why == "" && isWildcard(h) {
			why = fmt.Sprintf("is %q, which others cannot connect to", a.addr)
		}
		k.add(why == "", a.key, why, "write host:port as others reach it")
	}
	h := c.Advertise.Host
	k.add(!strings.ContainsAny(h, " /") && (!strings.Contains(h, ":") || net.ParseIP(h) != nil), "advertise.host", fmt.Sprintf("%q is not a host", h), "write a host name or an IP address without a port")
}

type namedAddress struct{ key, addr string }

func (a Addresses) named(prefix string) []namedAddress {
	return []namedAddress{{prefix + "rw", a.RW}, {prefix + "ro", a.RO}, {prefix + "peer", a.Peer}, {prefix + "admin", a.Admin}}
}

// collide reports that one machine cannot listen on both addresses.
func collide(a, b string) bool {
	ha, pa, _ := splitAddr(a)
	hb, pb, _ := splitAddr(b)
	return pa == pb && pa != "0" && (ha == hb || isWildcard(ha) || isWildcard(hb))
}

func addressFault(a string) string {
	host, port, ok := splitAddr(a)
	if !ok || strings.ContainsAny(host, " /") {
		return fmt.Sprintf("%q is not an address", a)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Sprintf("%q has no port between 0 and 65535", a)
	}
	return ""
}

func (c *Config) checkConsensus(k *checker) {
	s := c.Consensus
	k.between("consensus.heartbeat", s.Heartbeat, 10*time.Millisecond, 10*time.Second)
	k.add(s.ClockError >= 0 && s.ClockError <= 0.1, "consensus.clock_error",
		fmt.Sprintf("is %v, must be between 0 and 0.1", s.ClockError), "0.01 is one percent")
	k.between("health.stall_limit", c.Health.StallLimit, time.Second, time.Minute)
	k.add(c.Health.MinFree >= 0 && c.Health.MinFree <= 1<<40, "health.min_free", fmt.Sprintf("is %v, must be between 0 and 1TiB", c.Health.MinFree), "")
}

func (c *Config) checkAudit(k *checker) {
	k.between("audit.interval", c.Audit.Interval, time.Second, 365*24*time.Hour)
	for key, rate := range map[string]int{"audit.rate": c.Audit.Rate, "audit.prove_rate": c.Audit.ProveRate} {
		k.add(rate >= 100 && rate <= 10_000_000, key, fmt.Sprintf("is %d, must be between 100 and 10000000", rate), "")
	}
}

func (c *Config) checkEngine(k *checker) {
	e := c.Engine
	k.add(e.BufferPoolSize >= 5<<20, "engine.buffer_pool_size", fmt.Sprintf("is %v, must be at least 5MiB", e.BufferPoolSize), "")
	k.add(e.MaxConnections >= 10 && e.MaxConnections <= 100000, "engine.max_connections",
		fmt.Sprintf("is %d, must be between 10 and 100000", e.MaxConnections), "")
	for name, v := range e.Options {
		key := "engine.options." + name
		why, hint := optionFault(name, v)
		k.add(why == "", key, why, hint)
	}
}

// optionFault says why an option may not be set. Package mysqld knows those that
// safety depends on.
func optionFault(name, value string) (why, hint string) {
	if key, ok := ownKeys[name]; ok {
		return "has a key of its own", "set " + key
	}
	if err := mysqld.CheckOption(name, value); err != nil {
		return splitHint(strings.TrimPrefix(err.Error(), "set option "+name+": "))
	}
	return "", ""
}

// splitHint takes a hint in parentheses off the end of an error's text.
func splitHint(text string) (why, hint string) {
	why, hint, ok := strings.Cut(text, " (hint: ")
	if !ok {
		return text, ""
	}
	return why, strings.TrimSuffix(hint, ")")
}

// ownKeys are options that a key of the configuration sets.
var ownKeys = map[string]string{
	"basedir":                        "engine.basedir",
	"innodb_buffer_pool_size":        "engine.buffer_pool_size",
	"performance_schema":             "engine.performance_schema",
	"max_connections":                "engine.max_connections",
	"sync_binlog":                    "engine.strict_flush",
	"innodb_flush_log_at_trx_commit": "engine.strict_flush",
}
