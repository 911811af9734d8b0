package e2e

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
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
	if n := w.Count(drill.Unknown); n > 0 {
		t.Errorf("%d writes have an unknown outcome: %v", n, w.Errors())
	}
	rotateAccounts(t, c)
	judge(t, c, w)
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

// rotateAccounts rotates the agents' accounts and kills a node in the middle of it. All
// nodes have new passwords in the end, and these stand in no log.
func rotateAccounts(t *testing.T, c *drill.Cluster) {
	t.Helper()
	ctx := limit(t, 2*time.Minute)
	old := agentSecrets(t, c)
	m, err := c.Master(ctx)
	if err != nil {
		t.Fatal(err)
	}
	victim := c.Nodes[2] // the first one is asked
	if victim == m {
		victim = c.Nodes[1]
	}
	type outcome struct {
		text string
		err  error
	}
	done := make(chan outcome, 1)
	go func() {
		out, err := c.Run(ctx, "accounts", "rotate")
		done <- outcome{out, err}
	}()
	if err := drill.Eventually(ctx, func() error {
		if agentSecrets(t, c)[victim.ID] == old[victim.ID] {
			return errors.New("the rotation has not come to the node")
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := victim.KillAll(); err != nil {
		t.Fatal(err)
	}
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	o := <-done
	t.Logf("accounts rotate: %s", o.text)
	if o.err != nil {
		t.Fatal(o.err)
	}
	if err := drill.Eventually(ctx, func() error { return rotatedEverywhere(ctx, c) }); err != nil {
		t.Fatal(err)
	}
	for id, secret := range agentSecrets(t, c) {
		n := c.Nodes[id-1]
		if secret == old[id] {
			t.Errorf("node %d has the old password", id)
		}
		if err := logIn(ctx, n, secret); err != nil {
			t.Errorf("node %d: %v", id, err)
		}
		if err := logIn(ctx, n, old[id]); err == nil {
			t.Errorf("node %d still takes the old password", id)
		}
		for _, o := range c.Nodes {
			tellsNot(t, o.Log(), secret, old[id])
			tellsNot(t, filepath.Join(o.Dir(), "log"), secret, old[id])
		}
	}
}

func rotatedEverywhere(ctx context.Context, c *drill.Cluster) error {
	for _, n := range c.Nodes {
		m, err := n.Self(ctx)
		if err != nil {
			return err
		}
		if m.AccountsAt == 0 {
			return fmt.Errorf("node %d has not rotated its accounts", n.ID)
		}
	}
	return nil
}

func agentSecrets(t *testing.T, c *drill.Cluster) map[int]string {
	t.Helper()
	by := map[int]string{}
	for _, n := range c.Nodes {
		b, err := os.ReadFile(filepath.Join(n.Dir(), "mysqld", "agent.secret"))
		if err != nil {
			t.Fatal(err)
		}
		by[n.ID] = strings.TrimSpace(string(b))
	}
	return by
}

func logIn(ctx context.Context, n *drill.Node, password string) error {
	db, err := sql.Open("mysql", "phxsql_agent:"+password+"@unix("+filepath.Join(n.Dir(), "mysqld", "mysqld.sock")+")/")
	if err != nil {
		return err
	}
	defer db.Close()
	return db.PingContext(ctx)
}

// tellsNot looks for secrets in a file, or in all files of a folder.
func tellsNot(t *testing.T, path string, secrets ...string) {
	t.Helper()
	err := filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(p)
		for _, s := range secrets {
			if bytes.Contains(b, []byte(s)) {
				t.Errorf("%s tells a password", p)
			}
		}
		return err
	})
	if err != nil {
		t.Error(err)
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
