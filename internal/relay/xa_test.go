package relay

import (
	"bytes"
	"encoding/binary"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/phxsql/phxsql/internal/binlog"
	"github.com/phxsql/phxsql/internal/entry"
	"github.com/phxsql/phxsql/internal/gtid"
	"github.com/phxsql/phxsql/paxos"
)

// transactions are those of a server's own file.
func transactions(t testing.TB, file string) [][]byte {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var list [][]byte
	for at := binlog.MagicSize; at < len(b); {
		h, err := binlog.ParseHeader(b[at:])
		if err != nil {
			t.Fatal(err)
		}
		size := uint64(h.Size)
		if h.Type == binlog.GTID || h.Type == binlog.GTIDTagged {
			tx, err := binlog.ParseGTID(b[at : at+int(h.Size)])
			if err != nil {
				t.Fatal(err)
			}
			size = tx.Length
			list = append(list, b[at:at+int(size)])
		}
		at += int(size)
	}
	return list
}

const mixedFile = "../binlog/testdata/mixed-9.7.4.binlog"

func TestXATransactionsAreRecognised(t *testing.T) {
	var x xaReader
	defer x.close()
	kinds := map[xaKind]int{}
	payloads := 0
	for _, events := range transactions(t, mixedFile) {
		id, kind, err := x.read(bytes.NewReader(events))
		if err != nil {
			t.Fatal(err)
		}
		if (id == "") != (kind == xaNone) {
			t.Errorf("kind %d with the identifier %q", kind, id)
		}
		if kind != xaNone && !mayBeXA(events) {
			t.Errorf("%s is overlooked", id)
		}
		if kind == xaNone && mayBeXA(events) {
			payloads++
		}
		kinds[kind]++
	}
	t.Logf("%v, %d payloads", kinds, payloads)
	if kinds[xaPrepared] == 0 || kinds[xaOnePhase] == 0 || kinds[xaDecided] == 0 || payloads == 0 {
		t.Errorf("kinds %v, %d payloads", kinds, payloads)
	}
	for k := range xaKind(numXAKinds) {
		if kinds[k] == 0 {
			t.Errorf("no transaction of kind %d", k)
		}
	}
}

func FuzzReadXA(f *testing.F) {
	for _, events := range transactions(f, mixedFile) {
		f.Add(events)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var x xaReader
		defer x.close()
		_, kind, err := x.read(bytes.NewReader(b))
		if err == nil && kind != xaNone && !mayBeXA(b) && oneGTID(b) {
			t.Errorf("a transaction of kind %d is overlooked", kind)
		}
	})
}

// oneGTID reports whether just the first event is a GTID, as in every transaction.
func oneGTID(b []byte) bool {
	for n := range 2 {
		h, err := binlog.ParseHeader(b)
		if err != nil || (h.Type == binlog.GTID || h.Type == binlog.GTIDTagged) != (n == 0) || int(h.Size) > len(b) {
			return false
		}
		b = b[h.Size:]
	}
	return true
}

// xaEvents returns the events of a transaction: "prepare", "one phase", "commit",
// "rollback" or "rows".
func xaEvents(gno int64, what, id string) []byte {
	now := time.Unix(1, 0)
	var b []byte
	switch what {
	case "commit":
		b = appendQuery(b, "XA COMMIT "+id, 1, now, 0)
	case "rollback":
		b = appendQuery(b, "XA ROLLBACK "+id, 1, now, 0)
	case "rows":
		b = appendQuery(b, "BEGIN", 1, now, 0)
		b = binlog.AppendEvent(b, binlog.Header{Type: binlog.XID}, make([]byte, 8), 0)
	default:
		body := []byte{0}
		if what == "one phase" {
			body[0] = 1
		}
		b = appendQuery(b, "XA START "+id, 1, now, 0)
		b = appendQuery(b, "XA END "+id, 1, now, 0)
		b = binlog.AppendEvent(b, binlog.Header{Type: binlog.XAPrepare}, binary.LittleEndian.AppendUint32(body, 1), 0)
	}
	tx := binlog.Transaction{GTID: txid(gno), LastCommitted: gno - 1, SequenceNumber: gno}
	tx.Length = uint64(len(binlog.AppendGTID(nil, tx, 1, now, 0)) + len(b))
	return append(binlog.AppendGTID(nil, tx, 1, now, 0), b...)
}

type xaStep struct{ what, id string }

