package evidence

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/phxsql/phxsql/internal/binlog"
	"github.com/phxsql/phxsql/internal/gtid"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// mixed is a server's own file.
const mixed = "../binlog/testdata/mixed-9.7.4.binlog"

func txid(n int64) gtid.GTID {
	return gtid.GTID{Source: gtid.Source{UUID: gtid.UUID{0xaa}}, GNO: n}
}

func set(first, last int64) *gtid.Set {
	s := &gtid.Set{}
	if first <= last {
		s.AddInterval(txid(1).Source, gtid.Interval{First: first, Last: last})
	}
	return s
}

// file makes a binary log of n transactions with bodies of a size.
func file(n int64, size int) []byte {
	b := binlog.RestartFile("9.7.4", 1, noon)
	for g := int64(1); g <= n; g++ {
		t := binlog.Transaction{GTID: txid(g), LastCommitted: g - 1, SequenceNumber: g}
		event := func(at int) []byte {
			h := binlog.Header{Timestamp: 1, Type: binlog.Query, ServerID: 1}
			return binlog.AppendEvent(nil, h, make([]byte, size), uint32(at))
		}
		for range 3 { // the length counts its own length
			t.Length = uint64(len(binlog.AppendGTID(nil, t, 1, noon, 0)) + len(event(0)))
		}
		b = binlog.AppendGTID(b, t, 1, noon, uint32(len(b)))
		b = append(b, event(len(b))...)
	}
	return b
}

func TestScanReadsAServersFile(t *testing.T) {
	b, err := os.ReadFile(mixed)
	if err != nil {
		t.Fatal(err)
	}
	var all []Txn
	head, err := Scan(bytes.NewReader(b), func(x Txn) error { all = append(all, x); return nil })
	if err != nil || len(all) < 5 || head != all[0].Start {
		t.Fatalf("head of %d bytes, %d transactions, %v", head, len(all), err)
	}
	for n := 1; n < len(all); n++ {
		if all[n].Start != all[n-1].End {
			t.Errorf("%v begins at %d, the one before ends at %d", all[n].GTID, all[n].Start, all[n-1].End)
		}
	}
	// A torn file ends with its last whole transaction.
	for _, cut := range []int64{all[3].End - 1, all[3].Start + 5, all[3].Start} {
		count := 0
		if _, err := Scan(bytes.NewReader(b[:cut]), func(Txn) error { count++; return nil }); err != nil || count != 3 {
			t.Errorf("cut at %d: %d transactions, %v", cut, count, err)
		}
	}
}

func TestJudge(t *testing.T) {
	b := file(10, 30)
	var ends []int64
	if _, err := Scan(bytes.NewReader(b), func(x Txn) error { ends = append(ends, x.End); return nil }); err != nil || len(ends) != 10 {
		t.Fatalf("%d transactions, %v", len(ends), err)
	}
	holed := set(1, 7)
	holed.Add(txid(9))
	last := set(1, 7)
	last.Add(txid(10))
	for _, c := range []struct {
		name                string
		known               Known
		count, chosen       uint64
		inEngine, beforeAck uint64
		from, to            int64
	}{
		{"all chosen", Known{Log: set(1, 10), Engine: set(1, 10), Acked: ends[9]}, 0, 10, 0, 0, 0, 0},
		{"none chosen", Known{Log: set(1, 0), Engine: set(1, 0)}, 10, 0, 0, 0, ends[0] - (ends[1] - ends[0]), ends[9]},
		{"a tail", Known{Log: set(1, 7), Engine: set(1, 7), Acked: ends[6]}, 3, 7, 0, 0, ends[6], ends[9]},
		{"one chosen behind", Known{Log: holed, Engine: holed, Acked: ends[6]}, 2, 8, 0, 0, ends[6], ends[9]},
		{"the last one chosen", Known{Log: last, Engine: set(1, 7)}, 2, 8, 0, 0, ends[6], ends[8]},
		{"the server holds some", Known{Log: set(1, 7), Engine: set(1, 9)}, 3, 7, 2, 0, ends[6], ends[9]},
		{"some were acknowledged", Known{Log: set(1, 7), Acked: ends[7]}, 3, 7, 0, 1, ends[6], ends[9]},
	} {
		j, err := Judge(bytes.NewReader(b), c.known)
		if err != nil {
			t.Fatal(err)
		}
		got := fmt.Sprint(j.Count, j.Chosen, j.InEngine, j.BeforeAck, j.From, j.To)
		if want := fmt.Sprint(c.count, c.chosen, c.inEngine, c.beforeAck, c.from, c.to); got != want {
			t.Errorf("%s: %s, want %s", c.name, got, want)
		}
	}
}

