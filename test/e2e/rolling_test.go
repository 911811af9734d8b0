package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/phxsql/phxsql/internal/drill"
	"github.com/phxsql/phxsql/paxos"
)

// TestTheWholeClusterIsRestartedUnderLoad restarts all nodes by one command while clients
// write through each of them: a changed file is put to use, settings of the log hold
// over it, and no client is told anything but that its connection has ended between two
// statements.
func TestTheWholeClusterIsRestartedUnderLoad(t *testing.T) {
	c := start(t, drill.Options{Extra: steady})
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

// rotateAccounts rotates the agents' accounts twice: a node is killed in the middle of the
// first rotation and is down during the second. All nodes have new passwords in the end,
// replication has, and what is secret stands nowhere that others look at.
func rotateAccounts(t *testing.T, c *drill.Cluster) {
	t.Helper()
	ctx := limit(t, 2*time.Minute)
	old, oldSource := agentSecrets(t, c), sourceSecrets(t, c)
	m, err := c.Master(ctx)
	if err != nil {
		t.Fatal(err)
	}
	victim := c.Nodes[2] // the first one is asked
	if victim == m {
		victim = c.Nodes[1]
	}
	done := make(chan error, 1)
	go func() {
		out, err := c.Run(ctx, "accounts", "rotate")
		t.Logf("accounts rotate: %s", out)
		done <- err
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
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	between := agentSecrets(t, c)
	out, err := c.Run(ctx, "accounts", "rotate")
	t.Logf("accounts rotate: %s", out)
	if err != nil || !strings.Contains(out, fmt.Sprint(victim.ID)) {
		t.Errorf("a rotation without node %d: %q, %v", victim.ID, out, err)
	}
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	if err := drill.Eventually(ctx, func() error { return rotatedEverywhere(ctx, c) }); err != nil {
		t.Fatal(err)
	}
	if err := c.WaitServing(ctx); err != nil {
		t.Fatal(err)
	}
	now, nowSource := agentSecrets(t, c), sourceSecrets(t, c)
	secrets := []string{c.Password, clusterSecret(t, c)}
	for id, secret := range now {
		n := c.Nodes[id-1]
		if err := logIn(ctx, n, secret); err != nil {
			t.Errorf("node %d: %v", id, err)
		}
		for _, o := range []string{old[id], between[id]} {
			if o == secret {
				t.Errorf("node %d has an old password", id)
			} else if err := logIn(ctx, n, o); err == nil {
				t.Errorf("node %d still takes an old password", id)
			}
			secrets = append(secrets, o)
		}
		secrets = append(secrets, secret)
	}
	for id, secret := range nowSource {
		if oldSource[id] == secret {
			t.Errorf("node %d replicates with the old password", id)
		}
		secrets = append(secrets, secret, oldSource[id])
	}
	keptSecret(t, c, secrets)
}

// rotatedEverywhere says who has not carried out the newest rotation.
func rotatedEverywhere(ctx context.Context, c *drill.Cluster) error {
	newest := paxos.Instance(0)
	var by []paxos.Instance
	for _, n := range c.Nodes {
		m, err := n.Self(ctx)
		if err != nil {
			return err
		}
		newest = max(newest, m.AccountsAt)
		by = append(by, m.AccountsAt)
	}
	for i, at := range by {
		if at == 0 || at < newest {
			return fmt.Errorf("node %d has carried out the rotation at %d, not that at %d", c.Nodes[i].ID, at, newest)
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

// sourceSecrets are the passwords with which the nodes that are replicas replicate.
func sourceSecrets(t *testing.T, c *drill.Cluster) map[int]string {
	t.Helper()
	by := map[int]string{}
	for _, n := range c.Nodes {
		db, err := sql.Open("mysql", agentDSN(n, agentSecrets(t, c)[n.ID]))
		if err != nil {
			t.Fatal(err)
		}
		var password string
		err = db.QueryRowContext(limit(t, time.Minute), "SELECT User_password FROM mysql.slave_master_info").Scan(&password)
		db.Close()
		switch {
		case err == nil && password != "":
			by[n.ID] = password
		case !errors.Is(err, sql.ErrNoRows):
			t.Errorf("node %d replicates with the password %q, %v", n.ID, password, err)
		}
	}
	if len(by) == 0 {
		t.Error("no node replicates")
	}
	return by
}

func clusterSecret(t *testing.T, c *drill.Cluster) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(filepath.Dir(c.Nodes[0].Config()), "cluster.secret"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

func agentDSN(n *drill.Node, password string) string {
	return "phxsql_agent:" + password + "@unix(" + filepath.Join(n.Dir(), "mysqld", "mysqld.sock") + ")/"
}

func logIn(ctx context.Context, n *drill.Node, password string) error {
	db, err := sql.Open("mysql", agentDSN(n, password))
	if err != nil {
		return err
	}
	defer db.Close()
	return db.PingContext(ctx)
}

// keptSecret looks for secrets wherever somebody could read them who may not know them:
// in the process list, in what commands and the API print, and in every file of the
// nodes but those that exist to hold them. The server's own data hold the password of
// replication, as MySQL has it; only its owner may read them.
func keptSecret(t *testing.T, c *drill.Cluster, secrets []string) {
	t.Helper()
	ctx := limit(t, 2*time.Minute)
	look := func(where string, text []byte) {
		for _, s := range secrets {
			if len(s) < 16 {
				t.Fatalf("%q is no secret", s)
			}
			if bytes.Contains(text, []byte(s)) {
				t.Errorf("%s tells a secret", where)
			}
		}
	}
	for _, args := range []string{
		"status", "status -o json", "config show", "config show -o json", "config history -o json", "log dump -o json",
		"events -o json", "why", "member list -o json",
	} {
		out, err := c.Run(ctx, strings.Fields(args)...)
		if err != nil || out == "" {
			t.Errorf("phxsql %s: %q, %v", args, out, err)
		}
		look("phxsql "+args, []byte(out))
	}
	for _, n := range c.Nodes {
		look("the metrics", metrics(t, n))
		files := 0
		err := filepath.WalkDir(n.Dir(), func(path string, d fs.DirEntry, err error) error {
			rel, _ := filepath.Rel(n.Dir(), path)
			switch {
			case err != nil && errors.Is(err, fs.ErrNotExist):
				return nil // it went meanwhile
			case err != nil:
				return err
			case rel == filepath.Join("mysqld", "data"):
				return fs.SkipDir
			case !d.Type().IsRegular():
				return nil
			}
			fi, err := d.Info()
			if err != nil {
				return nil // the same
			}
			if slices.Contains(secretFiles, rel) {
				if fi.Mode().Perm() != 0o600 {
					t.Errorf("%s has mode %v", path, fi.Mode())
				}
				return nil
			}
			files++
			b, err := os.ReadFile(path)
			if err == nil {
				look(path, b)
			}
			return nil
		})
		if err != nil || files < 5 {
			t.Errorf("only %d files of node %d were looked at: %v", files, n.ID, err)
		}
		b, err := os.ReadFile(n.Log())
		if err != nil {
			t.Error(err)
		}
		look(n.Log(), b)
	}
	procs, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil || len(procs) == 0 {
		t.Errorf("no processes: %v", err)
	}
	for _, p := range procs {
		for _, name := range []string{p, filepath.Join(filepath.Dir(p), "environ")} {
			if b, err := os.ReadFile(name); err == nil {
				look(name, b)
			}
		}
	}
}

// secretFiles are those of a node that hold a secret, for its owner only.
var secretFiles = []string{filepath.Join("mysqld", "agent.secret"), filepath.Join("mysqld", "accounts.sql")}

// metrics reads what everybody may read.
func metrics(t *testing.T, n *drill.Node) []byte {
	t.Helper()
	h := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	defer h.CloseIdleConnections()
	resp, err := h.Get("https://" + n.Admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || !bytes.Contains(b, []byte("phxsql_certificate_expiry_timestamp_seconds")) {
		t.Errorf("metrics of node %d: %v\n%s", n.ID, err, b)
	}
	return b
}

func boots(t *testing.T, c *drill.Cluster) map[int]string {
	t.Helper()
	by := map[int]string{}
	for _, n := range c.Nodes {
		m, err := n.Self(limit(t, time.Minute))
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
