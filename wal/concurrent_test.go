package wal_test

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/phxsql/phxsql/vfs"
	"github.com/phxsql/phxsql/wal"
)

// TestConcurrent appends to several groups, syncs, reads and trims at the same
// time, over many segments; run it with -race.
func TestConcurrent(t *testing.T) {
	for _, fs := range []struct {
		name string
		fs   vfs.FS
		dir  string
	}{{"mem", vfs.NewMem(), "/data/log"}, {"os", vfs.OS{}, t.TempDir()}} {
		t.Run(fs.name, func(t *testing.T) { concurrent(t, wal.Options{FS: fs.fs, Dir: fs.dir, SegmentSize: 32 << 10}) })
	}
}

func concurrent(t *testing.T, opt wal.Options) {
	const groups, entries, kept = 4, 700, 200
	l := open(t, opt)
	var work, readers sync.WaitGroup
	payload := func(g uint32, i uint64) string { return fmt.Sprintf("%d/%d/%0100d", g, i, i) }
	for g := range uint32(groups) {
		synced := make(chan struct{}, 1) // readers look after syncs: they leave the processors to writers
		work.Go(func() {
			defer close(synced)
			for i := uint64(1); i <= entries; i++ {
				lsn, err := l.Append(entry(g, i, payload(g, i)), state(g, 0, fmt.Sprint(i)))
				if err != nil {
					t.Error(err)
					return
				}
				if i%10 == 0 {
					if got, err := l.Sync(); err != nil || got < lsn || l.Durable() < lsn {
						t.Errorf("Sync = %d, %v after Append = %d", got, err, lsn)
						return
					}
					select {
					case synced <- struct{}{}:
					default:
					}
				}
				if i%100 == 0 && i > kept {
					l.TrimBelow(g, i-kept)
				}
			}
		})
		readers.Go(func() {
			for range synced {
				first, last := l.Bounds(g)
				for i := first; i <= last; i += 1 + (last-first)/8 {
					p, err := l.Read(g, i)
					if errors.Is(err, wal.ErrTrimmed) {
						break
					}
					if err != nil || string(p) != payload(g, i) {
						t.Errorf("Read(%d, %d) = %q, %v", g, i, p, err)
						return
					}
				}
				l.State(g, 0)
			}
		})
	}
	work.Wait()
	readers.Wait()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = open(t, opt)
	defer l.Close()
	for g := range uint32(groups) {
		wantBounds(t, l, g, entries-kept, entries)
		wantEntry(t, l, g, entries, payload(g, entries))
		if s, ok := l.State(g, 0); !ok || string(s) != fmt.Sprint(entries) {
			t.Fatalf("State(%d) = %q, %v", g, s, ok)
		}
	}
	if got := l.Size(); got > 80*opt.SegmentSize {
		t.Fatalf("%d bytes are kept", got)
	}
}

// TestTrimRemovesSegmentsInBackground waits for the goroutine that removes them.
func TestTrimRemovesSegmentsInBackground(t *testing.T) {
	l := open(t, wal.Options{FS: vfs.NewMem(), SegmentSize: 8 << 10})
	defer l.Close()
	for i := uint64(1); i <= 200; i++ {
		appendSync(t, l, entry(1, i, fmt.Sprintf("%0500d", i)))
	}
	before := l.Size()
	l.TrimBelow(1, 190)
	for deadline := time.Now().Add(time.Minute); l.Size() > before/4; runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("size is %d, was %d", l.Size(), before)
		}
		appendSync(t, l)
	}
}

// TestUnusedSegments opens a log behind whose end several segments were prepared.
func TestUnusedSegments(t *testing.T) {
	fs := vfs.NewMem()
	opt := wal.Options{FS: fs, Inline: true, SegmentSize: 8 << 10, Dir: "/data/log"}
	l := open(t, opt)
	for i := uint64(1); i <= 100; i++ {
		appendSync(t, l, entry(1, i, fmt.Sprintf("%0500d", i)))
	}
	l.Close()
	names, _ := fs.List(opt.Dir)
	for _, name := range names[3:] { // what is left are prepared segments
		change(t, fs, opt.Dir+"/"+name, headerBytes, func(p []byte) { clear(p) }, 4096)
	}
	l = open(t, opt)
	_, last := l.Bounds(1)
	for i := last + 1; i <= 100; i++ {
		appendSync(t, l, entry(1, i, fmt.Sprintf("%0500d", i)))
	}
	fs.Kill()
	l = open(t, opt)
	wantBounds(t, l, 1, 1, 100)
	for i := uint64(1); i <= 100; i++ {
		wantEntry(t, l, 1, i, fmt.Sprintf("%0500d", i))
	}
}
