package mysqld

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// Data on which no server runs make way for new ones, and are kept until these have
// proved good; not if new data do not help, and not if the new ones go in turn.
func TestDamagedDataAreSetAside(t *testing.T) {
	cfg := testConfig(t)
	s := startServer(t, cfg)
	if err := s.SetAside(bounded(t)); err == nil {
		t.Error("data were set aside under a running server")
	}
	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	data := s.cfg.path(dataName)
	system := filepath.Join(data, "ibdata1")
	if err := os.WriteFile(system, bytes.Repeat([]byte{0x5a}, 12<<20), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := s.Start(bounded(t)); err == nil {
		t.Fatal("a server runs on damaged data")
	}

	good := s.cfg.Options
	s.cfg.Options = map[string]string{"no_such_option": "1"}
	if err := s.SetAside(bounded(t)); err == nil {
		t.Error("data were set aside for a fault that is not theirs")
	}
	if _, err := os.Stat(system); err != nil {
		t.Errorf("the data are gone: %v", err)
	}
	s.cfg.Options = good

	if err := s.SetAside(bounded(t)); err != nil {
		t.Fatal(err)
	}
	start(t, s)
	if !s.Unproved() || executed(t, s) != "" {
		t.Errorf("the new data hold %q, unproved %v", executed(t, s), s.Unproved())
	}
	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := s.SetAside(bounded(t)); err != nil {
		t.Fatal(err)
	}
	if _, there := s.RefusedData(); there {
		t.Error("new data that nobody wants to look at are kept")
	}
	if err := s.cfg.makeFresh(bounded(t), s.runInit, true); err != nil {
		t.Fatal(err)
	}
	if err := s.cfg.exchange(dataNewName, true); err != nil {
		t.Fatal(err)
	}
	if path, there := s.RefusedData(); !there || path == s.cfg.path(dataOldName) {
		t.Errorf("new data that are worth a look are not kept in a place of their own: %s", path)
	}
	if b, err := os.ReadFile(filepath.Join(s.cfg.path(dataOldName), "ibdata1")); err != nil || b[0] != 0x5a {
		t.Errorf("the first data are not kept: %v", err)
	}
	if err := s.Prove(); err != nil {
		t.Fatal(err)
	}
	if _, _, there := s.OldData(); there {
		t.Error("the old data are still there")
	}
}

// A folder of ours whose data lost their marker is damaged; one that never was ours is
// refused.
func TestLostMarkerIsDamage(t *testing.T) {
	cfg := Config{Dir: t.TempDir(), ServerID: 7, Install: realEngine(t)}
	data := filepath.Join(cfg.Dir, dataName)
	if err := os.MkdirAll(data, 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(data, "ibdata1"), nil, 0o640); err != nil {
		t.Fatal(err)
	}
	if s, err := Open(cfg); err == nil {
		s.Close()
		t.Fatal("foreign data were taken")
	}
	if err := os.WriteFile(filepath.Join(cfg.Dir, secretName), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if s.Damaged() == nil || s.Initialized() {
		t.Error("damaged data count as sound")
	}
}
