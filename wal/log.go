package wal

import (
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"

	"github.com/phxsql/phxsql/vfs"
)

// LSN counts the records appended since Open, from 1. Everything with an LSN up
// to Log.Durable is durable; what Open found is durable too and has LSN 0.
type LSN uint64

// Options say where a log is and how it behaves. FS and Dir are needed.
type Options struct {
	FS  vfs.FS
	Dir string // made when it does not exist
	// SegmentSize is the size of a segment in bytes; default 64 MiB, from 8 KiB
	// to 4 GiB. A larger record gets a larger segment.
	SegmentSize int64
	// MaxPending limits the bytes that wait for Sync; default 512 MiB. At the
	// limit Append returns ErrBacklog; one call of any size is always taken
	// when nothing waits.
	MaxPending int64
	// Salvage lets Open go on when records are damaged: see Log.Damages.
	Salvage bool
	// Inline makes the log start no goroutine: segments are prepared and
	// removed within Sync, and not filled with zeros beforehand. For simulators.
	Inline bool
	// Rand gives the identity of a new log; default crypto/rand.
	Rand io.Reader
	// Logger gets events; default none.
	Logger *slog.Logger
}

const (
	defaultSegmentSize = 64 << 20
	minSegmentSize     = 8 << 10
	maxSegmentSize     = 4 << 30
	defaultMaxPending  = 512 << 20

	// maxGroups limits the number of groups of a log.
	maxGroups = 1 << 16
	// maxStates limits the bytes of all states together: each segment begins
	// with them.
	maxStates = 64 << 20
)

// Log is an open log. Its methods may be called at the same time.
type Log struct {
	opt  Options
	fs   vfs.FS
	lock io.Closer
	id   identity
	log  *slog.Logger

	// syncMu is held during Sync and guards the files that are written. It is
	// taken before mu.
	syncMu sync.Mutex
	prep   preparer
	cache  pageCache
	work   []*batch // of the Sync that runs

	mu         sync.RWMutex // guards what follows
	groups     map[Group]*groupIndex
	order      []Group    // the keys of groups, ascending
	segments   []*segment // numbers without gaps; the last one is appended to
	pending    []*batch   // in order; those not known to be on disk
	free       []*batch
	seq        uint64 // of the next batch
	call       uint64 // counts calls of Append
	appended   LSN
	durable    LSN
	waiting    int64 // bytes in pending
	stateBytes int64
	damages    []Damage
	trims      bool // a trim was appended since segments were last removed
	keepAll    bool // a segment could not be removed
	cleanEnd   bool // nothing was appended since a clean end was found or marked
	failed     error
	closed     bool
}

// Append encodes the records into the batch that the next Sync writes, and makes
// them visible to Read, State and Bounds. They are not durable. The Payload of an
// entry must not change any more, for a long one is not copied; what else is in a record
// may. It returns the LSN of the last one. On an error nothing was appended.
func (l *Log) Append(recs ...Record) (LSN, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.usable(); err != nil {
		return 0, fmt.Errorf("append to log: %w", err)
	}
	if err := l.admit(recs); err != nil {
		return 0, fmt.Errorf("append to log: %w", err)
	}
	for i := range recs {
		l.add(&recs[i])
	}
	return l.appended, nil
}

// usable returns why the log cannot be used; the caller holds mu.
func (l *Log) usable() error {
	if l.failed != nil {
		return l.failed
	}
	if l.closed {
		return ErrClosed
	}
	return nil
}

// admit checks records against every limit before any of them is added.
func (l *Log) admit(recs []Record) error {
	l.call++
	bytes, states := int64(0), l.stateBytes
	for i := range recs {
		r := &recs[i]
		g, err := l.group(r.Group)
		if err != nil {
			return err
		}
		switch r.Kind {
		case KindEntry:
			if err := g.plan(l.call, r.Index, maxGap); err != nil {
				return fmt.Errorf("group %d: %w", r.Group, err)
			}
			if r.length() > MaxPayload {
				return fmt.Errorf("entry %d of group %d has %d bytes, limit %d: %w", r.Index, r.Group, r.length(), MaxPayload, ErrInvalid)
			}
		case KindState:
			if states += int64(r.length()); r.length() > MaxState || states > maxStates {
				return fmt.Errorf("state %d of group %d has %d bytes, limit %d, all states %d: %w", r.Key, r.Group, r.length(), MaxState, maxStates, ErrInvalid)
			}
		default:
			return fmt.Errorf("record of %v: %w", r.Kind, ErrInvalid)
		}
		bytes += int64(recordSize(r.length()))
	}
	if l.waiting > 0 && l.waiting+bytes > l.opt.MaxPending {
		return fmt.Errorf("%d bytes wait, limit %d: %w", l.waiting, l.opt.MaxPending, ErrBacklog)
	}
	return nil
}

// group returns the index of a group and makes it when needed.
func (l *Log) group(id Group) (*groupIndex, error) {
	if g := l.groups[id]; g != nil {
		return g, nil
	}
	if len(l.groups) >= maxGroups {
		return nil, fmt.Errorf("group %d would be one of more than %d: %w", id, maxGroups, ErrInvalid)
	}
	g := newGroupIndex()
	l.groups[id] = g
	at, _ := slices.BinarySearch(l.order, id)
	l.order = slices.Insert(l.order, at, id)
	return g, nil
}

// add encodes one record that was admitted and notes where it is.
func (l *Log) add(r *Record) {
	b := l.room(int64(recordSize(r.length())))
	at := l.encode(b, r)
	b.seg.used = true
	l.note(b.seg, r, at)
	l.appended++
	b.last = l.appended
}

