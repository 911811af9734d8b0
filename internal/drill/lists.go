package drill

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/phxsql/phxsql/internal/history"
)

// The lists. A key gets only so many values, so that lists stay short.
const (
	listsSchema    = "lists"
	listKeys       = 8
	valuesPerEra   = listKeys * 30
	listsPause     = 40 * time.Millisecond
	clientsOfLists = 3 // per port
)

// listLevel is an isolation level with its table.
type listLevel struct {
	name, table, set string
	level            history.Level
}

var (
	repeatableRead = listLevel{"lists", "rr", "REPEATABLE READ", history.RepeatableRead}
	serializable   = listLevel{"serializable", "ser", "SERIALIZABLE", history.Serializable}
)

// lists runs transactions that append unique values to lists and read lists.
type lists struct {
	*crew
	site Site
	at   listLevel
	next atomic.Int64
	ids  atomic.Int64 // of connections

	mu   sync.Mutex
	txns []history.Txn
}

func startListsAt(at listLevel) func(context.Context, Site) (Load, error) {
	return func(ctx context.Context, s Site) (Load, error) {
		err := prepare(ctx, s.Target, "CREATE DATABASE IF NOT EXISTS "+listsSchema,
			fmt.Sprintf("CREATE TABLE IF NOT EXISTS %s.%s (k BIGINT PRIMARY KEY, v TEXT NOT NULL)", listsSchema, at.table))
		if err != nil {
			return nil, err
		}
		l := &lists{crew: newCrew(ctx), site: s, at: at}
		for _, p := range s.Target.Ports() {
			for range clientsOfLists {
				if err := l.start(p); err != nil {
					l.Stop()
					return nil, err
				}
			}
		}
		return l, nil
	}
}

// start starts a client; each of its connections gets the isolation level first.
func (l *lists) start(p Ports) error {
	var ready *sql.Conn
	id := int(l.ids.Add(1))
	return l.client(l.site, p.RW, listsSchema, listsPause, func(conn *sql.Conn) error {
		if conn != ready {
			ctx, cancel := context.WithTimeout(context.Background(), registerLimit)
			defer cancel()
			if _, err := conn.ExecContext(ctx, "SET SESSION TRANSACTION ISOLATION LEVEL "+l.at.set); err != nil {
				return err
			}
			if _, err := conn.ExecContext(ctx, "SET SESSION innodb_lock_wait_timeout = 3"); err != nil {
				return err
			}
			ready = conn
		}
		return l.one(conn, id)
	})
}

// one is one transaction.
func (l *lists) one(conn *sql.Conn, client int) error {
	t := history.Txn{Client: client, Begin: l.site.Rec.Now()}
	o, err := transaction(conn, func(ctx context.Context) error {
		for range 1 + rand.IntN(4) {
			op, err := l.step(ctx, conn)
			if op.Append != 0 || err == nil {
				t.Ops = append(t.Ops, op)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	t.End = l.site.Rec.Now()
	t.Outcome = map[Outcome]history.Outcome{Acknowledged: history.Committed, Refused: history.Aborted, Unknown: history.Unknown}[o]
	l.site.Rec.Write(l.at.name, t.Begin, t.End, o, t, err)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.txns = append(l.txns, t)
	return err
}

// step appends or reads.
func (l *lists) step(ctx context.Context, conn *sql.Conn) (history.Op, error) {
	era := l.next.Load() / valuesPerEra
	key := era*listKeys + rand.Int64N(listKeys)
	if rand.IntN(2) == 0 {
		v := l.next.Add(1)
		_, err := conn.ExecContext(ctx, fmt.Sprintf("INSERT INTO %s VALUES (%d, '%d') ON DUPLICATE KEY UPDATE v = CONCAT(v, ',%d')", l.at.table, key, v, v))
		return history.Op{Key: history.Key(key), Append: history.Value(v)}, err
	}
	var text string
	err := conn.QueryRowContext(ctx, fmt.Sprintf("SELECT v FROM %s WHERE k = %d", l.at.table, key)).Scan(&text)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return history.Op{}, err
	}
	vs, err := parseList(text)
	return history.Op{Key: history.Key(key), Read: vs}, err
}

func parseList(text string) ([]history.Value, error) {
	vs := []history.Value{}
	for _, f := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' }) {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("read list %q: %w", text, err)
		}
		vs = append(vs, history.Value(n))
	}
	return vs, nil
}

// Judge reads all lists of every node and judges the history with them.
func (l *lists) Judge(ctx context.Context) (Finding, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := Finding{Load: l.at.name}
	told := ""
	for i, p := range l.site.Target.Ports() {
		final, err := l.final(ctx, p)
		if err != nil {
			return f, fmt.Errorf("read lists of node %d: %w", p.Node, err)
		}
		r := history.Check(l.txns, final, l.at.level)
		if i == 0 {
			f.Acked = r.Committed
			f.Facts = fmt.Sprintf("%d transactions committed, %d refused, %d unknown, of which %d are there", r.Committed, r.Aborted, r.Unknown, r.Seen)
			if len(r.Allowed) > 0 {
				f.Noted = append(f.Noted, "MySQL's own at "+l.at.level.String()+": "+r.Names(r.Allowed))
			}
		}
		if l.site.StaleReads {
			var old []history.Anomaly
			r.Forbidden, old = withoutStale(r.Forbidden)
			if len(old) > 0 && i == 0 {
				f.Noted = append(f.Noted, staleNote+": "+r.Names(old))
			}
		}
		if len(r.Forbidden) == 0 {
			continue
		}
		names := r.Names(r.Forbidden)
		f.Wrong = append(f.Wrong, fmt.Sprintf("by the lists of node %d: %s", p.Node, names))
		if names == told {
			continue // as on the node before; members that differ are found by Cluster.Compare
		}
		told = names
		for _, a := range r.Forbidden {
			f.Wrong = append(f.Wrong, a.Name+": "+a.Text)
		}
	}
	return f, nil
}

// staleNote says why an old answer is not wrong.
const staleNote = "old answers, of clocks that are more wrong than is allowed"

// withoutStale parts anomalies from those that are old answers and no more.
func withoutStale(all []history.Anomaly) (rest, old []history.Anomaly) {
	for _, a := range all {
		if a.Name == history.StaleRead || strings.HasSuffix(a.Name, history.RealTimeTag) {
			old = append(old, a)
		} else {
			rest = append(rest, a)
		}
	}
	return rest, old
}

func (l *lists) final(ctx context.Context, p Ports) (map[history.Key][]history.Value, error) {
	db, err := l.site.Target.Open(p.RO, listsSchema)
	if err != nil {
		return nil, err
	}
	defer db.Close()
	rows, err := db.QueryContext(ctx, "SELECT k, v FROM "+l.at.table)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	final := map[history.Key][]history.Value{}
	for rows.Next() {
		var k int64
		var text string
		if err := rows.Scan(&k, &text); err != nil {
			return nil, err
		}
		if final[history.Key(k)], err = parseList(text); err != nil {
			return nil, err
		}
	}
	return final, rows.Err()
}
