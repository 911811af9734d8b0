package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/phxsql/phxsql/internal/drill"
)

// slowCopy gives a test the time to break a copy.
const slowCopy = smallLog + "[copy]\nrate = \"16MiB\"\n"

// lose stops a node, takes its server's data away, and starts it again: what it needs
// is not in any log any more.
func lose(t *testing.T, n *drill.Node) {
	t.Helper()
	damaged(t, n, os.RemoveAll)
}

// donorOf waits until a node gets data, at least some, and returns whose.
func donorOf(t *testing.T, c *drill.Cluster, n *drill.Node, not ...*drill.Node) *drill.Node {
	t.Helper()
	var donor *drill.Node
	err := drill.Eventually(limit(t, 3*time.Minute), func() error {
		m, err := n.Self(context.Background())
		if err != nil {
			return err
		}
		if m.Copy == nil || m.Copy.Phase != "copying" || m.Copy.Bytes < 1<<20 {
			return fmt.Errorf("node %d gets no copy: %+v %+v", n.ID, m.Copy, m.Problems)
		}
		for _, o := range c.Nodes {
			if o.ID == int(m.Copy.Donor) {
				donor = o
			}
		}
		for _, o := range not {
			if o == donor {
				return fmt.Errorf("node %d copies from node %d", n.ID, o.ID)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, n.LogTail())
	}
	return donor
}

// TestACopyThatIsInterrupted begins again by itself: the donor's server is killed, then
// the donor with its agent, then the node that gets it. With no other follower the
// master gives its data.
func TestACopyThatIsInterrupted(t *testing.T) {
	onlyLong(t)
	c := start(t, drill.Options{Extra: slowCopy})
	ctx := limit(t, 5*time.Minute)
	w := load(t, c)
	fill(t, c, 20)
	master, err := c.Master(ctx)
	if err != nil {
		t.Fatal(err)
	}
	needy := other(c, master)
	lose(t, needy)
	donor := donorOf(t, c, needy)
	if donor == master {
		t.Errorf("the master gives its data although node %d could", other(c, master, needy).ID)
	}
	if err := donor.KillServer(); err != nil {
		t.Fatal(err)
	}
	if donor = donorOf(t, c, needy); donor == master {
		t.Log("the master gives its data while the follower comes back")
	} else if err := donor.KillAll(); err != nil {
		t.Fatal(err)
	}
	if donor = donorOf(t, c, needy, other(c, master, needy)); donor != master {
		t.Errorf("node %d gives its data, want the master", donor.ID)
	}
	if err := needy.KillAll(); err != nil {
		t.Fatal(err)
	}
	if third := other(c, master, needy); !third.Running() {
		if err := third.Start(); err != nil {
			t.Fatal(err)
		}
	}
	if err := needy.Start(); err != nil {
		t.Fatal(err)
	}
	restored(t, "copy interrupted three times", needy, 1)
	gone(t, ctx, filepath.Join(needy.Dir(), "mysqld", "data.old"))
	if _, err := os.Stat(filepath.Join(needy.Dir(), "mysqld", "data.copy")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("parts of a copy are left: %v", err)
	}
	judge(t, c, w)
}
