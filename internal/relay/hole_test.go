package relay

import (
	"testing"
	"time"

	"github.com/phxsql/phxsql/internal/binlog"
	"github.com/phxsql/phxsql/internal/entry"
	"github.com/phxsql/phxsql/internal/gtid"
)

// statement returns the events of a statement that stands alone.
func statement(gno int64, sql string) []byte {
	query := appendQuery(nil, sql, 1, time.Unix(1, 0), 0)
	tx := binlog.Transaction{GTID: txid(gno), LastCommitted: gno - 1, SequenceNumber: gno}
	tx.Length = uint64(len(binlog.AppendGTID(nil, tx, 1, time.Unix(1, 0), 0)) + len(query))
	return append(binlog.AppendGTID(nil, tx, 1, time.Unix(1, 0), 0), query...)
}

// A server that crashed has forgotten a DROP TABLE IF EXISTS that dropped
// nothing, and remembers the CREATE TABLE behind it. It must not execute the
// first one now. What it lacks behind everything it has, it gets as it is.
func TestForgottenStatementsAreNotRepeated(t *testing.T) {
	l := newMemLog(t)
	s := newTestSource(l, SourceOptions{})
	l.add(&entry.Value{Kind: entry.Epoch, Epoch: 1, Node: 1})
	sqls := []string{"", "CREATE DATABASE d", "DROP TABLE IF EXISTS d.t", "CREATE TABLE d.t (a INT)", "DROP TABLE IF EXISTS d.u"}
	v := entry.Value{Kind: entry.Transactions, Epoch: 1, Node: 1}
	for gno := int64(1); gno < int64(len(sqls)); gno++ {
		events := statement(gno, sqls[gno])
		v.Txns = append(v.Txns, entry.Txn{GTID: txid(gno), Size: uint64(len(events))})
		v.Events = append(v.Events, events...)
	}
	l.add(&v)
	have := &gtid.Set{}
	have.Add(txid(1))
	have.Add(txid(3))
	w := dialReplica(t, s)
	if err := w.command(appendDumpRequest(nil, 5, have)); err != nil {
		t.Fatal(err)
	}
	nextEvent(t, w) // rotate
	nextEvent(t, w) // format description
	for _, want := range []struct {
		gno int64
		sql []string
	}{{2, []string{"BEGIN", "COMMIT"}}, {4, []string{"DROP TABLE IF EXISTS d.u"}}} {
		event := nextEvent(t, w)
		tx, err := binlog.ParseGTID(event)
		if err != nil || tx.GTID != txid(want.gno) || tx.SequenceNumber != want.gno {
			t.Fatalf("transaction %v (%v), want %v", tx, err, txid(want.gno))
		}
		size := len(event)
		for _, sql := range want.sql {
			event := nextEvent(t, w)
			size += len(event)
			if got, ok := querySQL(event); !ok || got != sql {
				t.Errorf("%v: statement %q, want %q", tx.GTID, got, sql)
			}
		}
		if tx.Length != uint64(size) {
			t.Errorf("%v: length %d, want %d", tx.GTID, tx.Length, size)
		}
	}
}

func TestRowsAreNoStatement(t *testing.T) {
	head := binlog.AppendGTID(nil, binlog.Transaction{GTID: txid(1), Length: 1000}, 1, time.Unix(1, 0), 0)
	for sql, want := range map[string]bool{"BEGIN": false, "DROP TABLE x": true, "XA START X'61',X'',1": false} {
		if got := isStatement(appendQuery(head[:len(head):len(head)], sql, 1, time.Unix(1, 0), 0)); got != want {
			t.Errorf("%s is a statement: %v", sql, got)
		}
	}
	if isStatement(head) || isStatement(nil) || isStatement(head[:20]) {
		t.Error("too few events are a statement")
	}
}
