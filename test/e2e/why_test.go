package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/phxsql/phxsql/internal/api"
	"github.com/phxsql/phxsql/internal/drill"
	"github.com/phxsql/phxsql/internal/events"
	"github.com/phxsql/phxsql/paxos"
)

// TestWhy asks the cluster why its master changed: after a switchover, after its server
// was killed, and after it was cut off with a transaction that nobody else had, and
// killed. Every node gives the same answer, and what was taken back is kept.
func TestWhy(t *testing.T) {
	c := start(t, drill.Options{Namespaces: true, Extra: steady})
	ctx := limit(t, 6*time.Minute)
	if err := c.Exec(ctx, "CREATE DATABASE why", "CREATE TABLE why.a (id INT PRIMARY KEY)", "INSERT INTO why.a VALUES (1)"); err != nil {
		t.Fatal(err)
	}
	old := master(t, c, ctx)
	if _, err := c.Run(ctx, "switchover"); err != nil {
		t.Fatal(err)
	}
	explained(t, c, old, func(a events.Account) error {
		if a.Cause != events.CauseSwitchover || a.By != a.Old {
			return fmt.Errorf("it is said to be %s by node %d", a.Cause, a.By)
		}
		return nil
	})

	old = master(t, c, ctx)
	if err := old.KillServer(); err != nil {
		t.Fatal(err)
	}
	if err := drill.Eventually(ctx, func() error { return c.MasterBesides(ctx, old) }); err != nil {
		t.Fatal(err)
	}
	explained(t, c, old, func(a events.Account) error {
		if a.Cause != events.CauseServer || !strings.Contains(a.Why, "signal: killed") {
			return fmt.Errorf("it is said to be %s: %s", a.Cause, a.Why)
		}
		return nil
	})
	if err := c.WaitHealthy(ctx); err != nil {
		t.Fatal(err)
	}

	old = strand(t, c, "INSERT INTO why.a VALUES (17042)")
	if err := drill.Eventually(ctx, func() error { return c.MasterBesides(ctx, old) }); err != nil {
		t.Fatal(err)
	}
	if err := c.Exec(ctx, "INSERT INTO why.a VALUES (2)"); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(old.Rejoin(), old.Start()); err != nil {
		t.Fatal(err)
	}
	if err := c.WaitHealthy(ctx); err != nil {
		t.Fatal(err)
	}
	a := explained(t, c, old, func(a events.Account) error {
		switch {
		case a.Cause != events.CauseAgent || a.By != a.Old || a.Seen == "":
			return fmt.Errorf("it is said to be %s by node %d; seen: %q", a.Cause, a.By, a.Seen)
		case a.FirstCommit <= 0:
			return errors.New("no first commit is told")
		case len(a.Undone) != 1 || a.Undone[0].Discard.Count != 1 || !a.Undone[0].Clean:
			return fmt.Errorf("undone is %+v", a.Undone)
		}
		return nil
	})
	phases := map[string]bool{}
	for _, p := range a.Phases {
		phases[p.Name] = true
	}
	for _, want := range []string{"detected", "elected", "epoch_chosen", "applied", "gate_open"} {
		if !phases[want] {
			t.Errorf("phase %s is not told: %v", want, a.Phases)
		}
	}
	readEvidence(t, a.Undone[0].Discard.Evidence)
	if text, err := c.Run(ctx, "why", "--last", "1"); err != nil {
		t.Fatal(err)
	} else {
		t.Logf("\n%s", text)
	}
}

func master(t *testing.T, c *drill.Cluster, ctx context.Context) *drill.Node {
	t.Helper()
	m, err := c.Master(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// explained waits until every node gives the wanted account of how the last reign of
// a node ended, and returns the first one's.
func explained(t *testing.T, c *drill.Cluster, old *drill.Node, want func(events.Account) error) events.Account {
	t.Helper()
	ctx := limit(t, 3*time.Minute)
	var found events.Account
	for _, n := range c.Nodes {
		err := drill.Eventually(ctx, func() error {
			text, err := c.Run(ctx, "why", "-o", "json", "--addr", n.Admin)
			if err != nil {
				return err
			}
			var res api.WhyResult
			if err := json.Unmarshal([]byte(text), &res); err != nil {
				return err
			}
			for i := len(res.Accounts) - 1; i >= 0; i-- {
				if res.Accounts[i].Old == paxos.NodeID(old.ID) {
					found = res.Accounts[i]
					return want(found)
				}
			}
			return fmt.Errorf("no account of the end of node %d", old.ID)
		})
		if err != nil {
			text, _ := c.Run(context.WithoutCancel(ctx), "why", "--addr", n.Admin)
			t.Fatalf("node %d: %v\n%s", n.ID, err, text)
		}
	}
	return found
}

// readEvidence reads what was taken back with the server's own program.
func readEvidence(t *testing.T, dir string) {
	t.Helper()
	out, err := install.Command(t.Context(), "mysqlbinlog", "--verbose", "--base64-output=decode-rows", filepath.Join(dir, "tail.binlog")).Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		t.Fatalf("read evidence: %v: %s", err, exit.Stderr)
	}
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(out), "17042") {
		t.Errorf("the row that was taken back is not in the evidence:\n%s", out)
	}
}
