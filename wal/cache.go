package wal

import (
	"slices"
	"sync/atomic"
)

// pageCache decides what of the log's files the system may forget. All that is written
// goes through its page cache, where it stays as long as there is room: a log that
// writes much fills the memory of the machine with what nobody reads again. That is not
// free even while memory is plenty: others lose what they had there, and on a virtual
// machine each page that the host has to find first costs twenty times the copy.
//
// So while syncs carry much each, all but the newest segments are given up. Readers are
// not to suffer: one that falls behind comes to read older segments than those kept, and
// as long as there is one nothing more is given up. What comes after it stays in memory
// until it has been there; only the rest of the segment in which it was noticed may come
// from the disk. While syncs are small nothing is given up either: they fill the memory
// slowly.
type pageCache struct {
	judged uint64        // segments through this one were given up, or left to the system; used by one goroutine
	heard  uint64        // what reads was then
	reads  atomic.Uint64 // reads of segments older than those kept
}

// cachedSegments is how many complete segments are kept besides the one that is written.
const cachedSegments = 1

// noteRead counts a read of a segment if it comes from a reader that is far behind.
// newest is the one that is appended to.
func (c *pageCache) noteRead(number, newest uint64) {
	if number+cachedSegments < newest {
		c.reads.Add(1)
	}
}

// giveUp lets the system forget the segments that have become old since the last call.
// It is called by the goroutine that prepares segments.
func (l *Log) giveUp() {
	for _, seg := range l.old() {
		seg.file.DropCache()
		seg.release()
	}
}

// old returns the segments to be given up, which the caller must release.
func (l *Log) old() (segs []*segment) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	newest := uint64(0) // those before it are complete on disk
	for _, s := range slices.Backward(l.segments) {
		if s.durable {
			newest = s.number
			break
		}
	}
	c := &l.cache
	if newest <= c.judged+cachedSegments+1 {
		return nil
	}
	from, through := c.judged, newest-cachedSegments-1
	reads := c.reads.Load()
	quiet := reads == c.heard
	c.judged, c.heard = through, reads
	if !quiet || !l.prep.bulk.Load() {
		return nil
	}
	for _, s := range l.segments {
		if s.number > from && s.number <= through && s.file != nil {
			s.users.Add(1)
			segs = append(segs, s)
		}
	}
	return segs
}
