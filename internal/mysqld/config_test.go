package mysqld

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/phxsql/phxsql/internal/engine"
)

func TestCheckOption(t *testing.T) {
	for name, allowed := range map[string]bool{
		"sql_mode": true, "innodb-io-capacity": true, "log_error_verbosity": true, "relay_log_space_limit": true,
		"log_bin_trust_function_creators": true, "binlog_row_image": true, "local_infile": true, "character_set_server": true,
		"super_read_only": false, "super-read-only": false, "SUPER_READ_ONLY": false, "loose_super_read_only": false,
		"loose-skip-log-bin": false, "skip_log_bin": false, "disable_log_bin": false, "log_bin": false,
		"rpl_semi_sync_source_timeout": false, "loose-rpl_semi_sync_source_enabled": false, "rpl": false,
		"super_read": false, "log_replica": false, "networking": false, "skip_networking": false, "skip_grant_tables": false,
		"sync_binlog": false, "persisted_globals_load": false, "port": false, "innodb_force_recovery": false,
		"has space": false, "x=1\ny": false, "": false,
	} {
		if err := CheckOption(name, "1"); (err == nil) != allowed {
			t.Errorf("%q: %v", name, err)
		}
	}
	if CheckOption("sql_mode", "ANSI\nsuper_read_only=OFF") == nil {
		t.Error("a value of two lines is allowed")
	}
}

func TestConfigReportsEveryFault(t *testing.T) {
	c := Config{Dir: "/" + strings.Repeat("long/", 30) + "dir", Options: map[string]string{"port": "1", "socket": "x"}}
	err := c.check()
	if err == nil {
		t.Fatal("no fault found")
	}
	for _, want := range []string{"no engine", "server id", "the system's limit is 107", "option port", "option socket"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
}

func TestUserOptionsCannotWin(t *testing.T) {
	c := Config{Dir: "/node #1", ServerID: 3, Options: map[string]string{
		"sql_mode": "ANSI", "skip_show_database": "", "event_scheduler": "ON", "lower_case_table_names": "1",
	}}.withDefaults()
	text := c.runOptionFile()
	for _, want := range []string{"\nsql_mode=ANSI\n", "\nskip_show_database\n", "\ndatadir=\"/node #1/data\"\n", "\nserver_id=3\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	if strings.LastIndex(text, "event_scheduler=OFF") < strings.Index(text, "event_scheduler=ON") {
		t.Error("a user's option wins over the fixed one")
	}
	init := c.initOptionFile()
	if !strings.Contains(init, "lower_case_table_names=1") || strings.Contains(init, "rpl_semi_sync") || strings.Contains(init, "sql_mode") {
		t.Errorf("option file of the initialisation:\n%s", init)
	}
}

func TestResetBinlog(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"binlog.000009": "old", "binlog.000010": "old", "binlog.index": "./binlog.000010\n", "binlog.~rec~": "x", "ibdata1": "keep",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "binlog.d"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := resetBinlog(dir, "9.7.4", 5, time.Now()); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if diff := cmp.Diff([]string{"binlog.000011", "binlog.d", "binlog.index", "ibdata1"}, names); diff != "" {
		t.Error(diff)
	}
	index, _ := os.ReadFile(filepath.Join(dir, "binlog.index"))
	file, _ := os.ReadFile(filepath.Join(dir, "binlog.000011"))
	if string(index) != "./binlog.000011\n" || len(file) != 158 || !bytes.HasPrefix(file, []byte("\xfebin")) {
		t.Errorf("index %q, file of %d bytes", index, len(file))
	}
	if id := binary.LittleEndian.Uint32(file[9:]); id != 5 {
		t.Errorf("server id %d", id)
	}
}

func TestCrashPauses(t *testing.T) {
	now := time.Unix(1000, 0)
	var c Crashes
	var pauses []time.Duration
	for range 9 {
		c = c.add(now, time.Second, "r")
		pauses = append(pauses, c.Wait(now))
	}
	ms := time.Millisecond
	want := []time.Duration{0, 500 * ms, 1000 * ms, 2000 * ms, 4000 * ms, 8000 * ms, 16000 * ms, maxPause, maxPause}
	if diff := cmp.Diff(want, pauses); diff != "" {
		t.Error(diff)
	}
	if c = c.add(now, healthyRun, "r"); c.Count != 1 || c.Wait(now) != 0 {
		t.Errorf("after a healthy run: %+v", c)
	}
	for range 1000 {
		c = c.add(now, 0, "r")
	}
	if c.Wait(now) != maxPause {
		t.Errorf("pause %v", c.Wait(now))
	}
}

func TestPickErrors(t *testing.T) {
	text := "a [System] start\nb [ERROR] one\nc [Warning] x\nd [ERROR] two\ne [System] end\n"
	if got := pickErrors(text); got != "b [ERROR] one | d [ERROR] two" {
		t.Error(got)
	}
	if got := pickErrors("x\n\ny\n"); got != "x | y" {
		t.Error(got)
	}
	if got := pickErrors(""); got == "" {
		t.Error("an empty reason")
	}
}

func TestUnsupportedEngineIsNotOpened(t *testing.T) {
	if _, err := Open(Config{Dir: t.TempDir(), ServerID: 1, Install: engine.Install{}}); err == nil {
		t.Error("opened without an engine")
	}
}

// TestLeftoversOfReplicationAreRemoved: a server killed while it tried its folder
// for loads left a file in a shared one, and its applier never started again.
func TestLeftoversOfReplicationAreRemoved(t *testing.T) {
	c := Config{Dir: t.TempDir(), ServerID: 3}.withDefaults()
	dir := c.path(loadName)
	if err := os.Mkdir(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "SQL_LOAD-of-an-earlier-life"), nil, 0o640); err != nil {
		t.Fatal(err)
	}
	if err := emptyDir(dir); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 0 {
		t.Fatalf("left %v, %v", left, err)
	}
	if !strings.Contains(c.runOptionFile(), "\nreplica_load_tmpdir=\""+dir) && !strings.Contains(c.runOptionFile(), "\nreplica_load_tmpdir="+dir) {
		t.Fatal("the server loads elsewhere")
	}
}