// xaLog holds one transaction in each value, numbered from 1; every other one is in
// two chunks.
func xaLog(t *testing.T, steps []xaStep) *memLog {
	l := newMemLog(t)
	l.add(&entry.Value{Kind: entry.Epoch, Epoch: 1, Node: 1})
	for n, s := range steps {
		events := xaEvents(int64(n+1), s.what, s.id)
		txn := entry.Txn{GTID: txid(int64(n + 1)), Size: uint64(len(events))}
		v := entry.Value{Kind: entry.Transactions, Epoch: 1, Node: 1, Txns: []entry.Txn{txn}, Events: events}
		if n%2 == 0 {
			l.add(&v)
			continue
		}
		v.Kind = entry.Chunk
		half := len(events) / 2
		v.Events = events[:half]
		l.add(&v)
		v.Offset, v.Last, v.Events = uint64(half), true, events[half:]
		l.add(&v)
	}
	return l
}

func TestUndecidedIsWhatAReplicaLacksTwice(t *testing.T) {
	steps := []xaStep{
		{"prepare", "X'61',X'',1"},   // 1
		{"prepare", "X'62',X'',1"},   // 2
		{"rows", ""},                 // 3
		{"commit", "X'61',X'',1"},    // 4
		{"prepare", "X'61',X'',1"},   // 5: again
		{"one phase", "X'63',X'',1"}, // 6
		{"prepare", "X'64',X'',1"},   // 7
		{"rollback", "X'64',X'',1"},  // 8
		{"rows", ""},                 // 9
		{"rollback", "X'62',X'',1"},  // 10
		{"commit", "X'61',X'',1"},    // 11
		{"prepare", "X'65',X'',1"},   // 12
	}
	l := xaLog(t, steps)
	j := NewJournal(l, Base{}, quiet())
	if err := j.WaitThrough(t.Context(), l.Chosen()); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ have, want []int64 }{
		{[]int64{3, 4, 6, 8, 9}, []int64{2, 5}},       // a replica killed after 9
		{[]int64{3, 4, 6, 8, 9, 10}, []int64{5}},      // after 10
		{[]int64{3, 4, 6, 8, 9, 10, 11}, nil},         // after 11; 12 comes later
		{[]int64{3}, []int64{1, 2}},                   // after 3
		{[]int64{1, 2, 3, 4, 5, 6, 7, 8, 9, 12}, nil}, // a master: nothing prepared is missing
		{nil, nil},
	} {
		set := func(list []int64) *gtid.Set {
			s := &gtid.Set{}
			for _, n := range list {
				s.Add(txid(n))
			}
			return s
		}
		at, forgotten, err := j.start(set(c.have))
		if err != nil || !forgotten.Empty() {
			t.Fatalf("%v: forgotten %v, %v", c.have, forgotten, err)
		}
		got, err := findUndecided(l, at, set(c.have))
		if err != nil || !got.Equal(set(c.want)) {
			t.Errorf("with %v undecided %v (%v), want %v", c.have, got, err, set(c.want))
		}
	}
	if at, want := j.undecided(), l.Chosen()-1; at != want { // in two chunks
		t.Errorf("the first undecided one begins at %d, want %d", at, want)
	}
	if got, want := j.Held(j.Executed()), l.Chosen()-2; got != want {
		t.Errorf("held through %d, want %d", got, want)
	}
}

// What is prepared and not decided is needed from the log, also by a server that
// is behind.
func TestHeldEndsBeforeWhatIsUndecided(t *testing.T) {
	l := newMemLog(t)
	l.add(&entry.Value{Kind: entry.Epoch, Epoch: 1, Node: 1})
	n := int64(0)
	add := func(what, id string) paxos.Instance {
		n++
		events := xaEvents(n, what, id)
		if what == "rows" {
			events = append(events, make([]byte, checkpointBytes)...)
		}
		return l.add(&entry.Value{Kind: entry.Transactions, Epoch: 1, Node: 1, Events: events,
			Txns: []entry.Txn{{GTID: txid(n), Size: uint64(len(events))}}})
	}
	add("rows", "")
	prepare := add("prepare", "X'61',X'',1")
	add("rows", "")
	behind := n
	add("rows", "")
	add("commit", "X'61',X'',1")
	last := add("rows", "")
	j := NewJournal(l, Base{}, quiet())
	if err := j.WaitThrough(t.Context(), l.Chosen()); err != nil {
		t.Fatal(err)
	}
	set := &gtid.Set{}
	set.AddInterval(txid(1).Source, gtid.Interval{First: 1, Last: behind})
	if got := j.Held(set); got != prepare-1 {
		t.Errorf("a server that lacks the decision holds %d, want %d", got, prepare-1)
	}
	if got := j.Held(j.Executed()); got != last {
		t.Errorf("a server with all holds %d, want %d", got, last)
	}
	if b, err := j.Locate(set); err != nil || b.Next > prepare {
		t.Errorf("a server that lacks the decision goes on at %d (%v), want at most %d", b.Next, err, prepare)
	}
	if !slices.ContainsFunc(j.index.list, func(c checkpoint) bool { return c.undecided == prepare }) {
		t.Error("no checkpoint knows what is undecided")
	}
}
