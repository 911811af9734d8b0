package drill

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"fmt"
	mrand "math/rand/v2"
	"sync"
	"time"
)

// The large transactions.
const (
	largeSchema = "large"
	largeRow    = 1 << 20 // bytes of data in a row
	largeSeed   = 32      // bytes that a row repeats
	// LargestTransaction is the most that Plan.Large can be, in bytes.
	LargestTransaction = 200 << 20
	// DefaultLarge is the size of the largest transactions unless another is asked for.
	DefaultLarge = 24 << 20
	largeKept    = 3 // older ones are deleted
	largeLimit   = 90 * time.Second
	largePause   = 4 * time.Second // least time between two of them
	largeShare   = 5               // and so many times as long as the last one took
	lookPause    = 1500 * time.Millisecond
)

// large writes transactions of many rows, one after the other, and deletes the oldest.
// Readers of every port must see all rows of a transaction, or none.
type large struct {
	*crew
	site Site

	mu       sync.Mutex
	rows     map[int64]int64   // of each transaction
	written  map[int64]Outcome // of the writing
	deleted  map[int64]Outcome // of the deletion; 0: none was sent
	next     int64
	oldest   int64
	bytes    int64 // acknowledged
	looks    int
	wrong    []string
	resting  time.Time // until when the writer rests
	mostRows int64     // of a transaction
}

func startLarge(ctx context.Context, s Site) (Load, error) {
	err := prepare(ctx, s.Target, "CREATE DATABASE IF NOT EXISTS "+largeSchema,
		"CREATE TABLE IF NOT EXISTS large.t (id BIGINT NOT NULL, part INT NOT NULL, seed CHAR(32) NOT NULL, data LONGTEXT CHARACTER SET ascii NOT NULL, PRIMARY KEY (id, part))")
	if err != nil {
		return nil, err
	}
	size := s.Large
	if size == 0 {
		size = DefaultLarge
	}
	l := &large{crew: newCrew(ctx), site: s, rows: map[int64]int64{}, written: map[int64]Outcome{}, deleted: map[int64]Outcome{}, oldest: 1, mostRows: max(1, size/largeRow)}
	ports := s.Target.Ports()
	if err := l.client(s, ports[mrand.IntN(len(ports))].RW, largeSchema, lookPause, l.write); err != nil {
		return nil, err
	}
	for _, p := range ports {
		for _, addr := range []string{p.RW, p.RO} {
			where := fmt.Sprintf("node %d, %s", p.Node, addr)
			if err := l.client(s, addr, largeSchema, lookPause, func(conn *sql.Conn) error { return l.look(conn, where) }); err != nil {
				l.Stop()
				return nil, err
			}
		}
	}
	return l, nil
}

// write writes the next transaction, or deletes the oldest if there are too many.
func (l *large) write(conn *sql.Conn) error {
	l.mu.Lock()
	rest, many := time.Until(l.resting), l.next-l.oldest >= largeKept
	l.mu.Unlock()
	if rest > 0 {
		return nil
	}
	if many {
		return l.delete(conn)
	}
	begun := time.Now()
	err := l.insert(conn)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.resting = time.Now().Add(max(largePause, largeShare*time.Since(begun)))
	return err
}

func (l *large) insert(conn *sql.Conn) error {
	l.mu.Lock()
	l.next++
	id, n := l.next, l.mostRows/4+mrand.Int64N(l.mostRows-l.mostRows/4+1)
	n = max(1, n)
	l.rows[id], l.written[id] = n, Unknown // readers may see it from now on
	l.mu.Unlock()
	begin := l.site.Rec.Now()
	o, err := transactionWithin(largeLimit, conn, func(ctx context.Context) error {
		for part := range n {
			var seed [largeSeed / 2]byte
			rand.Read(seed[:])
			text := hex.EncodeToString(seed[:])
			_, err := conn.ExecContext(ctx, fmt.Sprintf("INSERT INTO t VALUES (%d, %d, '%s', REPEAT('%s', %d))", id, part, text, text, largeRow/largeSeed))
			if err != nil {
				return err
			}
		}
		return nil
	})
	l.site.Rec.Write("large", begin, l.site.Rec.Now(), o, map[string]int64{"id": id, "rows": n}, err)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.written[id] = o
	if o == Acknowledged {
		l.bytes += n * largeRow
	}
	return err
}

func (l *large) delete(conn *sql.Conn) error {
	ctx, cancel := context.WithTimeout(context.Background(), largeLimit)
	defer cancel()
	l.mu.Lock()
	id := l.oldest
	l.oldest++
	l.deleted[id] = Unknown
	l.mu.Unlock()
	begin := l.site.Rec.Now()
	_, err := conn.ExecContext(ctx, fmt.Sprintf("DELETE FROM t WHERE id = %d", id))
	o := classify(err)
	l.site.Rec.Write("large", begin, l.site.Rec.Now(), o, map[string]int64{"delete": id}, err)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.deleted[id] = o
	return err
}

// look counts the rows of each transaction in one statement.
func (l *large) look(conn *sql.Conn, where string) error {
	ctx, cancel := context.WithTimeout(context.Background(), largeLimit)
	defer cancel()
	rows, err := conn.QueryContext(ctx, "SELECT id, COUNT(*) FROM t GROUP BY id")
	if err != nil {
		return err
	}
	there, err := scanPairs(rows)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.looks++
	for id, n := range there {
		if n != l.rows[id] && len(l.wrong) < 20 {
			l.wrong = append(l.wrong, fmt.Sprintf("%s: of transaction %d are %d rows there, of %d", where, id, n, l.rows[id]))
		}
	}
	return nil
}

// Judge looks at every row of every node.
func (l *large) Judge(ctx context.Context) (Finding, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := map[Outcome]int{}
	for _, o := range l.written {
		n[o]++
	}
	f := Finding{Load: "large", Acked: n[Acknowledged], Wrong: l.wrong}
	f.Facts = fmt.Sprintf("%d transactions of %d MiB in all acknowledged, %d refused, %d unknown; %d looks", n[Acknowledged], l.bytes>>20, n[Refused], n[Unknown], l.looks)
	for _, p := range l.site.Target.Ports() {
		db, err := l.site.Target.Open(p.RO, largeSchema)
		if err != nil {
			return f, err
		}
		good, err := pairs(ctx, db, fmt.Sprintf("SELECT id, SUM(data = REPEAT(seed, %d)) FROM t GROUP BY id", largeRow/largeSeed))
		db.Close()
		if err != nil {
			return f, fmt.Errorf("read large transactions of node %d: %w", p.Node, err)
		}
		f.Wrong = append(f.Wrong, l.judge(p.Node, good)...)
	}
	return f, nil
}

// judge holds what was told against the good rows of a node.
func (l *large) judge(node int, good map[int64]int64) []string {
	found := map[string][]int64{}
	for id, o := range l.written {
		n, there := good[id]
		d := l.deleted[id]
		if d == Refused {
			d = 0
		}
		switch {
		case there && n != l.rows[id]:
			found["not whole"] = append(found["not whole"], id)
		case o == Acknowledged && d == 0 && !there:
			found[lostRows] = append(found[lostRows], id)
		case o == Refused && there:
			found[ghostRows] = append(found[ghostRows], id)
		case d == Acknowledged && there:
			found["deleted and there"] = append(found["deleted and there"], id)
		}
	}
	for id := range good {
		if l.written[id] == 0 {
			found[strangeRows] = append(found[strangeRows], id)
		}
	}
	return listWrong(node, "large transactions", found)
}
