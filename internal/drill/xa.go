package drill

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	mysql "github.com/go-sql-driver/mysql"
)

// The XA transactions.
const (
	xaSchema  = "xatest"
	xaParts   = 3       // rows of a transaction
	xaPrefix  = "drill" // of the names of transactions
	xaPause   = 300 * time.Millisecond
	xaPatient = 5 * time.Second // longest time between a prepare and its decision
	xaLimit   = 15 * time.Second
)

// codeUnknownXID is the server's answer to a decision about what is not prepared.
const codeUnknownXID = 1397

// xaTxn is an XA transaction of some rows, which another session decides about later.
type xaTxn struct {
	id       int64
	prepared Outcome // of XA PREPARE, or of a step before it
	commit   bool    // what is to be decided; never the other
	due      time.Time
	tried    bool    // a decision was sent and its outcome is not known
	decided  Outcome // of the decision; Unknown once it may have been carried out; 0: none was sent
}

func (t *xaTxn) name() string { return fmt.Sprintf("'%s%d'", xaPrefix, t.id) }

// xa prepares transactions on each read-write port; other clients decide about them some
// seconds later, on whatever port, when the master may be another.
type xa struct {
	*crew
	site Site
	next atomic.Int64

	mu      sync.Mutex
	txns    map[int64]*xaTxn
	waiting []*xaTxn // may be prepared, and are to be decided
	wrong   []string
}

func startXA(ctx context.Context, s Site) (Load, error) {
	err := prepare(ctx, s.Target, "CREATE DATABASE IF NOT EXISTS "+xaSchema,
		"CREATE TABLE IF NOT EXISTS "+xaSchema+".t (id BIGINT NOT NULL, part INT NOT NULL, PRIMARY KEY (id, part))")
	if err != nil {
		return nil, err
	}
	x := &xa{crew: newCrew(ctx), site: s, txns: map[int64]*xaTxn{}}
	for _, p := range s.Target.Ports() {
		for _, one := range []func(*sql.Conn) error{x.prepare, x.decide} {
			if err := x.client(s, p.RW, xaSchema, xaPause, one); err != nil {
				x.Stop()
				return nil, err
			}
		}
	}
	return x, nil
}

// prepare leaves a transaction prepared.
func (x *xa) prepare(conn *sql.Conn) error {
	ctx, cancel := context.WithTimeout(context.Background(), xaLimit)
	defer cancel()
	t := &xaTxn{id: x.next.Add(1), prepared: Refused, commit: rand.IntN(3) > 0, due: time.Now().Add(rand.N(xaPatient))}
	name := t.name()
	begin := x.site.Rec.Now()
	steps := []string{"XA START " + name}
	for part := range xaParts {
		steps = append(steps, fmt.Sprintf("INSERT INTO t VALUES (%d, %d)", t.id, part))
	}
	var err error
	for _, q := range append(steps, "XA END "+name) {
		if _, err = conn.ExecContext(ctx, q); err != nil {
			break // the transaction ends with its connection
		}
	}
	if err == nil {
		_, err = conn.ExecContext(ctx, "XA PREPARE "+name)
		t.prepared = classify(err)
	}
	x.site.Rec.Write("xa", begin, x.site.Rec.Now(), t.prepared, map[string]any{"prepare": t.id}, err)
	x.mu.Lock()
	defer x.mu.Unlock()
	x.txns[t.id] = t
	if t.prepared != Refused {
		x.waiting = append(x.waiting, t)
	}
	return err
}

// decide commits or rolls back the next transaction that is due, if there is one.
func (x *xa) decide(conn *sql.Conn) error {
	t := x.take(time.Now())
	if t == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), xaLimit)
	defer cancel()
	word := "ROLLBACK"
	if t.commit {
		word = "COMMIT"
	}
	begin := x.site.Rec.Now()
	_, err := conn.ExecContext(ctx, "XA "+word+" "+t.name())
	o := classify(err)
	x.site.Rec.Write("xa", begin, x.site.Rec.Now(), o, map[string]any{word: t.id}, err)
	x.mu.Lock()
	defer x.mu.Unlock()
	if wrong := t.told(err); wrong != "" && len(x.wrong) < 20 {
		x.wrong = append(x.wrong, fmt.Sprintf("%v into the drill: %s", time.Duration(begin).Round(time.Millisecond), wrong))
	}
	if t.decided != Acknowledged && !unknownXID(err) {
		t.due = time.Now().Add(rand.N(xaPatient))
		x.waiting = append(x.waiting, t) // it may be prepared still
	}
	return err
}

