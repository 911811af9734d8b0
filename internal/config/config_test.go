package config

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestSampleEqualsDefaults(t *testing.T) {
	got, err := Parse([]byte(Sample))
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Node.ID = 1 // the one key without a default
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("sample differs from defaults (-default +sample):\n%s", d)
	}
}

func TestSampleHasEveryKey(t *testing.T) {
	for _, key := range allKeys() {
		short := key[strings.LastIndex(key, ".")+1:]
		if !strings.Contains(Sample, "\n"+short+" = ") && !strings.Contains(Sample, "\n["+key+"]") {
			t.Errorf("key %s is not in the sample", key)
		}
	}
}

func TestGoodFiles(t *testing.T) {
	files, err := filepath.Glob("testdata/good/*.toml")
	if err != nil || len(files) == 0 {
		t.Fatal("no good files", err)
	}
	for _, f := range files {
		if _, err := Load(f); err != nil {
			t.Errorf("%s: %v", f, err)
		}
	}
}

// Every bad file has beside it all that is said of it.
func TestBadFiles(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.toml")
	if err != nil || len(files) == 0 {
		t.Fatal("no bad files", err)
	}
	for _, f := range files {
		_, err := Load(f)
		if err == nil {
			t.Errorf("%s: accepted", f)
			continue
		}
		golden := strings.TrimSuffix(f, ".toml") + ".golden"
		got := err.Error() + "\n"
		if *update {
			if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(string(want), got); d != "" {
			t.Errorf("%s (-want +got):\n%s", f, d)
		}
	}
}

func TestLoadFull(t *testing.T) {
	c, err := Load("testdata/good/full.toml")
	if err != nil {
		t.Fatal(err)
	}
	here, err := filepath.Abs("testdata/good")
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		Node:      Node{ID: 2, Name: "shanghai-b", DataDir: filepath.Join(here, "data")},
		Listen:    Addresses{RW: "127.0.0.1:6126", RO: "127.0.0.1:6127", Peer: "127.0.0.2:6126", Admin: "[::1]:6129"},
		Advertise: Advertise{Host: "db2.example.com", Peer: "203.0.113.2:16126"},
		Cluster:   Cluster{SecretFile: filepath.Join(filepath.Dir(here), "cluster.secret"), CertificateLifetime: Duration(48 * time.Hour)},
		Engine: Engine{
			Basedir: "/opt/mysql", BufferPoolSize: 2 << 30, PerformanceSchema: true, MaxConnections: 500, StrictFlush: true,
			Options: map[string]string{
				"innodb_io_capacity": "2000", "long_query_time": "0.5", "slow_query_log": "ON",
				"sql_mode": "ANSI,TRADITIONAL", "binlog_row_image": "FULL",
			},
		},
		Consensus:  Consensus{Lease: Duration(2 * time.Second), Heartbeat: Duration(250 * time.Millisecond)},
		Health:     Health{StallLimit: Duration(5 * time.Second), MinFree: 1 << 30},
		Log:        Log{Keep: 16 << 20, Limit: 1 << 30},
		Copy:       Copy{Rate: 20 << 20, ReplayRate: 3 << 20},
		Flow:       Flow{MaxLag: Duration(8 * time.Second)},
		Proxy:      Proxy{MaxConnections: 100, ConnectTimeout: Duration(90 * time.Second)},
		Switchover: Switchover{Limit: Duration(20 * time.Second), Drain: Duration(5 * time.Second)},
		Audit:      Audit{Interval: Duration(30 * time.Minute), Rate: 700, ProveRate: 7000},
		Logging:    Logging{Level: "debug", Format: "json"},
	}
	if d := cmp.Diff(want, c); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if got := c.DisplayName(); got != "shanghai-b" {
		t.Errorf("name %q", got)
	}
}

func TestLoadRefusesHugeFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "huge.toml")
	if err := os.WriteFile(path, make([]byte, maxFile+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); err == nil || !strings.Contains(err.Error(), "the limit is") {
		t.Errorf("got %v", err)
	}
}

func TestAdvertised(t *testing.T) {
	c := Default()
	c.Advertise.Host = "db1"
	c.Listen.RO = "10.0.0.1:3307"
	c.Listen.Admin = "[::]:3309"
	c.Advertise.Peer = "gw:999"
	got, err := c.Advertised()
	if err != nil {
		t.Fatal(err)
	}
	want := Addresses{RW: "db1:3306", RO: "10.0.0.1:3307", Peer: "gw:999", Admin: "db1:3309"}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	c.Advertise.Host = ""
	if got, err = c.Advertised(); err != nil || strings.HasPrefix(got.RW, ":") {
		t.Errorf("without a host: %+v, %v", got, err)
	}
}

func TestSize(t *testing.T) {
	for text, want := range map[string]Size{"0B": 0, "17B": 17, "64MiB": 64 << 20, "2 GiB": 2 << 30, "5MB": 5e6, "1TiB": 1 << 40} {
		var s Size
		if err := s.UnmarshalText([]byte(text)); err != nil || s != want {
			t.Errorf("%q: %d, %v; want %d", text, s, err, want)
		}
		var again Size
		if err := again.UnmarshalText([]byte(s.String())); err != nil || again != s {
			t.Errorf("%q printed as %q does not read back", text, s)
		}
	}
	for _, text := range []string{"", "5", "MiB", "-1MiB", "1.5GiB", "9999999999TiB", "5 m"} {
		var s Size
		if err := s.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q accepted as %d", text, s)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(Sample))
	files, _ := filepath.Glob("testdata/*/*.toml")
	for _, p := range files {
		if b, err := os.ReadFile(p); err == nil {
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := Parse(b); err != nil && err.Error() == "" {
			t.Error("an empty error")
		}
	})
}
