package mysqld

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// Names in the server's folder; see the package comment.
const (
	lockName        = "lock"
	secretName      = "agent.secret"
	initCnfName     = "init.cnf"
	cnfName         = "my.cnf"
	accountsName    = "accounts.sql"
	errorLogName    = "error.log"
	loadName        = "load"
	pidName         = "mysqld.pid"
	socketName      = "mysqld.sock"
	dataName        = "data"
	dataNewName     = "data.new"
	dataCopyName    = "data.copy"    // what another server gives
	dataOldName     = "data.old"     // what was there before a copy took its place
	dataRefusedName = "data.refused" // new data that were not good, and are worth a look
	dataDropName    = "data.drop"    // what is being removed
	markerName      = "phxsql.json"  // in the data directory
	binlogName      = "binlog"       // base name of the binary logs
)

func (c Config) path(name string) string { return filepath.Join(c.Dir, name) }

// optionFile collects the lines of a [mysqld] section. Of two lines for one
// option the later one counts.
type optionFile struct{ b strings.Builder }

func (f *optionFile) comment(text string) { fmt.Fprintf(&f.b, "\n# %s\n", text) }

// set writes one option. The value is quoted, as '#' would begin a comment.
func (f *optionFile) set(name string, value any) {
	v := fmt.Sprint(value)
	if strings.ContainsAny(v, "#;\\'\" \t") {
		v = `"` + strings.ReplaceAll(v, `\`, `\\`) + `"`
	}
	fmt.Fprintf(&f.b, "%s=%s\n", name, v)
}

func (f *optionFile) flag(name string) { fmt.Fprintln(&f.b, name) }

func (f *optionFile) String() string {
	return "# Written by phxsql at every start. Changes are lost.\n[mysqld]\n" + f.b.String()
}

func onOff(b bool) string {
	if b {
		return "ON"
	}
	return "OFF"
}

// initOptionFile is the minimal file for making a data directory: the
// initialisation aborts on options of plugins, and must write no binary log.
func (c Config) initOptionFile() string {
	var f optionFile
	f.set("datadir", c.path(dataNewName))
	f.set("innodb_buffer_pool_size", c.BufferPool)
	f.set("log_error", c.path(errorLogName))
	f.flag("skip_log_bin")
	f.common()
	for _, name := range slices.Sorted(maps.Keys(c.Options)) {
		if initOptions[canonical(name)] {
			f.set(name, c.Options[name])
		}
	}
	return f.String()
}

func (f *optionFile) common() {
	f.set("mysqlx", "OFF")
	f.set("secure_file_priv", "NULL")
	if os.Geteuid() == 0 {
		f.set("user", "root") // else the server refuses to run as root
	}
}

// runOptionFile is the file of a running server: what users may change, the
// user's options, and last, so that it wins, what safety depends on.
func (c Config) runOptionFile() string {
	var f optionFile
	c.preferences(&f)
	f.comment("the user's options")
	for _, name := range slices.Sorted(maps.Keys(c.Options)) {
		if v := c.Options[name]; v == "" {
			f.flag(name)
		} else {
			f.set(name, v)
		}
	}
	c.identity(&f)
	c.replication(&f)
	return f.String()
}

func (c Config) preferences(f *optionFile) {
	f.comment("defaults")
	f.set("binlog_row_image", "MINIMAL")
	f.set("log_bin_trust_function_creators", "ON") // clients lack SUPER; row format is safe
	// The order of rows without a key differs between servers, and with it what
	// ALTER TABLE ... ADD ... AUTO_INCREMENT makes of them: every table gets a key.
	f.set("sql_generate_invisible_primary_key", "ON")
	f.set("local_infile", "ON")       // the only LOAD DATA there can be
	f.set("max_binlog_size", 256<<20) // a file goes when nobody needs it
	f.set("binlog_expire_logs_seconds", 600)
	f.set("replica_net_timeout", 10)
	f.set("innodb_buffer_pool_dump_at_shutdown", "OFF") // a short stop
	// With the default, O_DIRECT, InnoDB never syncs its doublewrite files: when the power
	// fails, a disk that caches writes may tear a page and its copy.
	f.set("innodb_flush_method", "fsync")
}

func (c Config) identity(f *optionFile) {
	f.comment("identity and resources")
	f.set("datadir", c.path(dataName))
	f.set("socket", c.path(socketName))
	f.set("pid_file", c.path(pidName))
	f.set("log_error", c.path(errorLogName))
	f.set("init_file", c.path(accountsName))
	f.set("server_id", c.ServerID)
	f.flag("skip_networking")
	f.flag("skip_name_resolve")
	f.set("max_connections", c.MaxConnections+agentConnections)
	f.set("innodb_buffer_pool_size", c.BufferPool)
	f.set("performance_schema", onOff(c.PerformanceSchema))
	f.common()
	f.set("partial_revokes", "ON")         // clients keep off the schema mysql
	f.set("persisted_globals_load", "OFF") // SET PERSIST must not undo this file
}

// maxWorkers is where more workers wait for the order of commits only.
const maxWorkers = 16

// applierWorkers is one per core. While all workers are busy, the coordinator spins
// (sched_yield in the logical clock's scheduler): more of them than cores costs more
// than it gains.
func applierWorkers() int { return min(max(2, runtime.NumCPU()), maxWorkers) }

func (c Config) replication(f *optionFile) {
	f.comment("replication: the restart recipe depends on every line")
	f.set("gtid_mode", "ON")
	f.set("enforce_gtid_consistency", "ON")
	f.set("log_bin", binlogName)
	f.set("binlog_format", "ROW")
	f.set("binlog_checksum", "CRC32")
	f.set("binlog_order_commits", "ON")
	f.set("log_replica_updates", "OFF") // the applier must not wait for an ACK
	f.set("replicate_same_server_id", 1)
	f.flag("skip_replica_start")
	f.set("relay_log", "relay")
	f.set("replica_load_tmpdir", c.path(loadName))
	f.set("relay_log_recovery", "ON")
	f.set("replica_parallel_workers", applierWorkers())
	f.set("replica_preserve_commit_order", "ON")
	f.set("super_read_only", "ON")
	f.set("event_scheduler", "OFF") // on a master it is switched on
	// Changes of other engines cannot be undone.
	f.set("disabled_storage_engines", "MyISAM,MERGE,ARCHIVE,BLACKHOLE,CSV,FEDERATED,MEMORY")
	f.set("plugin_load_add", "semisync_source.so")
	f.set("plugin_load_add", "mysql_clone.so")
	f.set("rpl_semi_sync_source", "FORCE_PLUS_PERMANENT") // no UNINSTALL PLUGIN
	f.set("rpl_semi_sync_source_enabled", "ON")
	f.set("rpl_semi_sync_source_timeout", "18446744073709551615")
	f.set("rpl_semi_sync_source_wait_point", "AFTER_SYNC")
	f.set("rpl_semi_sync_source_wait_no_replica", "ON")
	f.set("rpl_semi_sync_source_wait_for_replica_count", 1)
	f.set("sync_binlog", 0) // no start ever reads an old binary log
	flush := 2
	if c.StrictFlush {
		flush = 1
	}
	f.set("innodb_flush_log_at_trx_commit", flush)
}
