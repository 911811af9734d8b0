package drill

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	mysql "github.com/go-sql-driver/mysql"
)

// Outcome is what a client was told about a write.
type Outcome uint8

// The outcomes of a write.
const (
	Acknowledged Outcome = 1 // OK was read: it must be there for ever
	Refused      Outcome = 2 // an error that says that nothing was done: it must not be there
	Unknown      Outcome = 3 // the connection was lost, or the error leaves it open: either
)

// schema holds what workloads write.
const schema = "drill"

// Workload writes rows through the read-write ports, reconnecting after every
// error, and keeps what it was told.
type Workload struct {
	target Target
	rec    *Recorder     // nil: nobody keeps the history
	pace   time.Duration // longest wait between two writes of a client
	turns  *pacer        // with the clients of other loads; nil: none
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu       sync.Mutex
	outcomes map[int64]Outcome
	acks     []time.Time // ascending
	errs     map[string]int
}

// refusals are server errors after which nothing was written.
var refusals = map[uint16]bool{
	1290: true, // the server is read-only
	1836: true, // the same, in read-only mode
	1792: true, // read-only transaction
	1040: true, // too many connections
}

// StartWorkload makes the table and starts one writer per node and port.
func (c *Cluster) StartWorkload(ctx context.Context) (*Workload, error) {
	return startWorkload(ctx, &Workload{target: c})
}

func startWorkload(ctx context.Context, w *Workload) (*Workload, error) {
	err := w.target.Exec(ctx, "CREATE DATABASE IF NOT EXISTS "+schema,
		"CREATE TABLE IF NOT EXISTS "+schema+".writes (id BIGINT PRIMARY KEY, node INT NOT NULL, filler VARCHAR(100) NOT NULL)")
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	w.cancel, w.outcomes, w.errs = cancel, map[int64]Outcome{}, map[string]int{}
	base := time.Now().UnixMilli() * 1_000
	for _, p := range w.target.Ports() {
		db, err := w.target.Open(p.RW, schema)
		if err != nil {
			w.Stop()
			return nil, err
		}
		db.SetMaxOpenConns(1)
		w.wg.Add(1)
		go func() {
			defer w.wg.Done()
			defer db.Close()
			w.write(ctx, db, p.Node, int64(p.Node)*idRange+base)
		}()
	}
	return w, nil
}

// idRange keeps the ids of the writers apart.
const idRange = 1 << 59

// retryPause is between attempts to connect.
const retryPause = 5 * time.Millisecond

// writeLimit bounds one write; a client with patience has longer.
const writeLimit = 20 * time.Second

func (w *Workload) write(ctx context.Context, db *sql.DB, node int, id int64) {
	for ; ctx.Err() == nil; id++ {
		w.turns.wait(ctx)
		conn, err := connect(ctx, db)
		if err != nil {
			w.noteError(err) // nothing was sent
			w.rec.NoConnection("", w.rec.Now(), err)
			select {
			case <-ctx.Done():
			case <-time.After(retryPause):
			}
			id--
			continue
		}
		one, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeLimit)
		begin := w.rec.Now()
		_, err = conn.ExecContext(one, "INSERT INTO writes VALUES (?, ?, REPEAT('x', 80))", id, node)
		cancel()
		w.note(id, begin, classify(err), err)
		if err != nil {
			conn.Raw(func(any) error { return errBad })
		}
		conn.Close()
		if w.pace > 0 {
			wait(ctx, rand.N(w.pace))
		}
	}
}

var errBad = errors.New("this connection has failed")

func classify(err error) Outcome {
	if err == nil {
		return Acknowledged
	}
	var m *mysql.MySQLError
	if errors.As(err, &m) && refusals[m.Number] {
		return Refused
	}
	return Unknown
}

func (w *Workload) note(id, begin int64, o Outcome, err error) {
	if w.rec != nil {
		w.rec.Write("set", begin, w.rec.Now(), o, id, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.outcomes[id] = o
	if o == Acknowledged {
		w.acks = append(w.acks, time.Now())
	}
	if err != nil {
		w.errs[err.Error()]++
	}
}

func (w *Workload) noteError(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.errs[err.Error()]++
}

// Pause is the longest time without an acknowledgement from a moment on.
func (w *Workload) Pause(since time.Time) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	last, longest := since, time.Duration(0)
	for _, t := range w.acks {
		if t.Before(since) {
			continue
		}
		longest = max(longest, t.Sub(last))
		last = t
	}
	return max(longest, time.Since(last))
}

// WaitAck waits for an acknowledgement later than a moment.
func (w *Workload) WaitAck(ctx context.Context, after time.Time) error {
	return Eventually(ctx, func() error {
		w.mu.Lock()
		defer w.mu.Unlock()
		if n := len(w.acks); n == 0 || !w.acks[n-1].After(after) {
			return fmt.Errorf("no write was acknowledged since %s; errors %v", after.Format(time.TimeOnly), w.errs)
		}
		return nil
	})
}

// Count returns how many writes had an outcome.
func (w *Workload) Count(o Outcome) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, x := range w.outcomes {
		if x == o {
			n++
		}
	}
	return n
}

// Errors returns the errors that clients saw, with how often.
func (w *Workload) Errors() map[string]int {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := map[string]int{}
	for k, v := range w.errs {
		out[k] = v
	}
	return out
}

// Stop ends the writers and waits for them.
func (w *Workload) Stop() {
	w.cancel()
	w.wg.Wait()
}

// Verify holds the outcomes against the rows of every node. The workload must
// be stopped and the cluster well.
func (w *Workload) Verify(ctx context.Context) error {
	var errs []error
	for _, p := range w.target.Ports() {
		ids, err := ids(ctx, w.target, p.RO)
		if err != nil {
			return err
		}
		errs = append(errs, w.judge(p.Node, ids))
	}
	return errors.Join(errs...)
}

// judge returns an error for acknowledged rows that are missing and for rows
// that were refused.
func (w *Workload) judge(node int, ids []int64) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	var lost, ghosts []int64
	for id, o := range w.outcomes {
		_, there := slices.BinarySearch(ids, id)
		switch {
		case o == Acknowledged && !there:
			lost = append(lost, id)
		case o == Refused && there:
			ghosts = append(ghosts, id)
		}
	}
	if len(lost)+len(ghosts) == 0 {
		return nil
	}
	slices.Sort(lost)
	slices.Sort(ghosts)
	return fmt.Errorf("node %d: %d acknowledged rows are lost %v, %d refused rows are there %v", node, len(lost), lost[:min(5, len(lost))], len(ghosts), ghosts[:min(5, len(ghosts))])
}

func ids(ctx context.Context, t Target, addr string) ([]int64, error) {
	db, err := t.Open(addr, schema)
	if err != nil {
		return nil, err
	}
	defer db.Close()
	rows, err := db.QueryContext(ctx, "SELECT id FROM writes ORDER BY id")
	if err != nil {
		return nil, fmt.Errorf("read rows of %s: %w", addr, err)
	}
	defer rows.Close()
	var ids []int64
	for rows.Next() {
		var id int64
		if err := rows.Scan(&id); err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, rows.Err()
}
