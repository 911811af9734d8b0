package wal

import (
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/phxsql/phxsql/vfs"
)

// preparer makes the file of the next segment before it is needed and fills it
// with zeros: a write into blocks that were written before needs no journal
// commit at its fdatasync, which nearly doubles the rate of small syncs.
//
// The zeros are written in step with the log itself (at twice its speed), so that
// they never come as a burst that holds up a sync. While syncs carry much each, they
// are left out: there the bandwidth of the disk is the limit, which the zeros would
// share, and one journal commit for so many bytes does not show.
type preparer struct {
	kick chan struct{} // there may be work
	stop chan struct{} // nil when there is no goroutine
	done chan struct{}
	once sync.Once
	seen int64 // bytes of the log at the last kick; guarded by syncMu
	made int64 // syncs since then; guarded by syncMu
	bulk atomic.Bool

	mu     sync.Mutex // held during each step
	file   vfs.File   // the spare segment, or nil
	number uint64
	taken  uint64 // the last number handed out: never made again
	size   int64
	zeroed int64 // up to this offset
	warned bool
}

// bulkSync is the number of bytes per sync from which zeros do not pay.
const bulkSync = 48 << 10

// takeFile returns the file of a segment: the prepared one, or a new one.
func (l *Log) takeFile(number uint64) (vfs.File, int64, error) {
	p := &l.prep
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.file == nil || p.number != number {
		if err := l.makeSpare(number); err != nil {
			return nil, 0, err
		}
	}
	f, size := p.file, p.size
	p.file, p.taken = nil, number
	return f, size, nil
}

// makeSpare makes the file of a segment, complete with its header and durable.
// The caller holds prep.mu.
func (l *Log) makeSpare(number uint64) error {
	name := segmentName(l.opt.Dir, number)
	f, err := createSegment(l.fs, l.id, name, number, l.opt.SegmentSize)
	if err != nil {
		free, ferr := l.fs.FreeSpace(l.opt.Dir)
		if isNoSpace(err) && ferr == nil {
			err = fmt.Errorf("%w (%d bytes are free; hint: free space on this file system or trim the log)", err, free)
		}
		return err
	}
	if err := l.fs.SyncDir(l.opt.Dir); err != nil {
		f.Close()
		return l.fail(fmt.Errorf("sync directory of new segment %d: %w", number, err))
	}
	p := &l.prep
	p.file, p.number, p.size, p.zeroed, p.warned = f, number, l.opt.SegmentSize, segmentHeader, false
	return nil
}

// createSegment makes a segment under a temporary name first: a file with the
// name of a segment is always complete. The caller syncs the directory. It never
// replaces a segment.
func createSegment(fs vfs.FS, id identity, name string, number uint64, size int64) (f vfs.File, err error) {
	if _, err := fs.Stat(name); err == nil {
		return nil, fmt.Errorf("create segment %d: %s exists already", number, name)
	}
	temp := name + tempSuffix
	if _, serr := fs.Stat(temp); serr == nil {
		if err := fs.Remove(temp); err != nil {
			return nil, fmt.Errorf("remove left over segment: %w", err)
		}
	}
	if f, err = fs.Create(temp); err != nil {
		return nil, fmt.Errorf("create segment %d: %w", number, err)
	}
	defer func() {
		if err != nil {
			f.Close()
			fs.Remove(temp) // best effort: it is also removed at the next attempt
			f, err = nil, fmt.Errorf("create segment %d: %w", number, err)
		}
	}()
	if err = f.Preallocate(size); err != nil {
		return f, err
	}
	if _, err = f.WriteAt(encodeSegmentHeader(id, number), 0); err != nil {
		return f, err
	}
	if err = f.Sync(); err != nil {
		return f, err
	}
	return f, fs.Rename(temp, name)
}

// afterSync does or hands over what can wait. The caller holds syncMu.
func (l *Log) afterSync() {
	if l.opt.Inline {
		l.reap()
		return
	}
	l.mu.RLock()
	end, trims := l.position(), l.trims
	l.mu.RUnlock()
	l.prep.made++
	if end-l.prep.seen < zeroChunk/2 && !trims {
		return
	}
	l.prep.bulk.Store((end-l.prep.seen)/l.prep.made >= bulkSync)
	l.prep.seen, l.prep.made = end, 0
	select {
	case l.prep.kick <- struct{}{}:
	default:
	}
}

// position is where the next batch goes, counted through all segments. The caller holds mu.
func (l *Log) position() int64 {
	return int64(l.active().number)*l.opt.SegmentSize + l.active().end
}

