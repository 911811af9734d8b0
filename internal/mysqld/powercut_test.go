package mysqld

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/phxsql/phxsql/internal/gtid"
	"github.com/phxsql/phxsql/internal/powerloss"
)

var (
	powerRounds = flag.Int("power-rounds", 1, "power cuts of TestPowerCuts")
	powerSeed   = flag.Uint64("power-seed", 1, "what TestPowerCuts draws from")
	powerMethod = flag.String("power-flush-method", "", "innodb_flush_method of TestPowerCuts; empty: that of the option file")
)

const (
	powerWriters = 4
	powerRows    = 4000 // of each writer, in a table of its own: together more than the buffer pool
	powerChanges = 30   // rows that a transaction changes
	powerCommits = 60   // of each round, before the power goes
	powerLimit   = 4 * time.Minute
)

// TestPowerCuts cuts the power of a server that writes pages all the time, on a disk that
// keeps any part of what was not synced. The server must start each time, on whole pages,
// with exactly the transactions that gtid_executed names.
func TestPowerCuts(t *testing.T) {
	if err := powerloss.Possible(); err != nil {
		t.Skip(err)
	}
	cfg := testConfig(t)
	cfg.StartTimeout = powerLimit
	cfg.Options = map[string]string{"innodb_io_capacity": "2000", "innodb_max_dirty_pages_pct": "0"}
	if *powerMethod != "" {
		cfg.Options["innodb_flush_method"] = *powerMethod
	}
	s, disk := powerServer(t, cfg)
	powerTables(t, s)
	for round := range *powerRounds {
		seed := *powerSeed + uint64(round)
		dice := rand.New(rand.NewPCG(seed, 3))
		powerLoad(t, s, dice, func() { cutPower(t, s, disk, dice) })
		if err := s.Start(t.Context()); err != nil { // within cfg.StartTimeout
			t.Fatalf("seed %d: %v", seed, err)
		}
		powerJudge(t, s)
		if t.Failed() {
			t.Fatalf("this was seed %d", seed)
		}
		writable(t, s, true)
	}
}

// powerTables makes the tables of the load, and makes them durable.
func powerTables(t *testing.T, s *Server) {
	t.Helper()
	must(t, s, "CREATE DATABASE power")
	must(t, s, "CREATE TABLE power.commits (id INT AUTO_INCREMENT PRIMARY KEY, writer INT NOT NULL)")
	for w := range powerWriters {
		must(t, s, fmt.Sprintf("CREATE TABLE power.t%d (id INT PRIMARY KEY, v INT NOT NULL, body VARCHAR(2100) NOT NULL, KEY (v))", w))
		var rows strings.Builder
		for id := 1; id <= powerRows; id++ {
			fmt.Fprintf(&rows, ",(%d,0,REPEAT(SHA2(%d * 7, 256), 32))", id, id)
		}
		must(t, s, fmt.Sprintf("INSERT INTO power.t%d VALUES %s", w, rows.String()[1:]))
	}
	must(t, s, "FLUSH ENGINE LOGS")
}

// powerLoad writes until enough is committed, and then calls cut while the writers go on.
func powerLoad(t *testing.T, s *Server, dice *rand.Rand, cut func()) {
	t.Helper()
	db := sql.OpenDB(mustConnector(t, s))
	defer db.Close() //nolint:errcheck // its server is gone
	ctx, cancel := context.WithTimeout(t.Context(), powerLimit)
	defer cancel()
	done := make(chan struct{}, powerCommits)
	failed := make([]error, powerWriters)
	var wg sync.WaitGroup
	for w := range powerWriters {
		own := rand.New(rand.NewPCG(dice.Uint64(), uint64(w)))
		wg.Go(func() {
			for failed[w] == nil {
				if failed[w] = powerCommit(ctx, db, w, own); failed[w] == nil {
					select {
					case done <- struct{}{}:
					default:
					}
				}
			}
		})
	}
	for range powerCommits {
		select {
		case <-done:
		case <-ctx.Done():
			t.Fatalf("the writers get nowhere: %v", errors.Join(failed...))
		}
	}
	cut()
	wg.Wait()
}

// powerCommit changes rows all over a table, and notes that in the same transaction.
func powerCommit(ctx context.Context, db *sql.DB, w int, dice *rand.Rand) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // after a commit there is nothing to undo
	for range powerChanges {
		id := 1 + dice.IntN(powerRows)
		if _, err := tx.ExecContext(ctx, fmt.Sprintf("UPDATE power.t%d SET v = v + 1, body = REPEAT(SHA2(id * 7 + v, 256), 32) WHERE id = ?", w), id); err != nil {
			return err
		}
	}
	if _, err := tx.ExecContext(ctx, "INSERT INTO power.commits (writer) VALUES (?)", w); err != nil {
		return err
	}
	return tx.Commit()
}

