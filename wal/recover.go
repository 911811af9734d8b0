package wal

import (
	"errors"
	"fmt"
)

// Damage is a piece of the log that Open found to be damaged, with
// Options.Salvage. It stays known, at each Open, until it no longer matters: a
// newer record of the entry or state was appended, or it was trimmed.
type Damage struct {
	CorruptError
	Length int64 // bytes
	// Known says that Record, without payload, tells what was there. Read of
	// such an entry returns the CorruptError until it is appended again; such a
	// state is not returned by State. A Record without kind is none: the header of a
	// segment is damaged, and nothing of what was appended. When Known is false, any record
	// may be missing, the newest of an entry or state whose older one is seen included.
	Known  bool
	Record Record
}

// Damages returns what Open found damaged, if it was told to go on.
func (l *Log) Damages() []Damage {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return append([]Damage(nil), l.damages...)
}

// recovery is the state of reading a log at Open.
type recovery struct {
	l      *Log
	expect uint64 // sequence number of the next batch; 0 if not known
	bytes  int64  // read so far, for progress

	// The last batch read is held back: whether flaws in it are damage or a
	// torn write is known when something valid follows, or nothing does.
	last    *foundBatch
	lastSeg *segment
	// The newest batch that counts, in lastSeg.
	lastOff, lastEnd int64

	// The end of the batches of the segment read last.
	tailSeg *segment
	tail    int64
}

// progressStep is after how many bytes Open reports how far it is.
const progressStep = 1 << 30

// recover reads a log that exists.
func (l *Log) recover(numbers []uint64) error {
	if err := l.openSegments(numbers); err != nil {
		return err
	}
	r := &recovery{l: l}
	if numbers[0] == 1 {
		r.expect = 1
	}
	for i, seg := range l.segments {
		if err := r.segment(seg); err != nil {
			return err
		}
		if before := r.bytes; (before+seg.size)/progressStep > before/progressStep {
			l.log.Info("reading log", "segment", i+1, "of", len(l.segments), "bytes", before+seg.size)
		}
		r.bytes += seg.size
	}
	if err := r.judgeLast(); err != nil {
		return err
	}
	if err := r.judgeTail(); err != nil {
		return err
	}
	l.damages = r.standing()
	l.log.Info("log opened", "dir", l.opt.Dir, "identity", l.id.String(), "segments", len(l.segments), "bytes", r.bytes, "damages", len(l.damages))
	if len(l.damages) > 0 && !l.opt.Salvage {
		err := l.damages[0].CorruptError
		err.Hint = fmt.Sprintf("%d pieces are damaged; fetch them from other members or rebuild this node; check the disk", len(l.damages))
		return &err
	}
	return r.finish()
}

// openSegments opens all files and finds out the identity of the log.
func (l *Log) openSegments(numbers []uint64) error {
	known := false
	var bad []*CorruptError
	for i, n := range numbers {
		if n != numbers[0]+uint64(i) {
			return &CorruptError{File: segmentName(l.opt.Dir, n-1), Cause: "the segment is missing", Hint: "rebuild this node from another member"}
		}
		f, id, err := openSegment(l.fs, l.opt.Dir, n, true)
		if f == nil {
			return err
		}
		seg := newSegment(identity{}, n)
		seg.capacity = l.opt.SegmentSize
		seg.attach(f, 0)
		l.segments = append(l.segments, seg)
		if size, serr := f.Size(); serr == nil {
			seg.size = size
		}
		var corrupt *CorruptError
		switch {
		case errors.As(err, &corrupt):
			bad = append(bad, corrupt)
		case known && id != l.id:
			return &CorruptError{File: segmentName(l.opt.Dir, n), Cause: "segment belongs to another log, " + id.String(), Hint: "move files of other logs away"}
		default:
			known, l.id = true, id
		}
	}
	if len(bad) > 0 && (!l.opt.Salvage || !known) {
		bad[0].Hint = "rebuild this node from another member; check the disk"
		return bad[0]
	}
	for _, e := range bad {
		l.damages = append(l.damages, Damage{CorruptError: *e, Length: segmentHeader, Known: true})
	}
	for _, s := range l.segments {
		s.seeds = makeSeeds(l.id, s.number)
	}
	return nil
}

// segment reads one segment.
func (r *recovery) segment(seg *segment) error {
	s, err := newScanner(seg.file, seg.seeds)
	if err != nil {
		return fmt.Errorf("read segment %d: %w", seg.number, err)
	}
	end, err := s.batches(func(b foundBatch) error { return r.batch(seg, &b) })
	if err != nil {
		return fmt.Errorf("read segment %d: %w", seg.number, err)
	}
	if end > segmentHeader {
		r.tailSeg, r.tail = seg, end
	}
	return nil
}

// batch takes the next batch. That it exists proves that the one before was
// synced.
func (r *recovery) batch(seg *segment, b *foundBatch) error {
	if err := r.accept(); err != nil {
		return err
	}
	if !b.headless && r.expect != 0 && b.head.seq != r.expect {
		if err := r.missing(seg, b); err != nil {
			return err
		}
	}
	r.expect = b.head.seq + 1
	if b.headless {
		r.expect = 0
	}
	seg.end, seg.durable = b.end, true
	r.last, r.lastSeg = b, seg
	return nil
}

