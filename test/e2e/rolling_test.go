package e2e

import (
	"encoding/json"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/phxsql/phxsql/internal/drill"
)

// TestTheWholeClusterIsRestartedUnderLoad restarts all nodes by one command while clients
// write through each of them: a changed file is put to use, settings of the log hold
// over it, and no client is told anything but that its connection has ended between two
// statements.
func TestTheWholeClusterIsRestartedUnderLoad(t *testing.T) {
	c := start(t, drill.Options{})
	w := load(t, c)
	ctx := limit(t, 4*time.Minute)
	if _, err := c.Run(ctx, "config", "set", "log.keep", "16MiB", "switchover.drain", "3s"); err != nil {
		t.Fatal(err)
	}
	for _, n := range c.Nodes {
		appendTo(t, n.Config(), "[engine.options]\nlong_query_time = 7\n")
	}
	before := boots(t, c)
	began := time.Now()
	out, err := c.Run(ctx, "rolling-restart", "-o", "json")
	if err != nil {
		t.Fatal(err, out)
	}
	t.Logf("done in %v, longest pause %v, errors %v", time.Since(began), w.Pause(began), w.Errors())
	var res struct{ Restarted []struct{ Node int } }
	if err := json.Unmarshal([]byte(out), &res); err != nil || len(res.Restarted) != 3 {
		t.Errorf("restarted %s: %v", out, err)
	}
	for id, boot := range boots(t, c) {
		if before[id] == boot {
			t.Errorf("node %d was not restarted", id)
		}
	}
	judge(t, c, w)
	if n := w.Count(drill.Unknown); n > 0 {
		t.Errorf("%d writes have an unknown outcome: %v", n, w.Errors())
	}
	for _, n := range c.Nodes {
		db, err := c.Open(n.RO, "")
		if err != nil {
			t.Fatal(err)
		}
		var value float64
		err = db.QueryRowContext(ctx, "SELECT @@GLOBAL.long_query_time").Scan(&value)
		db.Close()
		if err != nil || value != 7 {
			t.Errorf("node %d: long_query_time is %v, %v", n.ID, value, err)
		}
		if m, err := n.Self(ctx); err != nil || m.SettingsAt == nil || *m.SettingsAt == 0 {
			t.Errorf("node %d has forgotten the settings: %+v, %v", n.ID, m.SettingsAt, err)
		}
	}
}

func boots(t *testing.T, c *drill.Cluster) map[int]string {
	t.Helper()
	by := map[int]string{}
	for _, n := range c.Nodes {
		m, err := n.Self(limit(t, 30*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		by[n.ID] = m.Boot
	}
	return by
}

func appendTo(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteString(text)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}
