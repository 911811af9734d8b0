package wal_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/phxsql/phxsql/vfs"
	"github.com/phxsql/phxsql/wal"
)

func open(t testing.TB, opt wal.Options) *wal.Log {
	t.Helper()
	if opt.Dir == "" {
		opt.Dir = "/data/log"
	}
	l, err := wal.Open(opt)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func entry(group uint32, index uint64, payload string) wal.Record {
	return wal.Record{Group: group, Kind: wal.KindEntry, Index: index, Payload: []byte(payload)}
}

func state(group uint32, key uint8, payload string) wal.Record {
	return wal.Record{Group: group, Kind: wal.KindState, Key: key, Payload: []byte(payload)}
}

func appendSync(t testing.TB, l *wal.Log, recs ...wal.Record) {
	t.Helper()
	lsn, err := l.Append(recs...)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := l.Sync(); err != nil || got < lsn {
		t.Fatalf("Sync() = %d, %v, want at least %d", got, err, lsn)
	}
}

func wantEntry(t testing.TB, l *wal.Log, group uint32, index uint64, payload string) {
	t.Helper()
	got, err := l.Read(group, index)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != payload {
		t.Fatalf("Read(%d, %d) = %.40q, want %.40q", group, index, got, payload)
	}
}

// TestLongPayloads: what is not copied into a batch is read back from memory, from the
// file and after another Open, wherever in the batch it stands.
func TestLongPayloads(t *testing.T) {
	long := func(c string, n int) string { return strings.Repeat(c, n) }
	for name, opt := range map[string]wal.Options{"mem": {FS: vfs.NewMem(), SegmentSize: 1 << 20}, "os": {FS: vfs.OS{}, SegmentSize: 1 << 20, Dir: t.TempDir()}} {
		t.Run(name, func(t *testing.T) {
			l := open(t, opt)
			want := map[uint64]string{}
			var recs []wal.Record
			for i, n := range []int{8191, 8192, 0, 8193, 100_001, 7, 9000, 70_000} {
				head, rest := fmt.Sprint("head", i), long(string(rune('a'+i)), n)
				want[uint64(i+1)] = head + rest
				recs = append(recs, wal.Record{Group: 1, Kind: wal.KindEntry, Index: uint64(i + 1), Head: []byte(head), Payload: []byte(rest)})
			}
			recs = append(recs, state(1, 1, long("s", 20_000)))
			check := func() {
				t.Helper()
				for i, s := range want {
					wantEntry(t, l, 1, i, s)
				}
				if s, _ := l.State(1, 1); string(s) != long("s", 20_000) {
					t.Fatalf("state of %d bytes", len(s))
				}
			}
			if _, err := l.Append(recs...); err != nil {
				t.Fatal(err)
			}
			for i := range recs {
				clear(recs[i].Head) // the caller's again
			}
			check()
			appendSync(t, l, entry(1, 9, "more"))
			check()
			want[2] = long("z", 30_000) // in the same place of the index, and a buffer used before
			appendSync(t, l, entry(1, 2, want[2]), state(1, 2, "x"))
			check()
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			l = open(t, opt)
			defer l.Close()
			check()
		})
	}
}

func wantBounds(t testing.TB, l *wal.Log, group uint32, first, last uint64) {
	t.Helper()
	if f, x := l.Bounds(group); f != first || x != last {
		t.Fatalf("Bounds(%d) = %d, %d, want %d, %d", group, f, x, first, last)
	}
}

func TestAppendSyncReopen(t *testing.T) {
	for _, fs := range []struct {
		name string
		fs   vfs.FS
		dir  string
	}{{"mem", vfs.NewMem(), "/data/log"}, {"os", vfs.OS{}, t.TempDir()}} {
		t.Run(fs.name, func(t *testing.T) {
			opt := wal.Options{FS: fs.fs, Dir: fs.dir, SegmentSize: 64 << 10}
			l := open(t, opt)
			id := l.Identity()
			appendSync(t, l, entry(1, 1, "one"), entry(2, 7, ""), state(1, 3, "s"))
			appendSync(t, l, entry(1, 2, "two"), entry(1, 1, "ONE"))
			for range 2 {
				wantEntry(t, l, 1, 1, "ONE")
				wantEntry(t, l, 1, 2, "two")
				wantEntry(t, l, 2, 7, "")
				wantBounds(t, l, 1, 1, 2)
				wantBounds(t, l, 2, 7, 7)
				wantBounds(t, l, 3, 1, 0)
				if s, ok := l.State(1, 3); !ok || string(s) != "s" {
					t.Fatalf("State = %q, %v", s, ok)
				}
				if err := l.Close(); err != nil {
					t.Fatal(err)
				}
				if got, err := wal.ReadIdentity(fs.fs, fs.dir); err != nil || got != id {
					t.Fatalf("ReadIdentity = %q, %v, want %q", got, err, id)
				}
				l = open(t, opt)
			}
			if l.Identity() != id {
				t.Fatalf("identity changed from %s to %s", id, l.Identity())
			}
			l.Close()
		})
	}
}

func TestReadBeforeSync(t *testing.T) {
	l := open(t, wal.Options{FS: vfs.NewMem(), Inline: true, SegmentSize: 8 << 10})
	for i := uint64(1); i < 100; i++ {
		if _, err := l.Append(entry(1, i, fmt.Sprint("value ", i))); err != nil {
			t.Fatal(err)
		}
		wantEntry(t, l, 1, i, fmt.Sprint("value ", i))
	}
	if _, err := l.Read(1, 100); !errors.Is(err, wal.ErrNotFound) {
		t.Fatalf("Read of a missing entry: %v", err)
	}
}

func TestRollKeepsStatesAndTrimsSegments(t *testing.T) {
	fs := vfs.NewMem()
	opt := wal.Options{FS: fs, Inline: true, SegmentSize: 8 << 10}
	l := open(t, opt)
	appendSync(t, l, state(1, 1, "promise"), state(2, 1, "other"))
	for i := uint64(1); i <= 200; i++ {
		appendSync(t, l, entry(1, i, string(bytes.Repeat([]byte{byte(i)}, 500))))
		if i > 10 {
			l.TrimBelow(1, i-10)
		}
	}
	appendSync(t, l)
	names, _ := fs.List("/data/log")
	if len(names) > 3 {
		t.Fatalf("segments were not removed: %q", names)
	}
	l.Close()
	l = open(t, opt)
	wantBounds(t, l, 1, 190, 200)
	if s, ok := l.State(2, 1); !ok || string(s) != "other" {
		t.Fatalf("State = %q, %v", s, ok)
	}
	if _, err := l.Read(1, 189); !errors.Is(err, wal.ErrTrimmed) {
		t.Fatalf("Read of a trimmed entry: %v", err)
	}
	wantEntry(t, l, 1, 190, string(bytes.Repeat([]byte{190}, 500)))
	if _, err := l.Append(entry(1, 189, "x")); !errors.Is(err, wal.ErrTrimmed) {
		t.Fatalf("Append of a trimmed entry: %v", err)
	}
}

func TestLargeRecordsAndBatches(t *testing.T) {
	opt := wal.Options{FS: vfs.NewMem(), Inline: true, SegmentSize: 8 << 10}
	l := open(t, opt)
	big := string(bytes.Repeat([]byte("x"), 100_000))
	max := string(bytes.Repeat([]byte("y"), wal.MaxPayload))
	var recs []wal.Record
	for i := uint64(1); i <= 50; i++ {
		recs = append(recs, entry(1, i, fmt.Sprint(i)+big))
	}
	appendSync(t, l, recs...)
	appendSync(t, l, entry(1, 51, max))
	if _, err := l.Append(entry(1, 52, max+"y")); !errors.Is(err, wal.ErrInvalid) {
		t.Fatalf("Append above the limit: %v", err)
	}
	l.Close()
	l = open(t, opt)
	for i := uint64(1); i <= 50; i++ {
		wantEntry(t, l, 1, i, fmt.Sprint(i)+big)
	}
	wantEntry(t, l, 1, 51, max)
}

func TestOneProcessOnly(t *testing.T) {
	for _, fs := range []struct {
		fs  vfs.FS
		dir string
	}{{vfs.NewMem(), "/d"}, {vfs.OS{}, t.TempDir()}} {
		l := open(t, wal.Options{FS: fs.fs, Dir: fs.dir, Inline: true, SegmentSize: 8 << 10})
		if _, err := wal.Open(wal.Options{FS: fs.fs, Dir: fs.dir}); !errors.Is(err, wal.ErrInUse) {
			t.Fatalf("second Open: %v", err)
		}
		l.Close()
		open(t, wal.Options{FS: fs.fs, Dir: fs.dir, Inline: true, SegmentSize: 8 << 10}).Close()
	}
}
