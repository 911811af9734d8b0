package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/phxsql/phxsql/internal/drill"
)

// behindTheBack executes statements on a node's server through its socket, as the
// agent itself, in one session and with nothing that holds commits back.
func behindTheBack(t *testing.T, n *drill.Node, statements ...string) {
	t.Helper()
	db := inside(t, n)
	defer db.Close()
	ctx := limit(t, time.Minute)
	conn, err := db.Conn(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, s := range append([]string{"SET GLOBAL rpl_semi_sync_source_enabled = OFF", "SET GLOBAL super_read_only = OFF"}, statements...) {
		if _, err := conn.ExecContext(ctx, s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

// damaged stops a node, damages its server's data, and starts it again.
func damaged(t *testing.T, n *drill.Node, damage func(data string) error) {
	t.Helper()
	if err := errors.Join(n.KillAll(), damage(filepath.Join(n.Dir(), "mysqld", "data")), n.Start()); err != nil {
		t.Fatal(err)
	}
}

func overwriteSystemTablespace(data string) error {
	return os.WriteFile(filepath.Join(data, "ibdata1"), []byte(strings.Repeat("damaged.", 2<<20)), 0o640)
}

func loseFiles(data string) error {
	return errors.Join(os.Remove(filepath.Join(data, "phxsql.json")), os.Remove(filepath.Join(data, "mysql.ibd")), os.RemoveAll(filepath.Join(data, "drill")))
}

// restored waits until a node has been rebuilt so many times and is well again.
func restored(t *testing.T, what string, n *drill.Node, times int) {
	t.Helper()
	began := time.Now()
	err := drill.Eventually(limit(t, 2*time.Minute), func() error {
		b, err := os.ReadFile(n.Log())
		if err == nil && strings.Count(string(b), `"node is restored"`) < times {
			m, _ := n.Self(context.Background())
			err = fmt.Errorf("node %d is %s: %+v", n.ID, m.State, m.Problems)
		}
		return err
	})
	if err != nil {
		t.Fatalf("%s: %v\n%s", what, err, n.LogTail())
	}
	t.Logf("%s: node %d rebuilt in %v", what, n.ID, time.Since(began).Round(10*time.Millisecond))
}

// TestADamagedMemberIsRebuilt: a server that took a transaction behind its agent's
// back, one whose system tablespace is overwritten, one that lost a row, and one that
// lost files. Nobody helps them.
func TestADamagedMemberIsRebuilt(t *testing.T) {
	c := start(t, drill.Options{Extra: steady})
	ctx := limit(t, 4*time.Minute)
	w := load(t, c)
	master, err := c.Master(ctx)
	if err != nil {
		t.Fatal(err)
	}
	a := other(c, master)
	b := other(c, master, a)
	if err := c.Exec(ctx, "CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY, v INT)", "INSERT INTO d.t VALUES (1, 1), (2, 2)"); err != nil {
		t.Fatal(err)
	}

	behindTheBack(t, a, "CREATE DATABASE only_here")
	damaged(t, b, overwriteSystemTablespace)
	restored(t, "a transaction too much", a, 1)
	restored(t, "ibdata1 overwritten", b, 1)
	old := filepath.Join(a.Dir(), "mysqld", "data.old", "only_here")
	if _, err := os.Stat(old); err != nil {
		t.Errorf("what node %d had alone is not kept: %v", a.ID, err)
	}
	gone(t, ctx, filepath.Join(b.Dir(), "mysqld", "data.old"))
	serving(t, c)
	if *long {
		damagedAgain(t, ctx, c, a, b)
	}
	judge(t, c, w)
}

// damagedAgain: what no GTID set shows, and a folder in which files are missing.
func damagedAgain(t *testing.T, ctx context.Context, c *drill.Cluster, a, b *drill.Node) {
	t.Helper()
	behindTheBack(t, a, "SET sql_log_bin = OFF", "DELETE FROM d.t WHERE id = 1")
	if err := c.Exec(ctx, "UPDATE d.t SET v = 10 WHERE id = 1"); err != nil {
		t.Fatal(err)
	}
	damaged(t, b, loseFiles)
	restored(t, "a row lost", a, 2)
	restored(t, "files lost", b, 2)
	lose(t, b)
	restored(t, "all data lost, and the log is whole", b, 3)
}

// gone waits until a folder is removed.
func gone(t *testing.T, ctx context.Context, path string) {
	t.Helper()
	err := drill.Eventually(ctx, func() error {
		if _, err := os.Stat(path); err == nil {
			return fmt.Errorf("%s is still there", path)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
