package wal

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/phxsql/phxsql/vfs"
)

// segment is one file of the log. Its fields are guarded by Log.mu; those of the
// file also by Log.syncMu, under which they change.
type segment struct {
	number   uint64
	seeds    seeds
	capacity int64 // bytes up to which records are put
	end      int64 // where the next batch goes, those in memory included
	used     bool  // it has records other than the copies at its head
	newest   map[Group]uint64

	file    vfs.File // nil until Sync has made it
	size    int64    // of the file
	durable bool     // a batch in it was synced
	users   atomic.Int32
}

func newSegment(id identity, number uint64) *segment {
	return &segment{number: number, seeds: makeSeeds(id, number), end: segmentHeader, newest: make(map[Group]uint64)}
}

// attach gives the segment its file, which the segment owns from now on.
func (s *segment) attach(f vfs.File, size int64) {
	s.file, s.size = f, size
	s.users.Store(1)
}

// release ends a use of the file; the last one closes it.
func (s *segment) release() {
	if s.users.Add(-1) == 0 {
		s.file.Close() // read only since long, or removed: nothing can be lost
	}
}

const (
	segmentSuffix = ".wal"
	tempSuffix    = ".tmp"
	lockName      = "LOCK"
)

func segmentName(dir string, number uint64) string {
	return filepath.Join(dir, fmt.Sprintf("%012d%s", number, segmentSuffix))
}

// segmentNumber is the reverse of segmentName, of a name without directory.
func segmentNumber(name string) (uint64, bool) {
	digits, ok := strings.CutSuffix(name, segmentSuffix)
	if !ok || len(digits) != 12 {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 10, 32)
	return n, err == nil && n > 0
}
