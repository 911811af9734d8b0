package drill

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// The bank.
const (
	bankSchema   = "bank"
	accounts     = 12
	openingMoney = 1000
	bankTotal    = accounts * openingMoney
	bankPause    = 30 * time.Millisecond
	auditPause   = 60 * time.Millisecond
)

// bank moves money between accounts, and keeps a book of it in the same transaction.
// Auditors add up all accounts on every port, the read-only ports included.
type bank struct {
	*crew
	site Site
	next atomic.Int64

	mu     sync.Mutex
	moves  map[int64]Outcome
	audits int
	wrong  []string
}

func startBank(ctx context.Context, s Site) (Load, error) {
	statements := []string{
		"CREATE DATABASE IF NOT EXISTS " + bankSchema,
		"CREATE TABLE IF NOT EXISTS bank.accounts (id INT PRIMARY KEY, balance BIGINT NOT NULL)",
		"CREATE TABLE IF NOT EXISTS bank.book (id BIGINT PRIMARY KEY, source INT NOT NULL, target INT NOT NULL, amount BIGINT NOT NULL)",
	}
	values := ""
	for i := range accounts {
		if i > 0 {
			values += ", "
		}
		values += fmt.Sprintf("(%d, %d)", i, openingMoney)
	}
	if err := prepare(ctx, s.Target, append(statements, "INSERT IGNORE INTO bank.accounts VALUES "+values)...); err != nil {
		return nil, err
	}
	b := &bank{crew: newCrew(ctx), site: s, moves: map[int64]Outcome{}}
	for _, p := range s.Target.Ports() {
		for range 2 {
			if err := b.client(s, p.RW, bankSchema, bankPause, b.move); err != nil {
				return nil, err
			}
		}
		for _, addr := range []string{p.RW, p.RO} {
			where := fmt.Sprintf("node %d, %s", p.Node, addr)
			if err := b.client(s, addr, bankSchema, auditPause, func(conn *sql.Conn) error { return b.audit(conn, where) }); err != nil {
				return nil, err
			}
		}
	}
	return b, nil
}

// move is one transfer.
func (b *bank) move(conn *sql.Conn) error {
	id, from := b.next.Add(1), rand.IntN(accounts)
	to, amount := (from+1+rand.IntN(accounts-1))%accounts, 1+rand.IntN(50)
	begin := b.site.Rec.Now()
	o, err := transaction(conn, func(ctx context.Context) error {
		for _, q := range []string{
			fmt.Sprintf("UPDATE accounts SET balance = balance - %d WHERE id = %d", amount, from),
			fmt.Sprintf("INSERT INTO book VALUES (%d, %d, %d, %d)", id, from, to, amount),
			fmt.Sprintf("UPDATE accounts SET balance = balance + %d WHERE id = %d", amount, to),
		} {
			if _, err := conn.ExecContext(ctx, q); err != nil {
				return err
			}
		}
		return nil
	})
	b.site.Rec.Write("bank", begin, b.site.Rec.Now(), o, map[string]int64{"id": id, "from": int64(from), "to": int64(to), "amount": int64(amount)}, err)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.moves[id] = o
	return err
}

// audit adds up all accounts in one statement.
func (b *bank) audit(conn *sql.Conn, where string) error {
	ctx, cancel := context.WithTimeout(context.Background(), registerLimit)
	defer cancel()
	begin := b.site.Rec.Now()
	var n, total int64
	if err := conn.QueryRowContext(ctx, "SELECT COUNT(*), COALESCE(SUM(balance), 0) FROM accounts").Scan(&n, &total); err != nil {
		return err
	}
	b.site.Rec.Read("bank", begin, b.site.Rec.Now(), map[string]any{"port": where, "total": total})
	b.mu.Lock()
	defer b.mu.Unlock()
	b.audits++
	// A follower may not have the accounts yet.
	if n != 0 && (n != accounts || total != bankTotal) && len(b.wrong) < 20 {
		b.wrong = append(b.wrong, fmt.Sprintf("%s, %v into the drill: %d accounts hold %d, not %d hold %d", where, time.Duration(begin).Round(time.Millisecond), n, total, accounts, bankTotal))
	}
	return nil
}

// Judge looks for every acknowledged transfer in the book of every node, and holds the
// accounts against the book.
func (b *bank) Judge(ctx context.Context) (Finding, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	wrong := b.wrong
	for _, p := range b.site.Target.Ports() {
		w, err := b.judgeNode(ctx, p)
		if err != nil {
			return Finding{}, fmt.Errorf("read bank of node %d: %w", p.Node, err)
		}
		wrong = append(wrong, w...)
	}
	n := map[Outcome]int{}
	for _, o := range b.moves {
		n[o]++
	}
	facts := fmt.Sprintf("%d transfers acknowledged, %d refused, %d unknown; %d audits", n[Acknowledged], n[Refused], n[Unknown], b.audits)
	return Finding{Load: "bank", Acked: n[Acknowledged] + b.audits, Facts: facts, Wrong: wrong}, nil
}

func (b *bank) judgeNode(ctx context.Context, p Ports) ([]string, error) {
	db, err := b.site.Target.Open(p.RO, bankSchema)
	if err != nil {
		return nil, err
	}
	defer db.Close()
	balance, err := pairs(ctx, db, "SELECT id, balance FROM accounts")
	if err != nil {
		return nil, err
	}
	rows, err := db.QueryContext(ctx, "SELECT id, source, target, amount FROM book")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	want := map[int64]int64{}
	for i := range int64(accounts) {
		want[i] = openingMoney
	}
	there := map[int64]bool{}
	for rows.Next() {
		var id, from, to, amount int64
		if err := rows.Scan(&id, &from, &to, &amount); err != nil {
			return nil, err
		}
		there[id] = true
		want[from] -= amount
		want[to] += amount
	}
	return append(judgeSet(p.Node, "transfers", b.moves, there), judgeBalances(p.Node, balance, want)...), rows.Err()
}

func judgeBalances(node int, got, want map[int64]int64) []string {
	var wrong []string
	for id, w := range want {
		if got[id] != w {
			wrong = append(wrong, fmt.Sprintf("node %d: account %d holds %d, by the book %d", node, id, got[id], w))
		}
	}
	return wrong
}

// pairs returns the rows of a query of two numbers.
func pairs(ctx context.Context, db *sql.DB, q string) (map[int64]int64, error) {
	rows, err := db.QueryContext(ctx, q)
	if err != nil {
		return nil, err
	}
	return scanPairs(rows)
}

// scanPairs reads and closes rows of two numbers.
func scanPairs(rows *sql.Rows) (map[int64]int64, error) {
	defer rows.Close()
	m := map[int64]int64{}
	for rows.Next() {
		var k, v int64
		if err := rows.Scan(&k, &v); err != nil {
			return nil, err
		}
		m[k] = v
	}
	return m, errors.Join(rows.Err(), rows.Close())
}
