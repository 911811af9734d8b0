package wal_test

import (
	"errors"
	"strings"
	"syscall"
	"testing"

	"github.com/phxsql/phxsql/vfs"
	"github.com/phxsql/phxsql/wal"
)

const (
	headerBytes = 4096 // of a segment
	firstName   = "/data/log/000000000001.wal"
)

// change overwrites bytes of a file, behind the log's back.
func change(t testing.TB, fs vfs.FS, name string, off int64, edit func(p []byte), n int) {
	t.Helper()
	f, err := fs.OpenReadWrite(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p := make([]byte, n)
	if _, err := f.ReadAt(p, off); err != nil {
		t.Fatal(err)
	}
	edit(p)
	if _, err := f.WriteAt(p, off); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
}

// content returns the bytes of a file.
func content(t testing.TB, fs vfs.FS, name string) []byte {
	t.Helper()
	f, err := fs.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	size, _ := f.Size()
	p := make([]byte, size)
	if _, err := f.ReadAt(p, 0); err != nil {
		t.Fatal(err)
	}
	return p
}

// smallLog makes a log of three batches; the place where it ends is returned.
func smallLog(t testing.TB, fs *vfs.Mem, clean bool) (end int64) {
	l := open(t, wal.Options{FS: fs, Inline: true, SegmentSize: 8 << 10})
	appendSync(t, l, entry(1, 1, strings.Repeat("a", 41)), state(1, 1, "promised"))
	appendSync(t, l, entry(1, 2, strings.Repeat("b", 700)))
	appendSync(t, l, entry(1, 3, "c"), entry(2, 1, "dd"))
	if clean {
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	fs.Kill()
	p := content(t, fs, firstName)
	return int64(len(strings.TrimRight(string(p), "\x00")))
}

func TestEveryBitFlipIsDetected(t *testing.T) {
	for _, clean := range []bool{true, false} {
		base := vfs.NewMem()
		end := smallLog(t, base, clean)
		for off := int64(0); off < end; off++ {
			if off >= 64 && off < headerBytes-8 && off%16 != 0 {
				continue // the middle of the header: one byte of many
			}
			for _, bit := range []uint{uint(off % 8), uint(off+3) % 8} {
				fs := base.CrashClone(nil)
				change(t, fs, firstName, off, func(p []byte) { p[0] ^= 1 << bit }, 1)
				l, err := wal.Open(wal.Options{FS: fs, Dir: "/data/log", Inline: true, SegmentSize: 8 << 10})
				var corrupt *wal.CorruptError
				if !errors.As(err, &corrupt) {
					t.Fatalf("clean=%v: bit %d at %d flipped: Open: %v", clean, bit, off, err)
				}
				if corrupt.File != firstName || corrupt.Cause == "" || corrupt.Hint == "" || corrupt.Offset > off || l != nil {
					t.Fatalf("bit %d at %d flipped: %v", bit, off, corrupt)
				}
			}
		}
	}
}

func TestFlipBehindTheEndIsHarmless(t *testing.T) {
	fs := vfs.NewMem()
	end := smallLog(t, fs, true)
	change(t, fs, firstName, end+600, func(p []byte) { p[0] = 1 }, 1)
	l := open(t, wal.Options{FS: fs, Inline: true, SegmentSize: 8 << 10})
	wantEntry(t, l, 1, 3, "c")
}

func TestTornTailIsCut(t *testing.T) {
	for _, test := range []struct {
		name     string
		off      int64 // from the start of the last batch
		n        int
		want     string // part of the error, or "" if the batch is cut
		more     bool   // a batch follows
		flipOnly bool
	}{
		{name: "header sector lost", off: 0, n: 512},
		{name: "middle sector lost", off: 1024, n: 512},
		{name: "last sectors lost", off: 1024, n: 1100},
		{name: "all lost but one sector", off: 512, n: 1000},
		{name: "middle sector lost, batch follows", off: 1024, n: 512, more: true, want: "payload does not match"},
		{name: "header sector lost, batch follows", off: 0, n: 512, more: true, want: "batch header does not match"},
		{name: "flip in header", off: 9, n: 1, flipOnly: true, want: "batch header does not match"},
		{name: "flip in payload", off: 900, n: 1, flipOnly: true, want: "payload does not match"},
	} {
		t.Run(test.name, func(t *testing.T) {
			fs := vfs.NewMem()
			opt := wal.Options{FS: fs, Inline: true, SegmentSize: 16 << 10}
			l := open(t, opt)
			// The first batch fills a sector exactly: 32 + 32 + 448 bytes.
			appendSync(t, l, entry(1, 1, strings.Repeat("a", 448)))
			appendSync(t, l, entry(1, 2, strings.Repeat("b", 1000)), entry(1, 3, strings.Repeat("c", 1000)))
			if test.more {
				appendSync(t, l, entry(1, 4, "d"))
			}
			fs.Kill()
			change(t, fs, firstName, headerBytes+512+test.off, func(p []byte) {
				if test.flipOnly {
					p[0] ^= 4
					return
				}
				clear(p)
			}, test.n)
			opt.Dir = "/data/log"
			l, err := wal.Open(opt)
			if test.want != "" {
				var corrupt *wal.CorruptError
				if !errors.As(err, &corrupt) || !strings.Contains(corrupt.Cause, test.want) {
					t.Fatalf("Open: %v, want %q", err, test.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			wantBounds(t, l, 1, 1, 1)
			appendSync(t, l, entry(1, 2, "again"))
			fs.Kill()
			l = open(t, opt)
			wantBounds(t, l, 1, 1, 2)
			wantEntry(t, l, 1, 2, "again")
		})
	}
}

func TestSalvage(t *testing.T) {
	fs := vfs.NewMem()
	opt := wal.Options{FS: fs, Inline: true, SegmentSize: 16 << 10, Dir: "/data/log", Salvage: true}
	l := open(t, opt)
	appendSync(t, l, entry(1, 1, "one"), state(1, 1, "old"))
	appendSync(t, l, entry(1, 2, "two!"), state(1, 1, "new!"))
	appendSync(t, l, entry(1, 3, "three"))
	l.Close()
	second := int64(headerBytes + 32 + 40 + 40)
	for _, off := range []int64{second + 32 + 32, second + 32 + 40 + 32} { // payloads of the second batch
		change(t, fs, firstName, off, func(p []byte) { p[0] ^= 1 }, 1)
	}
	l = open(t, opt)
	d := l.Damages()
	if len(d) != 2 || !d[0].Known || d[0].Record.Index != 2 || d[1].Record.Kind != wal.KindState || d[1].Record.Key != 1 {
		t.Fatalf("Damages() = %+v", d)
	}
	var corrupt *wal.CorruptError
	if _, err := l.Read(1, 2); !errors.As(err, &corrupt) || corrupt.Offset != second+32 {
		t.Fatalf("Read of a damaged entry: %v", err)
	}
	if s, ok := l.State(1, 1); ok {
		t.Fatalf("an older state %q is shown for a damaged one", s)
	}
	wantEntry(t, l, 1, 1, "one")
	wantEntry(t, l, 1, 3, "three")
	// What is appended again heals the log for good.
	appendSync(t, l, entry(1, 2, "two!"), state(1, 1, "newer"))
	l.Close()
	opt.Salvage = false
	l = open(t, opt)
	if d := l.Damages(); len(d) != 0 {
		t.Fatalf("Damages() = %+v after repair", d)
	}
	wantEntry(t, l, 1, 2, "two!")
	if s, _ := l.State(1, 1); string(s) != "newer" {
		t.Fatalf("State = %q", s)
	}
}

func TestSalvageUnknownRecord(t *testing.T) {
	fs := vfs.NewMem()
	opt := wal.Options{FS: fs, Inline: true, SegmentSize: 16 << 10, Dir: "/data/log", Salvage: true}
	l := open(t, opt)
	appendSync(t, l, entry(1, 1, "one"), entry(1, 2, "two"), entry(1, 3, "three"))
	l.Close()
	change(t, fs, firstName, headerBytes+32+40+24, func(p []byte) { p[0] ^= 1 }, 1) // the index of the second
	change(t, fs, firstName, headerBytes+8, func(p []byte) { p[0] ^= 1 }, 1)        // the number of the batch
	for range 2 {                                                                   // it stays known
		l = open(t, opt)
		d := l.Damages()
		if len(d) != 2 || d[0].Known || d[1].Known {
			t.Fatalf("Damages() = %+v", d)
		}
		wantEntry(t, l, 1, 1, "one")
		wantEntry(t, l, 1, 3, "three")
		if _, err := l.Read(1, 2); !errors.Is(err, wal.ErrNotFound) {
			t.Fatalf("Read: %v", err)
		}
		l.Close()
	}
}

func TestMissingSegmentAndBatch(t *testing.T) {
	fill := func() *vfs.Mem {
		fs := vfs.NewMem()
		l := open(t, wal.Options{FS: fs, Inline: true, SegmentSize: 8 << 10})
		for i := uint64(1); i < 40; i++ {
			appendSync(t, l, entry(1, i, strings.Repeat("x", 500)))
		}
		l.Close()
		return fs
	}
	want := func(fs vfs.FS, cause string) {
		t.Helper()
		_, err := wal.Open(wal.Options{FS: fs, Dir: "/data/log", Inline: true, SegmentSize: 8 << 10})
		var corrupt *wal.CorruptError
		if !errors.As(err, &corrupt) || !strings.Contains(err.Error(), cause) {
			t.Fatalf("Open: %v, want %q", err, cause)
		}
	}
	fs := fill()
	fs.Remove("/data/log/000000000003.wal")
	want(fs, "segment is missing")
	fs = fill()
	change(t, fs, "/data/log/000000000003.wal", 0, func(p []byte) { copy(p, content(t, fs, "/data/log/000000000004.wal")) }, 8<<10)
	want(fs, "has number 4")
	fs = fill() // the end of a segment that is not the last one
	change(t, fs, "/data/log/000000000002.wal", headerBytes+2048, func(p []byte) { clear(p) }, 2048)
	want(fs, "does not match its checksum")
	fs, other := fill(), vfs.NewMem()
	smallLog(t, other, true)
	change(t, fs, firstName, 0, func(p []byte) { copy(p, content(t, other, firstName)) }, 8<<10)
	want(fs, "belongs to another log")
}

// A sector that the device cannot read is damage in one place, not the end of
// the log.
func TestUnreadableSectorAtOpen(t *testing.T) {
	mem := vfs.NewMem()
	var bad int64 = -1
	fs := &vfs.Faulty{FS: mem, Inject: func(op vfs.Op) vfs.Fault {
		if op.Kind == vfs.OpRead && bad >= op.Offset && bad < op.Offset+op.Size {
			return vfs.Fault{Err: syscall.EIO}
		}
		return vfs.Fault{}
	}}
	opt := wal.Options{FS: fs, Inline: true, SegmentSize: 32 << 10, Dir: "/data/log"}
	l := open(t, opt)
	for i := uint64(1); i <= 20; i++ {
		appendSync(t, l, entry(1, i, strings.Repeat("x", 1000)))
	}
	l.Close()
	bad = headerBytes + 7000
	_, err := wal.Open(opt)
	var corrupt *wal.CorruptError
	if !errors.As(err, &corrupt) || !errors.Is(err, syscall.EIO) {
		t.Fatalf("Open: %v", err)
	}
	opt.Salvage = true
	l = open(t, opt)
	wantEntry(t, l, 1, 1, strings.Repeat("x", 1000))
	wantEntry(t, l, 1, 20, strings.Repeat("x", 1000))
	if len(l.Damages()) == 0 || len(l.Damages()) > 8 {
		t.Fatalf("Damages() = %+v", l.Damages())
	}
}

func TestReadVerifies(t *testing.T) {
	flip, fail := int64(-1), error(nil)
	fs := &vfs.Faulty{FS: vfs.NewMem(), Inject: func(op vfs.Op) vfs.Fault {
		if op.Kind == vfs.OpRead && fail != nil {
			return vfs.Fault{Err: fail}
		}
		if op.Kind == vfs.OpRead && flip >= 0 {
			return vfs.Fault{Flip: []int64{flip}}
		}
		return vfs.Fault{}
	}}
	l := open(t, wal.Options{FS: fs, Inline: true, SegmentSize: 8 << 10})
	appendSync(t, l, entry(1, 1, "payload"))
	for flip = range int64(32+7) * 8 {
		var corrupt *wal.CorruptError
		if p, err := l.Read(1, 1); !errors.As(err, &corrupt) || corrupt.Offset != headerBytes+32 {
			t.Fatalf("bit %d flipped: Read = %q, %v", flip, p, err)
		}
	}
	flip = -1
	wantEntry(t, l, 1, 1, "payload")
	fail = syscall.EIO
	var corrupt *wal.CorruptError
	if _, err := l.Read(1, 1); !errors.As(err, &corrupt) || !errors.Is(err, syscall.EIO) {
		t.Fatalf("Read with EIO: %v", err)
	}
}

func TestFailureIsFinal(t *testing.T) {
	for _, kind := range []vfs.OpKind{vfs.OpSync, vfs.OpWrite} {
		var fail error
		fs := &vfs.Faulty{FS: vfs.NewMem(), Inject: func(op vfs.Op) vfs.Fault {
			if op.Kind == kind && fail != nil {
				return vfs.Fault{Err: fail, Short: 100}
			}
			return vfs.Fault{}
		}}
		l := open(t, wal.Options{FS: fs, Inline: true, SegmentSize: 8 << 10})
		appendSync(t, l, entry(1, 1, "one"))
		before := l.Durable()
		l.Append(entry(1, 2, "two"))
		fail = syscall.EIO
		for range 2 {
			if lsn, err := l.Sync(); !errors.Is(err, wal.ErrFailed) || !errors.Is(err, syscall.EIO) || lsn != before {
				t.Fatalf("Sync = %d, %v", lsn, err)
			}
			fail = nil // it would work now, but must not be tried
		}
		if _, err := l.Append(entry(1, 3, "three")); !errors.Is(err, wal.ErrFailed) {
			t.Fatalf("Append: %v", err)
		}
		if l.Durable() != before {
			t.Fatalf("Durable = %d, want %d", l.Durable(), before)
		}
		if err := l.Close(); !errors.Is(err, wal.ErrFailed) {
			t.Fatalf("Close: %v", err)
		}
	}
}

func TestNoSpaceIsNotFinal(t *testing.T) {
	fs := vfs.NewMem()
	l := open(t, wal.Options{FS: fs, Inline: true, SegmentSize: 8 << 10})
	fs.SetFreeSpace(1000)
	n := uint64(0)
	var err error
	for err == nil && n < 100 {
		n++
		if _, err = l.Append(entry(1, n, strings.Repeat("x", 500))); err != nil {
			t.Fatal(err)
		}
		_, err = l.Sync()
	}
	if !errors.Is(err, wal.ErrNoSpace) || errors.Is(err, wal.ErrFailed) || !strings.Contains(err.Error(), "hint") {
		t.Fatalf("Sync on a full disk: %v", err)
	}
	if got := l.Durable(); got != wal.LSN(n-1) {
		t.Fatalf("Durable = %d, want %d", got, n-1)
	}
	appended, err := l.Append(entry(1, n+1, "more"))
	if err != nil {
		t.Fatal(err)
	}
	fs.SetFreeSpace(-1)
	if lsn, err := l.Sync(); err != nil || lsn != appended {
		t.Fatalf("Sync = %d, %v", lsn, err)
	}
	l.Close()
	l = open(t, wal.Options{FS: fs, Inline: true, SegmentSize: 8 << 10})
	wantBounds(t, l, 1, 1, n+1)
	if _, err := wal.Open(wal.Options{FS: fs, Dir: "/new", SegmentSize: 4096}); !errors.Is(err, wal.ErrInvalid) {
		t.Fatalf("Open with a tiny segment: %v", err)
	}
	fs.SetFreeSpace(1000)
	if _, err := wal.Open(wal.Options{FS: fs, Dir: "/new"}); !errors.Is(err, wal.ErrNoSpace) {
		t.Fatalf("Open of a new log on a full disk: %v", err)
	}
}

func TestLimits(t *testing.T) {
	l := open(t, wal.Options{FS: vfs.NewMem(), Inline: true, MaxPending: 10_000})
	if _, err := l.Append(entry(1, 1, strings.Repeat("x", 20_000))); err != nil {
		t.Fatalf("one call of any size: %v", err)
	}
	for _, test := range []struct {
		rec  wal.Record
		want error
	}{
		{entry(1, 2, "x"), wal.ErrBacklog},
		{entry(1, 0, "x"), wal.ErrInvalid},
		{entry(1, 1<<40, "x"), wal.ErrInvalid},
		{wal.Record{Kind: wal.KindTrim, Index: 7}, wal.ErrInvalid},
		{wal.Record{Index: 7}, wal.ErrInvalid},
		{state(1, 1, strings.Repeat("x", wal.MaxState+1)), wal.ErrInvalid},
	} {
		if _, err := l.Append(test.rec); !errors.Is(err, test.want) {
			t.Errorf("Append(%d/%d of %d bytes): %v, want %v", test.rec.Kind, test.rec.Index, len(test.rec.Payload), err, test.want)
		}
	}
	wantBounds(t, l, 1, 1, 1)
	if lsn, err := l.Sync(); err != nil || lsn != 1 {
		t.Fatalf("Sync = %d, %v", lsn, err)
	}
	if _, err := l.Append(entry(9, 1<<40, "x"), entry(9, 1<<41, "y")); !errors.Is(err, wal.ErrInvalid) {
		t.Fatalf("Append with a gap within one call: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{"close": l.Close(), "sync": second(l.Sync()), "append": second(l.Append()), "read": second(l.Read(1, 1))} {
		if !errors.Is(err, wal.ErrClosed) {
			t.Errorf("%s after Close: %v", what, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestReadIdentityWithoutLog(t *testing.T) {
	if _, err := wal.ReadIdentity(vfs.NewMem(), "/none"); !errors.Is(err, wal.ErrNoLog) {
		t.Fatalf("ReadIdentity: %v", err)
	}
}
