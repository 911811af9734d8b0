package relay

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
)

// session runs statements in a session of its own. Its end leaves what it has
// prepared to others.
func (s *server) session(queries ...string) error {
	db, err := sql.Open("mysql", "root@unix("+s.socket()+")/?maxAllowedPacket=0")
	if err != nil {
		return err
	}
	defer db.Close()
	c, err := db.Conn(context.Background())
	if err != nil {
		return err
	}
	defer c.Close()
	for _, q := range queries {
		if _, err := c.ExecContext(context.Background(), q); err != nil {
			return fmt.Errorf("%s: %w", q, err)
		}
	}
	return nil
}

func (s *server) run1(queries ...string) {
	s.t.Helper()
	if err := s.session(queries...); err != nil {
		s.t.Fatal(err)
	}
}

// prepare prepares an XA transaction that inserts a row.
func (s *server) prepare(id, value string, before ...string) {
	s.t.Helper()
	s.run1(append(before, "XA START "+id, "INSERT INTO t.a (v) VALUES ("+value+")", "XA END "+id, "XA PREPARE "+id)...)
}

// prepared lists what waits for a decision.
func (s *server) prepared() []string {
	s.t.Helper()
	rows, err := s.db.Query("XA RECOVER")
	if err != nil {
		s.t.Fatal(err)
	}
	defer rows.Close()
	var ids []string
	for rows.Next() {
		var format, g, b int
		var data string
		if err := rows.Scan(&format, &g, &b, &data); err != nil {
			s.t.Fatal(err)
		}
		ids = append(ids, fmt.Sprintf("%d:%s|%s", format, data[:g], data[g:]))
	}
	slices.Sort(ids)
	return ids
}

// again kills a replica, starts it by the recipe and makes it a replica again.
func (s *server) again(addr net.Addr) {
	s.t.Helper()
	s.kill()
	s.start()
	s.exec("STOP REPLICA")
	s.exec("RESET REPLICA ALL")
	s.replicate(addr)
}

// sameXA waits until the replica has everything and compares all that there is.
func (r *rig) sameXA(f *server) {
	r.t.Helper()
	r.drain()
	f.waitFor(r.journal.Executed())
	sameTables(r.t, r.master, f, "t.a")
	if x, y := r.master.prepared(), f.prepared(); !slices.Equal(x, y) {
		r.t.Errorf("prepared on the master %q, on the replica %q", x, y)
	}
}

func xaServers(t *testing.T) (r *rig, f *server, addr net.Addr) {
	r = newRig(t)
	addr, _ = r.serve(nil)
	f = newServer(t, 102, "--replica-parallel-workers=4", "--replica-preserve-commit-order=ON")
	f.replicate(addr)
	r.schema()
	return r, f, addr
}

