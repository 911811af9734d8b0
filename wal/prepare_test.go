package wal

import (
	"testing"

	"github.com/phxsql/phxsql/vfs"
)

// TestTheFirstSyncIsMeasuredLikeAllOthers: a small one after Open does not count for a large
// one, after which zeros would not be written beforehand.
func TestTheFirstSyncIsMeasuredLikeAllOthers(t *testing.T) {
	fs := vfs.NewMem()
	for life, size := range []int{100, 100, 2 * zeroChunk} {
		l, err := Open(Options{FS: fs, Dir: "/log", SegmentSize: 4 * zeroChunk})
		if err != nil {
			t.Fatal(err)
		}
		for i := range uint64(3) {
			if _, err := l.Append(Record{Kind: KindEntry, Index: 3*uint64(life) + i + 1, Payload: make([]byte, size)}); err != nil {
				t.Fatal(err)
			}
			if _, err := l.Sync(); err != nil {
				t.Fatal(err)
			}
			if got, want := l.prep.bulk.Load(), size >= bulkSync; got != want {
				t.Errorf("life %d, sync %d of %d bytes: large is %v", life, i, size, got)
			}
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
