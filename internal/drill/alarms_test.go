package drill

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAlarmsAreFound(t *testing.T) {
	path := filepath.Join(t.TempDir(), "node1.log")
	text := `time=1 level=INFO msg="gate opened" node=1
time=2 level=ERROR msg="transactions taken back that may have been acknowledged" node=1 gtids=a:1
time=3 level=INFO msg=restore node=1 reason="the server holds transactions that the log does not"
time=4 level=INFO msg=restore node=1 reason="the server holds transactions that the log does not"
time=5 level=WARN msg="request failed" err="panic: is part of a text"
panic: agent: the gate is open without a lease

goroutine 1 [running]:
`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	found, err := findAlarms(path)
	if err != nil || len(found) != 3 || !strings.HasPrefix(found[0], "time=2") || !strings.HasPrefix(found[1], "time=3") || !strings.HasPrefix(found[2], "panic: agent") {
		t.Errorf("found %q: %v", found, err)
	}
	if _, err := findAlarms(path + ".gone"); err == nil {
		t.Error("a log that is not there has no alarms")
	}
}

// An alarm that nobody sounds any more would never be heard.
func TestAlarmsAreWhatAgentsSay(t *testing.T) {
	files, err := filepath.Glob("../agent/*.go")
	if err != nil || len(files) == 0 {
		t.Fatal("there is no agent", err)
	}
	said := map[string]bool{}
	for _, f := range files {
		if strings.HasSuffix(f, "_test.go") {
			continue
		}
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range alarms {
			said[a] = said[a] || strings.Contains(string(text), a)
		}
	}
	for _, a := range alarms {
		if !said[a] {
			t.Errorf("no agent says %q", a)
		}
	}
}