// encode appends a record to a batch and returns where it is.
func (l *Log) encode(b *batch, r *Record) place {
	off := b.end()
	b.add(r)
	b.seg.end = b.end()
	l.waiting += b.end() - off
	return place{segment: uint32(b.seg.number), position: uint32(off / align), length: uint32(r.length())}
}

// note brings the index up to date with a record at a place.
func (l *Log) note(seg *segment, r *Record, at place) {
	g := l.groups[r.Group]
	switch r.Kind {
	case KindEntry:
		g.set(r.Index, at)
		seg.newest[r.Group] = max(seg.newest[r.Group], r.Index)
	case KindState:
		l.stateBytes += int64(r.length() - len(g.state(r.Key)))
		g.setState(r.Key, r.whole())
	case KindTrim:
		g.trimBelow(r.Index)
	}
}

// room returns the open batch of a segment that has room for a record of this
// size, and starts batch and segment as needed.
func (l *Log) room(size int64) *batch {
	b, seg := l.openBatch(), l.active()
	if b != nil && b.count > 0 && b.size()+size > maxBatch {
		l.seal()
		b = nil
	}
	need := size
	if b == nil {
		need += batchHeader
	}
	if seg.end+need > seg.capacity && seg.used {
		l.seal()
		seg = l.roll()
		b, need = l.openBatch(), size
	}
	seg.capacity = max(seg.capacity, seg.end+need)
	if b == nil {
		b = l.start(seg, 0)
	}
	return b
}

func (l *Log) active() *segment { return l.segments[len(l.segments)-1] }

// openBatch returns the batch that takes records, or nil.
func (l *Log) openBatch() *batch {
	if n := len(l.pending); n > 0 && !l.pending[n-1].sealed {
		return l.pending[n-1]
	}
	return nil
}

// start opens a batch at the end of a segment.
func (l *Log) start(seg *segment, flags uint32) *batch {
	var b *batch
	if n := len(l.free); n > 0 {
		b, l.free = l.free[n-1], l.free[:n-1]
	} else {
		b = new(batch)
	}
	*b = batch{seg: seg, off: seg.end, buf: append(b.buf[:0], zeros[:batchHeader]...), refs: b.refs[:0], pieces: b.pieces, seq: l.seq, flags: flags, last: l.appended}
	l.seq++
	l.cleanEnd = false
	seg.end += batchHeader
	l.waiting += batchHeader
	l.pending = append(l.pending, b)
	return b
}

// seal completes the open batch: its header is known now.
func (l *Log) seal() {
	b := l.openBatch()
	if b == nil {
		return
	}
	b.sealed = true
	batchHead{
		seq: b.seq, length: b.size() - batchHeader, count: b.count, flags: b.flags,
	}.put(b.buf, b.seg.seeds, b.off)
}

// roll goes on to the next segment, whose first batch begins with all states and
// trims, so that no older segment is needed for them. The file is made by Sync.
func (l *Log) roll() *segment {
	seg := newSegment(l.id, l.active().number+1)
	seg.capacity = l.opt.SegmentSize
	l.segments = append(l.segments, seg)
	b := l.start(seg, flagHead)
	for _, id := range l.order {
		g := l.groups[id]
		if g.trim > 0 {
			l.encode(b, &Record{Group: id, Kind: KindTrim, Index: g.trim})
		}
		for i := range g.states {
			l.encode(b, &Record{Group: id, Kind: KindState, Key: g.states[i].key, Payload: g.states[i].payload})
		}
	}
	return seg
}

// State returns a copy of the latest payload appended for a key of a group.
func (l *Log) State(group Group, key uint8) ([]byte, bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	g := l.groups[group]
	if g == nil {
		return nil, false
	}
	p := g.state(key)
	return append([]byte{}, p...), p != nil
}

// Bounds returns the lowest and highest index that the log holds for a group;
// there may be holes between them. first is last+1 when it holds none.
func (l *Log) Bounds(group Group) (first, last uint64) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if g := l.groups[group]; g != nil {
		return g.first, g.last
	}
	return 1, 0
}

// Trimmed returns the lowest index of a group that TrimBelow has not given up; 0 when
// nothing was ever given up. A group whose lowest entry is above it has lost entries.
func (l *Log) Trimmed(group Group) uint64 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if g := l.groups[group]; g != nil {
		return g.trim
	}
	return 0
}

// Groups returns the groups that the log has seen, ascending.
func (l *Log) Groups() []Group {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return slices.Clone(l.order)
}

// Durable returns the LSN up to which records are durable.
func (l *Log) Durable() LSN {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.durable
}

// Identity returns the random identity drawn when the log was made, as 32
// hexadecimal digits.
func (l *Log) Identity() string { return l.id.String() }

// TrimBelow gives up the entries of a group below index, at once for Read and
// durably with the next Sync. A lower index than before does nothing. Space comes
// back in whole segments, oldest first, when no group needs anything in them.
func (l *Log) TrimBelow(group Group, index uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.usable() != nil || index > maxIndex {
		return
	}
	g, err := l.group(group)
	if err != nil || index <= g.trim {
		return
	}
	l.add(&Record{Group: group, Kind: KindTrim, Index: index})
	g.trimLSN = l.appended
	l.trims = true
}

// Size returns the bytes that the segments take.
func (l *Log) Size() int64 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	n := int64(0)
	for _, s := range l.segments {
		n += s.capacity
	}
	return n
}
