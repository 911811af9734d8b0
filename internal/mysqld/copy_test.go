package mysqld

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// A server gets another one's data through its socket, goes on with its own until
// the copy takes their place, and keeps them beside it.
func TestCopyTakesThePlaceOfTheData(t *testing.T) {
	donor := startServer(t, testConfig(t))
	writable(t, donor, true)
	must(t, donor, "CREATE DATABASE d")
	must(t, donor, "CREATE TABLE d.t (id INT PRIMARY KEY)")
	must(t, donor, "INSERT INTO d.t VALUES (1), (2), (3)")
	if err := donor.SetReadOnly(bounded(t), true); err != nil {
		t.Fatal(err)
	}
	size, err := donor.DataSize()
	if err != nil || size < 10<<20 {
		t.Fatalf("the donor has %d bytes, %v", size, err)
	}
	cfg := testConfig(t)
	cfg.ServerID = 8
	other := startServer(t, cfg)
	if err := donor.PrepareToGive(bounded(t)); err != nil {
		t.Fatal(err)
	}
	at := Donor{Host: "127.0.0.1", Port: forward(t, donor).Port, Password: donor.CopyPassword(), Bytes: 1 << 60}
	if err := other.FetchCopy(bounded(t), at); !errors.Is(err, ErrNoRoom) {
		t.Errorf("a copy larger than the disk: %v", err)
	}
	at.Bytes = size
	if err := other.FetchCopy(bounded(t), at); err != nil {
		t.Fatal(err)
	}
	if !other.CopyReady() || other.CopySize() < 10<<20 {
		t.Errorf("the copy has %d bytes", other.CopySize())
	}
	if err := other.AdoptCopy(bounded(t), false); !errors.Is(err, ErrRunning) {
		t.Errorf("a copy under a running server: %v", err)
	}
	if err := other.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := other.AdoptCopy(bounded(t), false); err != nil {
		t.Fatal(err)
	}
	start(t, other)
	if got, want := executed(t, other), executed(t, donor); got != want || want == "" {
		t.Errorf("the copy has executed %q, the donor %q", got, want)
	}
	if n := scan[int](t, other, "SELECT COUNT(*) FROM d.t"); n != 3 {
		t.Errorf("the copy has %d rows", n)
	}
	if a, b := scan[string](t, other, "SELECT @@server_uuid"), scan[string](t, donor, "SELECT @@server_uuid"); a == b {
		t.Error("the copy has the donor's identity")
	}
	if _, _, there := other.OldData(); !there || !other.Unproved() {
		t.Error("the old data are gone, or the copy counts as good at once")
	}
	if err := other.Prove(); err != nil {
		t.Error(err)
	}
	if _, _, there := other.OldData(); there || other.Unproved() {
		t.Error("the old data are still there, or the copy counts as bad")
	}
}

// A crash at any step of an exchange leaves exactly one good data directory.
func TestInterruptedCopyIsEnded(t *testing.T) {
	for name, c := range map[string]struct {
		have []string // folders; those of ours get a file that names them
		want string   // whose data are in place then
	}{
		"unfinished":     {[]string{"data", "data.copy-"}, "data"},
		"complete":       {[]string{"data", "data.copy"}, "data"},
		"between":        {[]string{"data.old", "data.copy"}, "data.copy"},
		"copy lost":      {[]string{"data.old", "data.copy-"}, "data.old"},
		"copy gone":      {[]string{"data.old"}, "data.old"},
		"adopted":        {[]string{"data", "data.old"}, "data"},
		"nothing at all": {nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := Config{Dir: t.TempDir()}
			for _, d := range c.have {
				unfinished := d == "data.copy-"
				if unfinished {
					d = "data.copy"
				}
				path := filepath.Join(cfg.Dir, d)
				if err := errors.Join(os.Mkdir(path, 0o750), os.WriteFile(filepath.Join(path, "whose"), []byte(d), 0o640)); err != nil {
					t.Fatal(err)
				}
				if !unfinished {
					if err := os.WriteFile(filepath.Join(path, markerName), []byte("{}"), 0o640); err != nil {
						t.Fatal(err)
					}
				}
			}
			if err := cfg.recoverCopy(); err != nil {
				t.Fatal(err)
			}
			if got, _ := os.ReadFile(filepath.Join(cfg.Dir, dataName, "whose")); string(got) != c.want {
				t.Errorf("in place are the data of %q, want %q", got, c.want)
			}
			if _, err := os.Stat(cfg.path(dataCopyName)); err == nil {
				t.Error("a copy is left")
			}
		})
	}
}