func TestFolderKeepsWhatWasNotChosen(t *testing.T) {
	f := Folder{Dir: filepath.Join(t.TempDir(), "discarded")}
	name := filepath.Join(t.TempDir(), "binlog.000007")
	whole := file(10, 30)
	write(t, name, whole)
	took, err := f.Take(name, Life{Taken: noon, Epoch: 4, Acked: 1000})
	if err != nil || !took {
		t.Fatal(took, err)
	}
	if err := os.Remove(name); err != nil { // as the restart recipe does
		t.Fatal(err)
	}
	pending, err := f.Pending()
	if err != nil || len(pending) != 1 || pending[0].Epoch != 4 || pending[0].File != "binlog.000007" {
		t.Fatalf("%+v, %v", pending, err)
	}
	k, path, err := f.Judge(pending[0], Known{Log: set(1, 7), Engine: set(1, 7)}, 99, noon)
	if err != nil || k.Count != 3 || k.GTIDs != set(8, 10).String() || k.Cut {
		t.Fatalf("%+v, %v", k, err)
	}
	b, err := os.ReadFile(filepath.Join(path, tailName))
	if err != nil {
		t.Fatal(err)
	}
	j, err := Judge(bytes.NewReader(b), Known{Log: set(1, 0)})
	if err != nil || !j.Set.Equal(set(8, 10)) || j.To != int64(len(b)) {
		t.Errorf("the evidence holds %v, %d of %d bytes, %v", j.Set, j.To, len(b), err)
	}
	if left, err := f.Pending(); err != nil || len(left) != 0 {
		t.Errorf("still waiting: %+v, %v", left, err)
	}
}

func TestFolderTakesNothingFromAFollower(t *testing.T) {
	f := Folder{Dir: filepath.Join(t.TempDir(), "discarded")}
	name := filepath.Join(t.TempDir(), "binlog.000007")
	write(t, name, file(0, 0))
	if took, err := f.Take(name, Life{Taken: noon}); took || err != nil {
		t.Error(took, err)
	}
	if _, err := os.Stat(f.Dir); err == nil {
		t.Error("a folder was made for nothing")
	}
}

func TestFolderIsBounded(t *testing.T) {
	f := Folder{Dir: filepath.Join(t.TempDir(), "discarded")}
	name := filepath.Join(t.TempDir(), "binlog.000007")
	write(t, name, file(2, 30))
	for n := range MaxFolders + 3 {
		if _, err := f.Take(name, Life{Taken: noon.Add(time.Duration(n))}); err != nil {
			t.Fatal(err)
		}
		pending, err := f.Pending()
		if err != nil || len(pending) != 1 {
			t.Fatal(pending, err)
		}
		if _, _, err := f.Judge(pending[0], Known{Log: set(1, 0)}, 1, noon.Add(time.Duration(n)*time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	names, err := f.names(func(string) bool { return true })
	if err != nil || len(names) != MaxFolders || names[0] != "2026-11-22T12.00.03.000Z" {
		t.Errorf("%d folders, the oldest is %s, %v", len(names), names[0], err)
	}
	for n := range maxPending + 2 {
		if _, err := f.Take(name, Life{Taken: noon.Add(time.Duration(n))}); err != nil {
			t.Fatal(err)
		}
	}
	if pending, err := f.Pending(); err != nil || len(pending) != maxPending || pending[0].Taken != noon.Add(2) {
		t.Errorf("%d wait, %v", len(pending), err)
	}
}

func write(t *testing.T, name string, b []byte) {
	t.Helper()
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func FuzzScan(f *testing.F) {
	f.Add(file(2, 10))
	f.Fuzz(func(t *testing.T, b []byte) {
		end := int64(0)
		_, _ = Scan(bytes.NewReader(b), func(x Txn) error {
			if x.Start < end || x.End > int64(len(b)) || x.End <= x.Start {
				t.Errorf("a transaction at %d to %d of %d", x.Start, x.End, len(b))
			}
			end = x.End
			return nil
		})
	})
}
