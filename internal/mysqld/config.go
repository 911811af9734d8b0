package mysqld

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/phxsql/phxsql/internal/engine"
)

// Config describes one server. Install, Dir and ServerID must be given.
type Config struct {
	Install engine.Install
	// Dir is the server's folder. It is made when it is absent.
	Dir string
	// ServerID must differ between the members of a cluster.
	ServerID uint32
	// BufferPool is the size of InnoDB's buffer pool in bytes; zero means 128 MiB.
	BufferPool int64
	// MaxConnections limits the sessions; zero means 2000.
	MaxConnections int
	// PerformanceSchema costs about 300 MB of memory.
	PerformanceSchema bool
	// StrictFlush makes InnoDB sync its log at every commit. The cluster's log
	// makes commits durable with or without it.
	StrictFlush bool
	// Options are further options of the server. Those that safety depends on
	// are refused.
	Options map[string]string
	// KeepBinlog, if not nil, is called before each start with the newest binary log,
	// which is removed afterwards. It must return at once.
	KeepBinlog func(file string) error
	// StartTimeout bounds a start, with all crash recovery; zero means 10 minutes.
	StartTimeout time.Duration
	// Logger may be nil.
	Logger *slog.Logger
}

const (
	defaultBufferPool     = 128 << 20
	defaultMaxConnections = 2000
	defaultStartTimeout   = 10 * time.Minute
	// agentConnections is what the server allows beyond MaxConnections, so
	// that the agent gets in when clients fill the server.
	agentConnections = 10
	// maxSocketPath is what fits into sun_path with its final zero byte.
	maxSocketPath = 107
)

func (c Config) withDefaults() Config {
	if c.BufferPool == 0 {
		c.BufferPool = defaultBufferPool
	}
	if c.MaxConnections == 0 {
		c.MaxConnections = defaultMaxConnections
	}
	if c.StartTimeout == 0 {
		c.StartTimeout = defaultStartTimeout
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// check reports every fault at once.
func (c Config) check() error {
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.Install.Server == "" {
		fault("configure mysqld: no engine is given")
	}
	if c.ServerID == 0 {
		fault("configure mysqld: the server id must not be 0")
	}
	if strings.ContainsAny(c.Dir, "\"'\\\n\r") {
		fault("configure mysqld: the folder's name %q holds a quote, backslash or line break (hint: choose another data directory)", c.Dir)
	}
	if p := filepath.Join(c.Dir, socketName); len(p) > maxSocketPath {
		fault("configure mysqld: the socket's path %s has %d bytes, the system's limit is %d (hint: choose a data directory with a shorter path)",
			p, len(p), maxSocketPath)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Options)) {
		if err := CheckOption(name, c.Options[name]); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

var optionForm = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_-]*$`)

// ownOptions are what the restart recipe and the agent depend on, and what
// fields of Config set. An option file can give each of them in several
// spellings; CheckOption compares the canonical one.
var ownOptions = makeSet(`
	admin_address admin_port bind_address basedir chroot
	binlog_checksum binlog_format binlog_gtid_simple_recovery binlog_order_commits
	binlog_do_db binlog_ignore_db binlog_error_action binlog_encryption
	daemonize datadir defaults_file defaults_extra_file disabled_storage_engines
	enforce_gtid_consistency gtid_mode init_file initialize initialize_insecure
	innodb_buffer_pool_size innodb_flush_log_at_trx_commit innodb_force_recovery innodb_read_only
	log_bin log_bin_index log_bin_basename log_replica_updates log_slave_updates log_error
	max_connections mysqlx mysqlx_port mysqlx_socket mysqlx_bind_address
	networking no_defaults offline_mode partial_revokes performance_schema persisted_globals_load
	persist_only_admin_x509_subject persist_sensitive_variables_in_plaintext
	pid_file plugin_dir plugin_load port read_only
	relay_log relay_log_index relay_log_basename relay_log_recovery relay_log_purge
	replica_parallel_workers replica_preserve_commit_order replica_skip_errors slave_skip_errors
	replicate_do_db replicate_do_table replicate_ignore_db replicate_ignore_table
	replicate_rewrite_db replicate_same_server_id replicate_wild_do_table replicate_wild_ignore_table
	replica_start slave_start secure_file_priv server_id server_uuid grant_tables
	socket sql_log_bin super_read_only sync_binlog tc_heuristic_recover upgrade user
`)

// initOptions of the user must already hold when the data directory is made.
var initOptions = makeSet("lower_case_table_names innodb_page_size innodb_data_file_path")

func makeSet(words string) map[string]bool {
	set := map[string]bool{}
	for _, w := range strings.Fields(words) {
		set[w] = true
	}
	return set
}

// canonical folds the spellings that mysqld accepts for one option: dashes,
// letter case, and the prefixes that switch an option or soften its errors.
func canonical(name string) string {
	name = strings.ReplaceAll(strings.ToLower(name), "-", "_")
	for {
		rest := name
		for _, p := range []string{"loose_", "skip_", "disable_", "enable_", "maximum_"} {
			rest = strings.TrimPrefix(rest, p)
		}
		if rest == name {
			return name
		}
		name = rest
	}
}

// CheckOption says why a user may not set an option of the server; nil when
// there is nothing against it.
func CheckOption(name, value string) error {
	switch base := canonical(name); {
	case !optionForm.MatchString(name):
		return fmt.Errorf("set option %q: not the name of an option", name)
	case ownOptions[base], strings.HasPrefix(base, "rpl_semi_sync"):
		return fmt.Errorf("set option %s: the cluster's safety depends on it (hint: remove it)", name)
	case isAmbiguous(base):
		return fmt.Errorf("set option %s: the server would read it as the beginning of another option (hint: write the full name)", name)
	case strings.ContainsAny(value, "\n\r\x00"):
		return fmt.Errorf("set option %s: the value must be one line", name)
	}
	return nil
}

// isAmbiguous reports whether name is a proper beginning of an own option:
// mysqld accepts unambiguous beginnings of option names.
func isAmbiguous(name string) bool {
	for own := range ownOptions {
		if len(name) < len(own) && strings.HasPrefix(own, name) {
			return true
		}
	}
	return strings.HasPrefix("rpl_semi_sync", name)
}
