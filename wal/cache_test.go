package wal

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/phxsql/phxsql/vfs"
)

// cacheLog is a log of which the test sees what it gives up of the page cache.
type cacheLog struct {
	*Log
	t       *testing.T
	index   uint64
	dropped chan uint64 // numbers of segments
}

const cacheSegment = 64 << 10

func newCacheLog(t *testing.T, inline bool) *cacheLog {
	c := &cacheLog{t: t, dropped: make(chan uint64, 1000)}
	fs := &vfs.Faulty{FS: vfs.NewMem(), Inject: func(op vfs.Op) vfs.Fault {
		if op.Kind == vfs.OpDropCache {
			n, ok := segmentNumber(strings.TrimSuffix(filepath.Base(op.Name), tempSuffix)) // the name it was made under
			if !ok {
				t.Errorf("it gave up %s", op.Name)
			}
			c.dropped <- n
		}
		return vfs.Fault{}
	}}
	l, err := Open(Options{FS: fs, Dir: "/log", SegmentSize: cacheSegment, Inline: inline})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	c.Log = l
	return c
}

// fill writes entries until a segment is appended to.
func (c *cacheLog) fill(segment uint64) {
	c.t.Helper()
	for c.active().number < segment {
		c.index++
		if _, err := c.Append(Record{Kind: KindEntry, Index: c.index, Payload: make([]byte, cacheSegment-1<<10)}); err != nil {
			c.t.Fatal(err)
		}
		if _, err := c.Sync(); err != nil {
			c.t.Fatal(err)
		}
	}
}

// look has the log give up what is old and wants it to be these segments.
func (c *cacheLog) look(segments ...uint64) {
	c.t.Helper()
	c.giveUp()
	var got []uint64
	for len(c.dropped) > 0 {
		got = append(got, <-c.dropped)
	}
	if !slices.Equal(got, segments) {
		c.t.Fatalf("with segment %d being written it gave up %v, want %v", c.active().number, got, segments)
	}
}

func (c *cacheLog) read(index uint64) {
	c.t.Helper()
	if _, err := c.Read(0, index); err != nil {
		c.t.Fatal(err)
	}
}

// TestOldSegmentsLeaveThePageCache: each one once, when another one is complete behind it.
func TestOldSegmentsLeaveThePageCache(t *testing.T) {
	l := newCacheLog(t, true)
	l.prep.bulk.Store(true)
	l.look()
	l.fill(2)
	l.look()
	l.fill(3)
	l.look(1)
	l.look()
	l.fill(7)
	l.look(2, 3, 4, 5)
	for i := range l.index {
		l.read(i + 1) // nothing is lost by it
	}
}

// TestAReaderThatLagsFindsThePageCache: what comes after it stays until it has been there.
func TestAReaderThatLagsFindsThePageCache(t *testing.T) {
	l := newCacheLog(t, true)
	l.prep.bulk.Store(true)
	l.fill(4)
	l.look(1, 2)
	l.read(3) // of a segment that is kept anyway
	l.fill(5)
	l.look(3)
	l.read(3)
	l.fill(6)
	l.look()
	l.read(4)
	l.fill(8)
	l.look()
	l.fill(9) // it has caught up
	l.look(7)
}

// TestSmallSyncsKeepThePageCache: they fill it slowly, and what they left is not made
// up for when large ones come.
func TestSmallSyncsKeepThePageCache(t *testing.T) {
	l := newCacheLog(t, true)
	l.fill(4)
	l.look()
	l.prep.bulk.Store(true)
	l.look()
	l.fill(5)
	l.look(3)
}

// TestWhatOpenHasReadStaysInThePageCache: somebody may be about to read it, and it is no
// more than there was.
func TestWhatOpenHasReadStaysInThePageCache(t *testing.T) {
	l := newCacheLog(t, true)
	l.fill(4)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := Open(l.opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { again.Close() })
	l.Log = again
	l.prep.bulk.Store(true)
	l.look()
	l.fill(6)
	l.look(4)
}

// TestThePreparerGivesUpThePageCache: nobody has to ask for it.
func TestThePreparerGivesUpThePageCache(t *testing.T) {
	l := newCacheLog(t, false)
	l.prep.bulk.Store(true) // it stays so, but the first look may come before it is found out
	l.fill(8)               // it is not asked to look after each segment of this size
	for n := uint64(1); n <= 4; n++ {
		select {
		case got := <-l.dropped:
			if got != n {
				t.Fatalf("it gave up segment %d, want %d", got, n)
			}
		case <-time.After(time.Minute):
			t.Fatalf("segment %d stayed in the page cache", n)
		}
	}
}