// A replica that is killed has forgotten the GTIDs of all XA PREPAREs, and the rows
// of those that were not decided about. The master forgets nothing.
func TestXATransactionsSurviveKills(t *testing.T) {
	r, f, addr := xaServers(t)
	m := r.master
	m.prepare("'early'", "'early'")
	m.prepare("'c'", "'committed'")
	m.run1("XA COMMIT 'c'")
	m.prepare("'r'", "'rolled back'")
	m.run1("XA ROLLBACK 'r'")
	m.prepare("'big'", "REPEAT('abcdefgh', 400000)") // in chunks
	m.run1("XA COMMIT 'big'")
	m.prepare("'zip'", "REPEAT('z', 10000)", "SET binlog_transaction_compression = 1")
	m.run1("XA COMMIT 'zip'")
	m.prepare("'zap'", "REPEAT('z', 10000)", "SET binlog_transaction_compression = 1")
	m.prepare("'tag'", "'tagged'", "SET gtid_next = 'AUTOMATIC:blue'")
	m.run1("XA COMMIT 'tag'")
	m.run1("XA START 'one'", "INSERT INTO t.a (v) VALUES ('one phase')", "XA END 'one'", "XA COMMIT 'one' ONE PHASE")
	m.prepare("'again','b',7", "'first'")
	m.run1("XA COMMIT 'again','b',7")
	m.prepare("'again','b',7", "'second'")
	m.prepare("'huge'", "REPEAT('hgfedcba', 400000)")
	m.exec("INSERT INTO t.a (v) VALUES ('after')")
	m.prepare("'late'", "'late'")
	for range 2 { // the second time with what the first one has left
		r.sameXA(f)
		f.again(addr)
	}
	r.sameXA(f)
	if n := len(m.prepared()); n != 5 {
		t.Errorf("%d transactions wait for a decision, want 5", n)
	}

	r.stop()
	m.kill()
	m.start()
	<-r.ended
	r.attach()
	if n := len(m.prepared()); n != 5 {
		t.Errorf("%d transactions wait for a decision on the master that was killed, want 5", n)
	}
	f.kill()
	m.run1("XA COMMIT 'early'", "XA ROLLBACK 'zap'", "XA COMMIT 'huge'", "XA ROLLBACK 'late'")
	f.again(addr)
	r.sameXA(f)
	m.run1("XA COMMIT 'again','b',7")
	r.sameXA(f)
	f.again(addr)
	r.sameXA(f)

	// What is forgotten may have been trimmed meanwhile. But nothing is that a
	// replica needs after a kill.
	m.prepare("'held'", "'held'")
	m.prepare("'x'", "REPEAT('x', 3 << 20)")
	m.run1("XA COMMIT 'x'", "INSERT INTO t.a (v) VALUES (REPEAT('x', 3 << 20))", "INSERT INTO t.a (v) VALUES ('end')")
	r.sameXA(f)
	r.trim(f)
	f.again(addr)
	r.sameXA(f)
	m.run1("XA COMMIT 'held'")
	r.sameXA(f)
	r.trim(f)
	f.again(addr)
	r.sameXA(f)
}

// trim drops of the log what the replica does without.
func (r *rig) trim(f *server) {
	r.t.Helper()
	b, ok := r.journal.Cut(r.journal.Held(f.executed()), 0)
	if !ok {
		r.t.Fatal("nothing can be trimmed")
	}
	r.t.Logf("the log is trimmed to %d of %d", b.Next, r.log.Chosen())
	r.log.trim(b.Next)
	r.journal.Forget(b.Next)
}

// A replica is killed at any moment of a load of XA transactions.
func TestXAStorm(t *testing.T) {
	r, f, addr := xaServers(t)
	const writers, kills = 2, 3
	var stop atomic.Bool
	done := make(chan error, writers)
	for k := range writers {
		go func() { done <- xaLoad(r.master, k, &stop) }()
	}
	for range kills {
		before := r.journal.Executed().Count()
		some := uint64(20 + rand.IntN(200))
		eventually(t, "the load goes on", func() bool {
			_ = r.journal.advance(t.Context())
			return r.journal.Executed().Count() >= before+some
		})
		f.again(addr)
	}
	stop.Store(true)
	for range writers {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	r.sameXA(f)
	f.again(addr)
	r.sameXA(f)
	t.Logf("%d transactions, %d wait for a decision", r.journal.Executed().Count(), len(r.master.prepared()))
}

// xaLoad prepares XA transactions and decides about most of them, some later.
func xaLoad(m *server, k int, stop *atomic.Bool) error {
	rng := rand.New(rand.NewPCG(uint64(k), 1))
	var open []string
	decide := func() error {
		id := open[0]
		open = open[1:]
		return m.session([]string{"XA COMMIT ", "XA ROLLBACK "}[rng.IntN(2)] + id)
	}
	for n := 0; !stop.Load(); n++ {
		id := fmt.Sprintf("'x%d-%d'", k, n%7) // used again
		if slices.Contains(open, id) {
			continue
		}
		value := fmt.Sprintf("'%d %s'", n, strings.Repeat("v", rng.IntN(200)))
		if err := m.session("XA START "+id, "INSERT INTO t.a (w, v) VALUES ("+fmt.Sprint(k)+", "+value+")",
			"XA END "+id, "XA PREPARE "+id); err != nil {
			return err
		}
		open = append(open, id)
		for len(open) > rng.IntN(4) {
			if err := decide(); err != nil {
				return err
			}
		}
		if err := m.session("INSERT INTO t.a (w, v) VALUES (100, 'between')"); err != nil {
			return err
		}
	}
	return nil
}