// startPreparing starts the goroutine that prepares and removes segments;
// stopPreparing ends it.
func (l *Log) startPreparing() {
	l.cache.judged = l.active().number - 1 // what Open has read is the system's to keep
	if l.opt.Inline {
		return
	}
	p := &l.prep
	p.seen = l.position()
	p.kick, p.stop, p.done = make(chan struct{}, 1), make(chan struct{}), make(chan struct{})
	p.kick <- struct{}{}
	go func() {
		defer close(p.done)
		for {
			select {
			case <-p.stop:
				return
			case <-p.kick:
			}
			for l.prepareStep() {
				select {
				case <-p.stop:
					return
				default:
				}
			}
			l.reap()
			l.giveUp()
		}
	}()
}

func (l *Log) stopPreparing() {
	p := &l.prep
	p.once.Do(func() {
		if p.stop != nil {
			close(p.stop)
			<-p.done
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.file != nil {
			p.file.Close() // synced or without content: nothing can be lost
			p.file = nil
		}
	})
}

// prepareStep makes the next segment or fills a piece of it with zeros. It
// reports whether there is more to do now.
func (l *Log) prepareStep() bool {
	p := &l.prep
	p.mu.Lock()
	defer p.mu.Unlock()
	number, filled := l.nextFile()
	number = max(number, p.taken+1) // one was taken, but its segment does not have it yet
	var err error
	switch {
	case p.file == nil || p.number != number:
		err = l.makeSpare(number)
	case p.zeroed >= p.size:
		return false
	case float64(p.zeroed) > float64(p.size)*2*filled+4*zeroChunk:
		return false
	case p.bulk.Load():
		p.zeroed += zeroChunk // fallocate has made them zeros already, if slower ones to write over
	default:
		err = p.zero()
	}
	if err != nil && !p.warned {
		p.warned = true
		l.log.Warn("cannot prepare the next log segment; will try when it is needed", "segment", number, "err", err)
	}
	return err == nil
}

// zero fills the next piece. An error leaves a file that is valid all the same.
func (p *preparer) zero() error {
	n := min(zeroChunk, p.size-p.zeroed)
	if _, err := p.file.WriteAt(zeros[:n], p.zeroed); err != nil {
		return fmt.Errorf("fill segment %d with zeros: %w", p.number, err)
	}
	p.zeroed += n
	if err := p.file.Sync(); err != nil {
		return fmt.Errorf("fill segment %d with zeros: %w", p.number, err)
	}
	return nil
}

// fillFirst fills the first segment of a new log with zeros at once: no segment
// before it gives the time to do so step by step.
func (p *preparer) fillFirst() error {
	for p.zeroed < p.size {
		n := min(zeroChunk, p.size-p.zeroed)
		if _, err := p.file.WriteAt(zeros[:n], p.zeroed); err != nil {
			return fmt.Errorf("fill segment %d with zeros: %w", p.number, err)
		}
		p.zeroed += n
	}
	return p.file.Sync()
}

// nextFile returns the number of the first segment without a file, and how much
// of the one before is filled.
func (l *Log) nextFile() (number uint64, filled float64) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	for _, s := range l.segments {
		if s.file == nil {
			return s.number, 1
		}
	}
	s := l.active()
	return s.number + 1, float64(s.end) / float64(s.capacity)
}

// reap removes the oldest segments that nobody needs. After an error none is
// removed until the next Open, because a gap in the numbers is damage.
func (l *Log) reap() {
	for {
		l.mu.Lock()
		l.trims = false
		if l.keepAll || !l.reapable() {
			l.mu.Unlock()
			return
		}
		seg := l.segments[0]
		l.segments = l.segments[1:]
		l.mu.Unlock()
		seg.release()
		if err := l.fs.Remove(segmentName(l.opt.Dir, seg.number)); err != nil {
			l.log.Warn("cannot remove a log segment", "segment", seg.number, "err", err)
			l.mu.Lock()
			l.keepAll = true
			l.mu.Unlock()
			return
		}
		// Each removal is durable before the next one.
		if err := l.fs.SyncDir(l.opt.Dir); err != nil {
			l.fail(fmt.Errorf("sync directory after removing segment %d: %w", seg.number, err))
			return
		}
		l.log.Info("log segment removed", "segment", seg.number)
	}
}

// reapable reports whether the oldest segment can go: the next one has durable
// copies of all states, and every entry in this one is durably trimmed.
func (l *Log) reapable() bool {
	if l.usable() != nil || len(l.segments) < 2 || !l.segments[1].durable {
		return false
	}
	for id, newest := range l.segments[0].newest {
		if g := l.groups[id]; newest >= g.trim || g.trimLSN > l.durable {
			return false
		}
	}
	return true
}
