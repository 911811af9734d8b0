package wal

import (
	"bytes"
	"encoding/hex"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/phxsql/phxsql/vfs"
)

var update = flag.Bool("update", false, "write the golden files anew")

func goldenLog(t testing.TB) []byte {
	fs := vfs.NewMem()
	l, err := Open(Options{FS: fs, Dir: "/log", Inline: true, SegmentSize: minSegmentSize, Rand: strings.NewReader("0123456789abcdef")})
	if err != nil {
		t.Fatal(err)
	}
	for _, recs := range [][]Record{
		{{Group: 1, Kind: KindEntry, Index: 1, Payload: []byte("first entry")}},
		{
			{Group: 1, Kind: KindEntry, Index: 2, Payload: []byte("12345678")},
			{Group: 0x04030201, Kind: KindState, Key: 9, Payload: []byte("state")},
			{Group: 1, Kind: KindEntry, Index: 2},
		},
	} {
		if _, err := l.Append(recs...); err != nil {
			t.Fatal(err)
		}
		if _, err := l.Sync(); err != nil {
			t.Fatal(err)
		}
	}
	l.TrimBelow(1, 2)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := fs.Open("/log/000000000001.wal")
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, minSegmentSize)
	if _, err := f.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	return b
}

// TestGolden holds the format: a change of it breaks the logs of users.
func TestGolden(t *testing.T) {
	var text strings.Builder
	for off, b := 0, goldenLog(t); off < len(b); off += 16 {
		if row := b[off : off+16]; !allZero(row) {
			text.WriteString(strings.TrimRight(strings.Replace(hex.Dump(row), "00000000", hex.EncodeToString([]byte{byte(off >> 8), byte(off)}), 1), "\n0123456789") + "\n")
		}
	}
	name := filepath.Join("testdata", "segment.golden")
	if *update {
		if err := os.WriteFile(name, []byte(text.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if text.String() != string(want) {
		t.Errorf("the format has changed (-update writes the file anew):\n%s\nwant:\n%s", text.String(), want)
	}
}

func TestHeadersHoldTheirPlace(t *testing.T) {
	id := identity{1, 2, 3}
	s := makeSeeds(id, 7)
	var b, r [32]byte
	bh := batchHead{seq: 5, length: 80, count: 2, flags: flagHead}
	bh.put(b[:], s, 4096)
	rh := recordHead{crc: 6, length: 48, group: 3, kind: KindState, key: 4, index: 9}
	rh.put(r[:], s, 4128)
	if got, ok := decodeBatch(b[:], s, 4096); !ok || got != bh {
		t.Errorf("decodeBatch = %+v, %v, want %+v", got, ok, bh)
	}
	if got, ok := decodeRecord(r[:], s, 4128); !ok || got != rh {
		t.Errorf("decodeRecord = %+v, %v, want %+v", got, ok, rh)
	}
	for _, other := range []struct {
		what string
		s    seeds
		move int64
	}{
		{"another segment", makeSeeds(id, 8), 0},
		{"another log", makeSeeds(identity{1, 2, 4}, 7), 0},
		{"another place", s, 8},
	} {
		if _, ok := decodeBatch(b[:], other.s, 4096+other.move); ok {
			t.Errorf("batch header counts in %s", other.what)
		}
		if _, ok := decodeRecord(r[:], other.s, 4128+other.move); ok {
			t.Errorf("record header counts in %s", other.what)
		}
	}
}

// FuzzSegment opens files of any content. Whatever is in them, there is no panic
// and no endless loop, and what is accepted can be read, appended to, and opened
// again.
func FuzzSegment(f *testing.F) {
	good := goldenLog(f)
	f.Add(good[:segmentHeader+600], true)
	f.Add(good[:segmentHeader+100], false)
	f.Add([]byte("PHXWAL\r\n"), true)
	f.Fuzz(func(t *testing.T, b []byte, repair bool) {
		if len(b) > 64<<10 {
			return
		}
		if repair && len(b) >= segmentHeader { // get past the checksum of the header
			copy(b, good[:segmentHeader])
		}
		fs := vfs.NewMem()
		file, _ := fs.Create("/log/000000000001.wal")
		file.WriteAt(b, 0)
		for _, err := range Records(fs, "/log") {
			if err != nil {
				t.Fatal(err)
			}
		}
		opt := Options{FS: fs, Dir: "/log", Inline: true, SegmentSize: minSegmentSize, Salvage: true}
		l, err := Open(opt)
		if err != nil {
			return
		}
		_, last := l.Bounds(1)
		if _, err := l.Append(Record{Group: 1, Kind: KindEntry, Index: last + 1, Payload: []byte("more")}); err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if l, err = Open(opt); err != nil {
			t.Fatal(err)
		}
		if p, err := l.Read(1, last+1); err != nil || !bytes.Equal(p, []byte("more")) {
			t.Fatalf("Read = %q, %v", p, err)
		}
	})
}

func TestPageIndex(t *testing.T) {
	g := newGroupIndex()
	at := func(i uint64) place { return place{segment: 1, position: uint32(i), length: 1} }
	for _, i := range []uint64{1000, 1001, 700, 1300, 1002} {
		if err := g.plan(i, i, maxGap); err != nil {
			t.Fatal(err)
		}
		g.set(i, at(i))
	}
	check := func(first, last uint64, have ...uint64) {
		t.Helper()
		if g.first != first || g.last != last {
			t.Fatalf("bounds %d to %d, want %d to %d", g.first, g.last, first, last)
		}
		n := 0
		for i := uint64(0); i < 2000; i++ {
			if p, ok := g.get(i); ok {
				if n >= len(have) || have[n] != i || p != at(i) {
					t.Fatalf("entry %d at %v", i, p)
				}
				n++
			}
		}
		if n != len(have) {
			t.Fatalf("%d entries, want %d", n, len(have))
		}
	}
	check(700, 1300, 700, 1000, 1001, 1002, 1300)
	g.trimBelow(650)
	check(700, 1300, 700, 1000, 1001, 1002, 1300)
	g.trimBelow(701)
	check(1000, 1300, 1000, 1001, 1002, 1300)
	g.trimBelow(1002)
	check(1002, 1300, 1002, 1300)
	g.trimBelow(1001) // lower than before: nothing
	check(1002, 1300, 1002, 1300)
	g.trimBelow(5000)
	check(5000, 4999)
	g.set(5000, at(5000))
	if g.first != 5000 || g.last != 5000 {
		t.Fatalf("bounds %d to %d", g.first, g.last)
	}
}

func TestDumpTellsAll(t *testing.T) {
	fs := vfs.NewMem()
	file, _ := fs.Create("/log/000000000001.wal")
	b := goldenLog(t)
	b[segmentHeader+64] ^= 1 // the first payload
	file.WriteAt(b, 0)
	var got []string
	for r, err := range Records(fs, "/log") {
		if err != nil {
			t.Fatal(err)
		}
		s := r.Record.Kind.String() + " " + string(r.Record.Payload)
		if r.Damage != nil {
			s = "damaged " + s
		}
		got = append(got, s)
	}
	want := "damaged entry |entry 12345678|state state|entry |trim "
	if strings.Join(got, "|") != want {
		t.Fatalf("Records: %q, want %q", got, want)
	}
	for range Records(fs, "/log") {
		break // a consumer may stop
	}
}