// cutPower ends the server at one moment, with what its disk has not synced.
func cutPower(t *testing.T, s *Server, disk *powerloss.Disk, dice *rand.Rand) {
	t.Helper()
	s.mu.Lock()
	p := s.proc
	s.mu.Unlock()
	disk.Freeze()
	p.wanted.Store(true)
	if err := errors.Join(p.signal(syscall.SIGKILL), disk.Cut(dice)); err != nil {
		t.Fatal(err)
	}
	<-p.exited // who waits for the disk dies only when it is cut
}

// powerJudge looks at every page and every row.
func powerJudge(t *testing.T, s *Server) {
	t.Helper()
	set, err := gtid.ParseSet(executed(t, s))
	if err != nil {
		t.Fatal(err)
	}
	before := uint64(2 + 2*powerWriters) // statements of powerTables
	if commits := scan[uint64](t, s, "SELECT COUNT(*) FROM power.commits FORCE INDEX (PRIMARY)"); commits+before != set.Count() {
		t.Errorf("%d commits have rows, gtid_executed has %d", commits, set.Count()-before)
	}
	for w := range powerWriters {
		table := fmt.Sprintf("power.t%d", w)
		if n := scan[int](t, s, "SELECT COUNT(*) FROM "+table+" WHERE body <> REPEAT(SHA2(id * 7 + v, 256), 32)"); n != 0 {
			t.Errorf("%s: %d rows hold something else than what was written", table, n)
		}
		if n := scan[int](t, s, "SELECT COUNT(*) FROM "+table); n != powerRows {
			t.Errorf("%s has %d rows, want %d", table, n, powerRows)
		}
		changes := scan[int](t, s, "SELECT CAST(SUM(v) AS SIGNED) FROM "+table)
		if commits := scan[int](t, s, "SELECT COUNT(*) FROM power.commits WHERE writer = ?", w); changes != powerChanges*commits {
			t.Errorf("%s: %d changes of %d commits, want %d of each", table, changes, commits, powerChanges)
		}
		row, err := s.namedRow(bounded(t), "CHECK TABLE "+table+" EXTENDED")
		if err != nil || row["Msg_text"] != "OK" {
			t.Errorf("check %s: %v, %v", table, row, err)
		}
	}
}

// TestAPowerCutAfterAKill ends a server after it has written pages and before they are on
// the disk. The next one finds them in the system's memory, newer than its redo log, takes
// them for durable and forgets that part of the log. A power cut must not undo them.
func TestAPowerCutAfterAKill(t *testing.T) {
	if err := powerloss.Possible(); err != nil {
		t.Skip(err)
	}
	cfg := testConfig(t)
	cfg.StartTimeout = powerLimit
	cfg.Options = map[string]string{"innodb_max_dirty_pages_pct": "0"} // pages are written when nothing else is to do
	s, disk := powerServer(t, cfg)
	must(t, s, "CREATE DATABASE late")
	must(t, s, "CREATE TABLE late.t (id INT PRIMARY KEY, v INT NOT NULL)")
	disk.Set("late", powerloss.Fault{Fail: true}) // of the files of that schema alone
	must(t, s, "INSERT INTO late.t VALUES (1, 1)")
	select {
	case <-s.Exited(): // its own end, at a sync that failed
	case <-time.After(powerLimit):
		t.Fatal("the server goes on although it cannot sync what it has written")
	}
	disk.Mend()
	start(t, s)
	if err := s.Shutdown(bounded(t)); err != nil { // with a checkpoint
		t.Fatal(err)
	}
	if err := disk.Cut(nil); err != nil {
		t.Fatal(err)
	}
	start(t, s)
	if v := scan[int](t, s, "SELECT v FROM late.t WHERE id = 1"); v != 1 {
		t.Errorf("the row holds %d", v)
	}
	row, err := s.namedRow(bounded(t), "CHECK TABLE late.t EXTENDED")
	if err != nil || row["Msg_text"] != "OK" {
		t.Errorf("check: %v, %v", row, err)
	}
}

// powerServer starts a writable server whose data, which are durable by then, are on a disk
// that can lose power.
func powerServer(t *testing.T, cfg Config) (*Server, *powerloss.Disk) {
	t.Helper()
	data := filepath.Join(cfg.Dir, dataName)
	d, err := powerloss.Mount(powerloss.Options{Dir: data, Store: filepath.Join(t.TempDir(), "store"), Journal: []string{""}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	s := openServer(t, cfg)
	if err := syncTree(data); err != nil {
		t.Fatal(err)
	}
	start(t, s)
	writable(t, s, true)
	return s, d
}
