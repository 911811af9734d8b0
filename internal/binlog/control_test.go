package binlog

import (
	"os"
	"testing"
	"time"

	"github.com/phxsql/phxsql/internal/gtid"
)

// mixed is a server's own file: DDL, DML, a tagged GTID, a compressed
// transaction, XA in one and two phases, account statements, CREATE SELECT.
func mixed(t testing.TB) [][]byte {
	t.Helper()
	b, err := os.ReadFile("testdata/mixed-9.7.4.binlog")
	if err != nil {
		t.Fatal(err)
	}
	var events [][]byte
	for b = b[MagicSize:]; len(b) > 0; {
		h, err := ParseHeader(b)
		if err != nil || int(h.Size) > len(b) {
			t.Fatalf("event %d: %+v, %v", len(events), h, err)
		}
		events = append(events, b[:h.Size:h.Size])
		b = b[h.Size:]
	}
	return events
}

func TestServersOwnEventsVerify(t *testing.T) {
	for i, e := range mixed(t) {
		if !Verify(e) {
			t.Errorf("checksum of event %d (%v) is taken for wrong", i, Type(e[4]))
		}
		bad := append([]byte(nil), e...)
		bad[len(bad)/2] ^= 1
		if Verify(bad) {
			t.Errorf("a flipped bit in event %d is not seen", i)
		}
	}
}

func TestTransactionsEndWhereTheirLengthSays(t *testing.T) {
	want := []string{":1", ":2", ":3", ":hello:1", ":4", ":5", ":6", ":7", ":8", ":9"}
	var got []string
	var left uint64
	for i, e := range mixed(t) {
		switch typ := Type(e[4]); {
		case left > 0:
			if uint64(len(e)) > left {
				t.Fatalf("event %d ends after its transaction", i)
			}
			left -= uint64(len(e))
		case typ == GTID || typ == GTIDTagged:
			tx, err := ParseGTID(e)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, tx.GTID.String()[36:])
			left = tx.Length - uint64(len(e))
			if tx.SequenceNumber != int64(len(got)) || tx.LastCommitted >= tx.SequenceNumber {
				t.Errorf("clock of %v: %d, %d", tx.GTID, tx.LastCommitted, tx.SequenceNumber)
			}
		case i > 1:
			t.Fatalf("event %d (%v) is in no transaction", i, typ)
		}
	}
	if left != 0 || len(got) != len(want) {
		t.Fatalf("%d bytes left, transactions %v", left, got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("transaction %d is %s, want %s", i, got[i], want[i])
		}
	}
}

func TestControlEventsRoundTrip(t *testing.T) {
	e := AppendRotate(nil, "binlog.000007", 1<<33, 5)
	if f, p, err := ParseRotate(e); f != "binlog.000007" || p != 1<<33 || err != nil || !Verify(e) {
		t.Errorf("rotate: %q %d %v", f, p, err)
	}
	e = AppendHeartbeat(nil, "f", 77, 5)
	if f, p, err := ParseHeartbeat(e); f != "f" || p != 77 || err != nil || !Verify(e) {
		t.Errorf("heartbeat: %q %d %v", f, p, err)
	}
	for _, pos := range []uint64{4, 250, 251, 1 << 16, 1 << 24, 1 << 40} {
		e = AppendHeartbeatV2(nil, "binlog.000007", pos, 5)
		if f, p, err := ParseHeartbeat(e); f != "binlog.000007" || p != pos || err != nil || !Verify(e) {
			t.Errorf("heartbeat v2: %q %d %v, want %d", f, p, err, pos)
		}
	}
	tx := Transaction{GTID: gtid.GTID{Source: gtid.Source{UUID: gtid.UUID{7}}, GNO: 9}, Length: 70000, LastCommitted: 3, SequenceNumber: 4}
	e = AppendGTID(nil, tx, 5, time.Unix(9, 0), 4)
	if got, err := ParseGTID(e); err != nil || got != tx || !Verify(e) {
		t.Errorf("gtid: %+v %v, want %+v", got, err, tx)
	}
	e = AppendFormatDescription(nil, "9.7.4", 5, time.Unix(9, 0), time.Time{}, 0, 0)
	if h, err := ParseHeader(e); err != nil || h.LogPos != 0 || !Verify(e) {
		t.Errorf("format description: %+v %v", h, err)
	}
}

func FuzzEvents(f *testing.F) {
	for _, e := range mixed(f) {
		f.Add(e)
	}
	f.Add(AppendRotate(nil, "binlog.000007", 4, 1))
	f.Add(AppendHeartbeat(nil, "binlog.000007", 4, 1))
	f.Add(AppendHeartbeatV2(nil, "binlog.000007", 1<<40, 1))
	f.Fuzz(func(t *testing.T, b []byte) {
		Verify(b)
		if h, err := ParseHeader(b); err == nil && h.Size < HeaderSize {
			t.Fatal("an event smaller than its header")
		}
		if tx, err := ParseGTID(b); err == nil && (tx.Length < uint64(len(b)) || tx.GTID.GNO < 1) {
			t.Fatalf("took %+v", tx)
		}
		if file, _, err := ParseRotate(b); err == nil && file == "" {
			t.Fatal("took a rotate without a name")
		}
		_, _, _ = ParseHeartbeat(b)
	})
}

func BenchmarkParseGTID(b *testing.B) {
	e := mixed(b)[2]
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseGTID(e); err != nil {
			b.Fatal(err)
		}
	}
}