// missing notes that batches are missing before b. They were at the end of the
// segment before, or this log was put together from pieces.
func (r *recovery) missing(seg *segment, b *foundBatch) error {
	at, off := seg, b.off
	if r.tailSeg != nil && r.tailSeg != seg && b.off == segmentHeader {
		at, off = r.tailSeg, r.tail
		s, err := newScanner(at.file, at.seeds)
		if err != nil {
			return err
		}
		lost, err := s.salvage(off, s.size)
		if err != nil {
			return err
		}
		r.index(at, &lost)
	}
	r.damage(at, flaw{off: off, end: off, cause: fmt.Sprintf("batch %d is missing, the next one is %d", r.expect, b.head.seq)})
	return nil
}

// accept applies the batch that was held back; flaws in it are damage.
func (r *recovery) accept() error {
	b, seg := r.last, r.lastSeg
	if b == nil {
		return nil
	}
	r.last, r.lastOff, r.lastEnd = nil, b.off, b.end
	for _, f := range b.flaws {
		r.damage(seg, f)
		r.known(seg, f)
	}
	r.index(seg, b)
	return nil
}

// known applies what is known of a damaged record: an entry gets its place, so
// that Read finds the damage, and of a state no older one counts.
func (r *recovery) known(seg *segment, f flaw) {
	if !f.known {
		return
	}
	switch f.head.kind {
	case KindEntry:
		r.apply(seg, foundRecord{head: f.head, off: f.off})
	case KindState:
		if g := r.l.groups[f.head.group]; g != nil {
			r.l.stateBytes -= int64(len(g.state(f.head.key)))
			g.dropState(f.head.key)
		}
	}
}

func (r *recovery) damage(seg *segment, f flaw) {
	d := Damage{
		CorruptError: CorruptError{File: segmentName(r.l.opt.Dir, seg.number), Offset: f.off, Cause: f.cause, Err: f.err},
		Length:       f.end - f.off, Known: f.known,
	}
	if f.known {
		d.Record = f.head.record(nil)
	}
	r.l.damages = append(r.l.damages, d)
	r.l.log.Warn("log is damaged", "file", d.File, "offset", d.Offset, "cause", d.Cause)
}

// index applies the records of a batch.
func (r *recovery) index(seg *segment, b *foundBatch) {
	for _, rec := range b.records {
		r.apply(seg, rec)
	}
}

func (r *recovery) apply(seg *segment, f foundRecord) {
	l := r.l
	g, err := l.group(f.head.group)
	if err != nil {
		r.damage(seg, flaw{off: f.off, end: f.off + recordHeader, cause: err.Error()})
		return
	}
	rec := f.head.record(f.state)
	if rec.Kind == KindEntry {
		l.call++
		err := g.plan(l.call, rec.Index, recoverGap)
		if errors.Is(err, ErrTrimmed) {
			return
		}
		if err != nil {
			r.damage(seg, flaw{off: f.off, end: f.off + recordHeader, cause: err.Error()})
			return
		}
	}
	l.note(seg, &rec, place{segment: uint32(seg.number), position: uint32(f.off / align), length: uint32(f.head.length)})
	seg.used = true
}

// finish makes the end of the log ready for appending. Until here nothing was
// changed on the disk.
func (r *recovery) finish() error {
	l := r.l
	active := 0
	for i, s := range l.segments {
		if s.durable {
			active = i
		}
	}
	for _, s := range l.segments[active:] {
		if s == r.lastSeg {
			if err := rewrite(s, r.lastOff, r.lastEnd); err != nil {
				return fmt.Errorf("write end of segment %d again: %w", s.number, err)
			}
		}
		if err := cleanTail(s, l.cleanEnd); err != nil {
			return fmt.Errorf("clean end of segment %d: %w", s.number, err)
		}
	}
	if err := l.useSpare(active); err != nil {
		return err
	}
	if r.expect != 0 {
		l.seq = r.expect
	}
	l.active().capacity = max(l.active().capacity, l.active().end)
	return nil
}

// judgeLast decides whether flaws of the last batch are a torn write, which is
// cut, or damage. A torn write lacks whole sectors; since the file held zeros
// there, such a sector reads as zeros.
func (r *recovery) judgeLast() error {
	b, seg := r.last, r.lastSeg
	if b == nil {
		return nil
	}
	r.l.cleanEnd = b.head.flags&flagClosed != 0 && len(b.flaws) == 0
	if len(b.flaws) > 0 {
		s, err := newScanner(seg.file, seg.seeds)
		if err != nil {
			return err
		}
		for _, f := range b.flaws {
			torn, err := s.lostSector(f.off, f.end, b.off, b.end)
			if err != nil {
				return err
			}
			if torn || f.lost {
				r.cut(seg, b.off, "the last batch was not written completely")
				seg.durable = b.off > segmentHeader
				r.expect = b.head.seq
				r.last, r.lastEnd = nil, 0
				return nil
			}
		}
	}
	return r.accept()
}

