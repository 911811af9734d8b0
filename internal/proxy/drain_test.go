package proxy

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
)

// load is a pool under load: single statements, prepared ones, transactions.
type load struct {
	done     sync.WaitGroup
	stop     chan struct{}
	work     atomic.Int64
	failures atomic.Int64
	first    atomic.Pointer[error]
}

// startLoad starts workers. Each pauses before every unit: on a busy machine units last
// longer, and pauses are pauses still.
func startLoad(db *sql.DB, workers int, pause time.Duration) *load {
	l := &load{stop: make(chan struct{})}
	for w := range workers {
		l.done.Go(func() {
			for i := w; ; i++ {
				select {
				case <-l.stop:
					return
				case <-time.After(pause):
				}
				if err := unit(db, i); err != nil {
					l.failures.Add(1)
					l.first.CompareAndSwap(nil, &err)
				}
				l.work.Add(1)
			}
		})
	}
	return l
}

// end stops the load and looks at what has failed. Where commands may cross the
// end of their connection, the driver must call the connection lost.
func (l *load) end(t *testing.T, mayCross func(failures int64) bool) {
	t.Helper()
	close(l.stop)
	l.done.Wait()
	n := l.failures.Load()
	if n == 0 {
		return
	}
	first := *l.first.Load()
	t.Logf("%d of %d units of work failed; the first: %v", n, l.work.Load(), first)
	if !mayCross(n) || !errors.Is(first, mysql.ErrInvalidConn) {
		t.Error("the clients saw errors")
	}
}

func unit(db *sql.DB, i int) error {
	switch i % 4 {
	case 0:
		_, err := db.Exec("INSERT INTO k (v) VALUES ('single')")
		return named("single statement", err)
	case 1:
		_, err := db.Exec("INSERT INTO k (v) VALUES (?)", "prepared")
		return named("prepared insert", err)
	case 2:
		var n int
		return named("prepared select", db.QueryRow("SELECT COUNT(*) FROM (SELECT * FROM k LIMIT 50) x WHERE id > ?", 0).Scan(&n))
	}
	tx, err := db.Begin()
	if err != nil {
		return named("begin", err)
	}
	for i := range 3 {
		if _, err := tx.Exec("INSERT INTO k (v) VALUES ('tx')"); err != nil {
			return errors.Join(named(fmt.Sprintf("statement %d of a transaction", i+1), err), tx.Rollback())
		}
	}
	return named("commit", tx.Commit())
}

func named(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}

// busyByProcessList is the question that a node asks its server.
func busyByProcessList(db *sql.DB) Busy {
	return func(ctx context.Context) (map[uint32]bool, error) {
		rows, err := db.QueryContext(ctx, `SELECT p.ID, p.COMMAND <> 'Sleep' OR t.trx_mysql_thread_id IS NOT NULL
			FROM information_schema.PROCESSLIST p LEFT JOIN information_schema.INNODB_TRX t ON t.trx_mysql_thread_id = p.ID`)
		if err != nil {
			return nil, err
		}
		defer rows.Close()
		busy := map[uint32]bool{}
		for rows.Next() {
			var id uint32
			var is bool
			if err := rows.Scan(&id, &is); err != nil {
				return nil, err
			}
			busy[id] = is
		}
		return busy, rows.Err()
	}
}

// TestDrainUnderLoad drains a loaded master many times and counts what the
// clients see. Busy sessions close with an answer: their clients see nothing.
// Sessions with pauses close in a pause, and a command that crosses the end of
// the connection on its way is lost; on a machine without a free processor that
// way is long. These are counted and shown, but depend on the machine.
func TestDrainUnderLoad(t *testing.T) {
	master, s := masterNode(t, nil)
	other := startNode(t, testOptions(s.socket))
	other.SetRoute(Remote(master.rw))
	for _, c := range []struct {
		name, addr string
		pause      time.Duration
		change     func(*mysql.Config)
	}{
		{"master", master.rw, 0, nil},
		{"hop", other.rw, 0, nil},
		{"master, paced", master.rw, 100 * time.Millisecond, nil},
		{"tls, paced", master.rw, 100 * time.Millisecond, withTLS},
		{"hop and tls, paced", other.rw, 100 * time.Millisecond, withTLS},
	} {
		t.Run(c.name, func(t *testing.T) { drainUnderLoad(t, master, s, c.addr, c.pause, c.change) })
	}
}

