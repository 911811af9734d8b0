package relay

import (
	"encoding/binary"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/phxsql/phxsql/internal/binlog"
	"github.com/phxsql/phxsql/internal/entry"
	"github.com/phxsql/phxsql/internal/gtid"
	"github.com/phxsql/phxsql/paxos"
)

// statusOf encodes status variables: a catalog, the client's collation, some that are
// passed over, and that the statement is one transaction of the engine.
func statusOf(collation uint16, effective bool) []byte {
	b := []byte{0, 1, 2, 3, 4, statusCatalog, 3, 's', 't', 'd', statusCharset}
	b = binary.LittleEndian.AppendUint16(b, collation)
	b = append(b, 0, 0, 0, 0, statusTimeZone, 3, 'U', 'T', 'C', statusInvoker, 1, 'u', 2, 'h', 'h', statusDatabases, 2, 'a', 0, 'b', 'c', 0)
	if effective {
		b = append(b, statusXID, 1, 2, 3, 4, 5, 6, 7, 8)
	}
	return b
}

// ddl is a transaction of one statement.
func ddl(g gtid.GTID, schema, sql string, status []byte) []byte {
	now := time.Unix(1e9, 0)
	b := binlog.AppendGTID(nil, binlog.Transaction{GTID: g}, 1, now, 0)
	body := make([]byte, queryFixed)
	body[8] = byte(len(schema))
	binary.LittleEndian.PutUint16(body[11:], uint16(len(status)))
	body = append(body, status...)
	body = append(append(append(body, schema...), 0), sql...)
	return binlog.AppendEvent(b, binlog.Header{Timestamp: 1e9, Type: binlog.Query, ServerID: 1}, body, 0)
}

// logged is a statement that a test has in its log.
type logged struct {
	sql    string
	noop   bool // without effect
	latin1 bool
}

// logOf is a log of the statements 1, 2, ... of one master, one in each value.
func logOf(t *testing.T, list []logged) *Journal {
	t.Helper()
	l := newMemLog(t)
	l.add(&entry.Value{Kind: entry.Epoch, Epoch: 1, Node: 1})
	for i, s := range list {
		collation := uint16(255)
		if s.latin1 {
			collation = 8
		}
		g := txid(int64(i + 1))
		events := ddl(g, "d", s.sql, statusOf(collation, !s.noop))
		l.add(&entry.Value{Kind: entry.Transactions, Epoch: 1, Node: 1, Txns: []entry.Txn{{GTID: g, Size: uint64(len(events))}}, Events: events})
	}
	return NewJournal(l, Base{}, quiet())
}

func TestDropped(t *testing.T) {
	has := func(sql ...string) (list []logged) {
		for _, s := range sql {
			list = append(list, logged{sql: s})
		}
		return list
	}
	p := []Routine{{Procedure, "d", "p"}}
	for _, c := range []struct {
		name string
		list []logged
		have string // of aa...:
		want []Routine
	}{
		{"dropped", has("CREATE PROCEDURE p()", "GRANT EXECUTE ON PROCEDURE p TO u", "DROP PROCEDURE p", "CREATE TABLE t (a INT)"), "1-4", p},
		{"of another schema", has("DROP FUNCTION IF EXISTS e.f"), "1", []Routine{{Function, "e", "f"}}},
		{"not executed", has("CREATE PROCEDURE p()", "DROP PROCEDURE p"), "1", nil},
		{"executed, what stands before it is forgotten", has("DROP PROCEDURE p", "DROP PROCEDURE q"), "2", []Routine{{Procedure, "d", "q"}}},
		{"made again", has("DROP PROCEDURE p", "CREATE PROCEDURE d.P()", "DROP DATABASE d"), "1-3", nil},
		{"a library", has("CREATE LIBRARY IF NOT EXISTS p LANGUAGE JAVASCRIPT AS 'x'", "DROP LIBRARY p"), "1-2", []Routine{{Library, "d", "p"}}},
		{"a library is made again", has("DROP LIBRARY p", "CREATE LIBRARY p LANGUAGE JAVASCRIPT AS 'x'"), "1-2", nil},
		{"a function is made", has("DROP PROCEDURE p", "CREATE FUNCTION p() RETURNS INT RETURN 1"), "1-2", p},
		{"made again, not executed", has("DROP PROCEDURE p", "CREATE PROCEDURE p()"), "1", p},
		{"without effect", []logged{{sql: "DROP PROCEDURE IF EXISTS p", noop: true}}, "1", nil},
		{"another character set", []logged{{sql: "DROP PROCEDURE p", latin1: true}}, "1", p},
		{"characters that cannot be told", []logged{{sql: "DROP PROCEDURE p"}, {sql: "CREATE PROCEDURE ö()", latin1: true}}, "1-2", nil},
		{"UTF-8", has("DROP PROCEDURE ö"), "1", []Routine{{Procedure, "d", "ö"}}},
		{"a statement that cannot be read", has("DROP PROCEDURE p", "CREATE DEFINER"), "1-2", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := txid(1).Source.UUID.String()
			got, err := logOf(t, c.list).Dropped(t.Context(), setOf(t, u+":"+c.have))
			if err != nil || !slices.Equal(got, c.want) {
				t.Errorf("%v, %v, want %v", got, err, c.want)
			}
		})
	}
}