// take takes a transaction whose time has come off the list.
func (x *xa) take(now time.Time) *xaTxn {
	x.mu.Lock()
	defer x.mu.Unlock()
	i := slices.IndexFunc(x.waiting, func(t *xaTxn) bool { return t.due.Before(now) })
	if i < 0 {
		return nil
	}
	t := x.waiting[i]
	x.waiting = slices.Delete(x.waiting, i, i+1)
	return t
}

func unknownXID(err error) bool {
	var said *mysql.MySQLError
	return errors.As(err, &said) && said.Number == codeUnknownXID
}

// told notes the answer to a decision, and says what is wrong with it.
func (t *xaTxn) told(err error) string {
	switch o := classify(err); {
	case unknownXID(err):
		if t.prepared == Acknowledged && !t.tried {
			t.decided = Unknown
			return fmt.Sprintf("transaction %d was prepared, and the server does not know it", t.id)
		}
		// Either it was never prepared, or an earlier decision was carried out, or is
		// being carried out and may yet be lost with its master.
		t.decided = Unknown
	case o == Acknowledged:
		t.decided = Acknowledged
	case o == Unknown:
		t.tried, t.decided = true, Unknown
	}
	return ""
}

// Judge counts the rows of each transaction on every node, and looks for those that are
// prepared.
func (x *xa) Judge(ctx context.Context) (Finding, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	n := map[string]int{}
	f := Finding{Load: "xa", Wrong: x.wrong}
	for _, t := range x.txns {
		switch {
		case t.prepared == Acknowledged:
			n["prepared"]++
			f.Acked++
		case t.prepared == Unknown:
			n["unsure"]++
		}
		if t.decided == Acknowledged {
			f.Acked++
			n["decided"]++
		}
	}
	f.Facts = fmt.Sprintf("%d transactions prepared, %d perhaps; %d of them decided by other sessions, %d waiting", n["prepared"], n["unsure"], n["decided"], len(x.waiting))
	for _, p := range x.site.Target.Ports() {
		rows, prepared, err := x.found(ctx, p)
		if err != nil {
			return f, fmt.Errorf("read XA transactions of node %d: %w", p.Node, err)
		}
		f.Wrong = append(f.Wrong, judgeXA(p.Node, x.txns, rows, prepared)...)
	}
	return f, nil
}

// found are the rows of each transaction that a node shows, and what it has prepared.
func (x *xa) found(ctx context.Context, p Ports) (map[int64]int64, map[int64]bool, error) {
	db, err := x.site.Target.Open(p.RO, xaSchema)
	if err != nil {
		return nil, nil, err
	}
	defer db.Close()
	rows, err := pairs(ctx, db, "SELECT id, COUNT(*) FROM t GROUP BY id")
	if err != nil {
		return nil, nil, err
	}
	prepared, err := preparedXA(ctx, db)
	return rows, prepared, err
}

// preparedXA are the transactions of drills that a server has prepared.
func preparedXA(ctx context.Context, db *sql.DB) (map[int64]bool, error) {
	list, err := db.QueryContext(ctx, "XA RECOVER")
	if err != nil {
		return nil, err
	}
	defer list.Close()
	prepared := map[int64]bool{}
	for list.Next() {
		var format, gtrid, bqual int64
		var name string
		if err := list.Scan(&format, &gtrid, &bqual, &name); err != nil {
			return nil, err
		}
		number, ours := strings.CutPrefix(name, xaPrefix)
		if id, err := strconv.ParseInt(number, 10, 64); ours && err == nil { // else somebody else's
			prepared[id] = true
		}
	}
	return prepared, list.Err()
}

// judgeXA holds what was told about transactions against the rows that a node shows and
// what it has prepared.
func judgeXA(node int, txns map[int64]*xaTxn, rows map[int64]int64, prepared map[int64]bool) []string {
	found := map[string][]int64{}
	note := func(id int64, bad bool, how string) {
		if bad {
			found[how] = append(found[how], id)
		}
	}
	for id, t := range txns {
		there, half, waits := rows[id] == xaParts, rows[id] != 0 && rows[id] != xaParts, prepared[id]
		note(id, half, "half there")
		note(id, waits && rows[id] != 0, "prepared and there")
		note(id, t.prepared == Refused && (there || waits), ghostRows)
		note(id, t.decided == Acknowledged && waits, "decided and still prepared")
		note(id, t.decided == Acknowledged && t.commit && !there, "committed and not there")
		note(id, !t.commit && rows[id] != 0, "there and never committed")
		note(id, t.decided == 0 && rows[id] != 0, "there and not decided")
		note(id, t.prepared == Acknowledged && t.decided == 0 && !waits, "prepared, not decided, and lost")
		note(id, t.prepared == Acknowledged && t.commit && !waits && !there, "prepared, never rolled back, and lost")
	}
	for id := range rows {
		note(id, txns[id] == nil, strangeRows)
	}
	return listWrong(node, "XA transactions", found)
}