func drainUnderLoad(t *testing.T, master *node, s *realServer, addr string, pause time.Duration, change func(*mysql.Config)) {
	db := openDB(t, addr, "sha2", change)
	db.SetMaxOpenConns(16)
	db.SetMaxIdleConns(16)
	local, err := sql.Open("mysql", "root@unix("+s.socket+")/")
	if err != nil {
		t.Fatal(err)
	}
	defer local.Close()
	before := master.Stats().RW
	l := startLoad(db, 12, pause)
	enough := int64(200)
	if pause > 0 {
		enough = 24
	}
	var worst, sum time.Duration
	drains := 10
	if pause > 0 {
		drains = 4
	}
	for range drains {
		start := l.work.Load()
		eventually(t, "work goes on", func() bool { return l.work.Load() > start+enough })
		ctx, cancel := context.WithTimeout(context.Background(), testLimit)
		begin := time.Now()
		left, err := master.Drain(ctx, busyByProcessList(local))
		cancel()
		if left != 0 || err != nil {
			t.Errorf("drain: %d left, %v", left, err)
		}
		d := time.Since(begin)
		worst, sum = max(worst, d), sum+d
		master.Resume()
	}
	// A command may cross the end of its connection on the wire: after a pause, and
	// over a hop, where that end passes two programs. It was not executed then. A busy
	// client of the master itself can be so slow only without a processor, and then
	// the master has counted its command as late.
	l.end(t, func(failures int64) bool {
		late := int64(master.Stats().RW.Late - before.Late)
		return pause > 0 || addr != master.rw || failures <= late
	})
	after := master.Stats().RW
	_ = db.Close()
	t.Logf("%d units; drain took %v on average, %v at worst; %d sessions drained, %d late",
		l.work.Load(), sum/time.Duration(drains), worst, after.Drained-before.Drained, after.Late-before.Late)
}

// TestDrainWaitsForTheTransaction, and for nothing else.
func TestDrainWaitsForTheTransaction(t *testing.T) {
	master, _ := masterNode(t, nil)
	db := openDB(t, master.rw, "sha2", nil)
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec("INSERT INTO k (v) VALUES ('slow')"); err != nil {
		t.Fatal(err)
	}
	idle := openDB(t, master.rw, "sha2", nil)
	if err := idle.Ping(); err != nil {
		t.Fatal(err)
	}
	result := make(chan int, 1)
	go func() {
		left, err := master.Drain(t.Context(), nil)
		if err != nil {
			left = -1
		}
		result <- left
	}()
	eventually(t, "the idle session is closed", func() bool { return master.Stats().RW.Open == 1 })
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	if left := <-result; left != 0 {
		t.Errorf("%d left", left)
	}
	master.Resume()
	if err := db.Ping(); err != nil {
		t.Error(err)
	}
}

// TestDrainGivesUp: who is left is counted, and goes on when the switchover is
// abandoned.
func TestDrainGivesUp(t *testing.T) {
	master, _ := masterNode(t, nil)
	db := openDB(t, master.rw, "sha2", nil)
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if left, err := master.Drain(ctx, nil); left != 1 || err != nil {
		t.Errorf("left %d, %v", left, err)
	}
	master.Resume()
	if _, err := tx.Exec("INSERT INTO k (v) VALUES ('kept')"); err != nil {
		t.Error(err)
	}
	if err := tx.Commit(); err != nil {
		t.Error(err)
	}
}

// TestNewSessionsWaitForTheEndOfADrain.
func TestNewSessionsWaitForTheEndOfADrain(t *testing.T) {
	master, _ := masterNode(t, nil)
	if left, err := master.Drain(t.Context(), nil); left != 0 || err != nil {
		t.Fatal(left, err)
	}
	db := openDB(t, master.rw, "sha2", nil)
	done := make(chan error, 1)
	go func() { done <- db.Ping() }()
	eventually(t, "the client waits", func() bool { return master.Stats().RW.Waiting == 1 })
	master.Resume()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A node that is about to stop lets go of everybody, also of those who are with the
// master through it, and of readers: each when nothing of theirs is open.
func TestDrainAllWaitsForTransactionsElsewhere(t *testing.T) {
	master, s := masterNode(t, nil)
	other := startNode(t, testOptions(s.socket))
	other.SetRoute(Remote(master.rw))
	other.SetLocal(true, "")
	writer := openDB(t, other.rw, "sha2", nil)
	reader := openDB(t, other.ro, "sha2", nil)
	write, err := writer.Begin()
	if err != nil {
		t.Fatal(err)
	}
	read, err := reader.Begin()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := write.Exec("INSERT INTO k (v) VALUES ('elsewhere')"); err != nil {
		t.Fatal(err)
	}
	var n int
	if err := read.QueryRow("SELECT COUNT(*) FROM k").Scan(&n); err != nil {
		t.Fatal(err)
	}
	result := make(chan int, 1)
	go func() { result <- other.DrainAll(t.Context(), nil) }()
	eventually(t, "the drain has begun", func() bool { return other.Proxy.rw.draining().all && other.Proxy.ro.draining().all })
	if err := write.Commit(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the writer is let go", func() bool { return other.Stats().RW.Open == 0 })
	if n := other.Stats().RO.Open; n != 1 {
		t.Errorf("%d readers, want 1", n)
	}
	if err := read.Rollback(); err != nil {
		t.Fatal(err)
	}
	if left := <-result; left != 0 {
		t.Errorf("%d left", left)
	}
	if st := other.Stats(); st.RW.Drained != 1 || st.RO.Drained != 1 || st.RW.Cut+st.RO.Cut != 0 {
		t.Errorf("%+v", st)
	}
}