func TestDroppedNeedsTheLog(t *testing.T) {
	j := logOf(t, []logged{{sql: "DROP PROCEDURE p"}})
	if got, err := j.Dropped(t.Context(), setOf(t, txid(1).Source.UUID.String()+":1-2")); err == nil {
		t.Errorf("%v of a log that lacks what the server has", got)
	}
}

// A statement in chunks is read, too.
func TestDroppedInChunks(t *testing.T) {
	l := newMemLog(t)
	l.add(&entry.Value{Kind: entry.Epoch, Epoch: 1, Node: 1})
	add := func(g gtid.GTID, sql string) {
		events := ddl(g, "d", sql, statusOf(255, true))
		txn := []entry.Txn{{GTID: g, Size: uint64(len(events))}}
		for at := 0; at < len(events); at += 100 {
			end := min(at+100, len(events))
			l.add(&entry.Value{Kind: entry.Chunk, Epoch: 1, Node: 1, Txns: txn, Offset: uint64(at), Last: end == len(events), Events: events[at:end]})
		}
	}
	long := string(make([]byte, 2*maxRoutineHead))
	add(txid(1), "DROP PROCEDURE p")
	add(txid(2), "DROP PROCEDURE q")
	add(txid(3), "CREATE PROCEDURE p() /*"+long+"*/ SELECT 1")
	j := NewJournal(l, Base{}, quiet())
	got, err := j.Dropped(t.Context(), setOf(t, txid(1).Source.UUID.String()+":1-3"))
	if want := []Routine{{Procedure, "d", "q"}}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v, want %v", got, err, want)
	}
}

// The log is read from so far back as the limit says, and not from where it is trimmed.
func TestDroppedBegins(t *testing.T) {
	j := NewJournal(newMemLog(t), Base{}, quiet())
	j.index.list = nil
	for i := range 10 {
		j.index.add(checkpoint{next: instanceOf(i), executed: setOf(t, firstOf(i)), bytes: uint64(100 * i)})
	}
	for _, c := range []struct {
		have, want int
		bytes      uint64
		trimmed    int
	}{{9, 6, 300, 0}, {9, 0, 1e6, 0}, {4, 2, 150, 0}, {9, 8, 1e6, 8}, {0, 0, 50, 0}} {
		j.log.(*memLog).first = instanceOf(c.trimmed)
		if got := j.behind(setOf(t, firstOf(c.have)), c.bytes); got.next != instanceOf(c.want) {
			t.Errorf("%+v: from %d", c, got.next)
		}
	}
}

func instanceOf(i int) paxos.Instance { return paxos.Instance(1 + 10*i) }

// firstOf is the set of the first i transactions.
func firstOf(i int) string {
	if i == 0 {
		return ""
	}
	return fmt.Sprintf("%v:1-%d", txid(1).Source.UUID, i)
}

func FuzzRoutineOf(f *testing.F) {
	f.Add(ddl(txid(1), "d", "DROP PROCEDURE p", statusOf(255, true)))
	f.Add(ddl(txid(1), "d", "CREATE PROCEDURE p() SELECT 1", statusOf(8, false)))
	f.Fuzz(func(t *testing.T, events []byte) {
		r, change := routineOf(events)
		if (change == routineDropped || change == routineCreated) && r.Name == "" {
			t.Errorf("%d of no routine", change)
		}
	})
}