// judgeTail looks at what is behind the last batch. A header there that is wrong
// although no sector is missing is a damaged batch and not a torn one.
func (r *recovery) judgeTail() error {
	for _, seg := range r.l.segments {
		if seg.number < r.lastNumber() || seg.size-seg.end < batchHeader {
			continue
		}
		s, err := newScanner(seg.file, seg.seeds)
		if err != nil {
			return err
		}
		torn, err := s.lostSector(seg.end, seg.end+batchHeader, seg.end, s.size)
		if err != nil {
			return err
		}
		if torn {
			dirty, err := s.dirtyEnd(seg.end)
			if err != nil {
				return err
			}
			if dirty > seg.end {
				r.cut(seg, seg.end, "the last batch was not written completely")
			}
			continue
		}
		if _, ok, err := s.batch(seg.end); ok || err != nil {
			continue // cut by judgeLast
		}
		b, err := s.salvage(seg.end, s.size)
		if err != nil {
			return err
		}
		for i, f := range b.flaws {
			if i == 0 || f.known {
				r.damage(seg, f)
				r.known(seg, f)
			}
		}
		r.index(seg, &b)
		r.expect = max(r.expect, 1) + 1
		// The log goes on in the next segment: what is here stays for a
		// closer look, and stays known as damage.
		seg.end, seg.used, seg.durable = s.size, true, true
	}
	return nil
}

func (r *recovery) lastNumber() uint64 {
	if r.lastSeg == nil {
		return 0
	}
	return r.lastSeg.number
}

func (r *recovery) cut(seg *segment, off int64, cause string) {
	seg.end = off
	r.l.log.Info("torn tail of the log cut", "file", segmentName(r.l.opt.Dir, seg.number), "offset", off, "cause", cause)
}

// rewrite writes the batch at the end of a segment again, byte for byte; the caller
// syncs. It may have been the one whose sync failed: then the kernel holds its pages
// for clean although the disk does not have them, reads return them, and no sync
// brings them to the disk unless they are written anew. What cannot be read is
// damage that is known by now.
func rewrite(seg *segment, from, end int64) error {
	if end <= from {
		return nil
	}
	buf := make([]byte, min(end-from, zeroChunk))
	for off := from; off < end; {
		n, _ := seg.file.ReadAt(buf[:min(end-off, int64(len(buf)))], off)
		if n == 0 {
			return nil
		}
		if _, err := seg.file.WriteAt(buf[:n], off); err != nil {
			return err
		}
		off += int64(n)
	}
	return nil
}

// cleanTail fills what is behind the end of a segment with zeros and syncs it:
// what was read may be in the page cache only, and a record of a cut batch must
// not come to life later. Unless the end is known to be clean, zeros are written as far
// as a batch reaches even where zeros are read: they may be those of an earlier attempt
// whose sync failed.
func cleanTail(seg *segment, clean bool) error {
	s, err := newScanner(seg.file, seg.seeds)
	if err != nil {
		return err
	}
	dirty, err := s.dirtyEnd(seg.end)
	if err != nil {
		return err
	}
	if !clean {
		dirty = max(dirty, min(seg.end+maxBatch, seg.size))
	}
	for off := seg.end; off < dirty; {
		n := min(dirty-off, zeroChunk)
		if _, err := seg.file.WriteAt(zeros[:n], off); err != nil {
			return err
		}
		off += n
	}
	return seg.file.Sync()
}

// useSpare keeps the segments through the active one. One after it was prepared
// and not used: it is the next one. Further ones are removed, the last one first,
// so that no gap can appear.
func (l *Log) useSpare(active int) error {
	rest := l.segments[active+1:]
	l.segments = l.segments[:active+1]
	for len(rest) > 1 {
		s := rest[len(rest)-1]
		rest = rest[:len(rest)-1]
		s.release()
		if err := l.fs.Remove(segmentName(l.opt.Dir, s.number)); err != nil {
			return fmt.Errorf("remove unused segment: %w", err)
		}
		if err := l.fs.SyncDir(l.opt.Dir); err != nil {
			return fmt.Errorf("remove unused segment: %w", err)
		}
	}
	if len(rest) == 1 {
		p := &l.prep
		p.file, p.number, p.size, p.zeroed = rest[0].file, rest[0].number, rest[0].size, segmentHeader
	}
	return nil
}

// standing returns the damages that still matter.
func (r *recovery) standing() []Damage {
	var list []Damage
	for _, d := range r.l.damages {
		if !d.Known || !r.healed(d) {
			list = append(list, d)
		}
	}
	return list
}

// healed reports whether the record of a damage was replaced or trimmed later.
func (r *recovery) healed(d Damage) bool {
	g := r.l.groups[d.Record.Group]
	if g == nil {
		return false
	}
	switch d.Record.Kind {
	case KindState:
		return g.state(d.Record.Key) != nil // the older ones were dropped
	case KindTrim:
		return g.trim >= d.Record.Index
	case 0:
		return false // a segment header
	}
	at, ok := g.get(d.Record.Index)
	return d.Record.Index < g.trim || ok && (segmentName(r.l.opt.Dir, uint64(at.segment)) != d.File || at.offset() != d.Offset)
}
