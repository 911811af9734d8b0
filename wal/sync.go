package wal

import (
	"errors"
	"fmt"
	"slices"
	"syscall"
)

// Sync makes everything durable that was appended before the call: one write and
// one fdatasync, or one of each per segment and per maxBatch bytes. It returns the LSN through which records are durable.
//
// It may be called from several goroutines; each call returns when its records are
// durable, and one that finds them so does nothing. An error is final
// (ErrFailed), with one exception: ErrNoSpace.
func (l *Log) Sync() (LSN, error) {
	l.mu.RLock()
	target := l.appended
	l.mu.RUnlock()

	l.syncMu.Lock()
	defer l.syncMu.Unlock()
	work, err := l.takeBatches(target)
	for _, b := range work {
		if err = l.write(b); err != nil {
			break
		}
		l.written(b)
	}
	if err != nil {
		return l.Durable(), fmt.Errorf("sync log: %w", err)
	}
	l.afterSync()
	return l.Durable(), nil
}

// takeBatches seals what is pending and returns it, or nothing when the target
// is durable already.
func (l *Log) takeBatches(target LSN) ([]*batch, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.usable(); err != nil || l.durable >= target {
		return nil, err
	}
	l.seal()
	l.work = append(l.work[:0], l.pending...)
	return l.work, nil
}

// write brings one batch to its file and makes it durable. The caller holds
// syncMu.
func (l *Log) write(b *batch) error {
	seg := b.seg
	if err := l.makeRoom(seg, b.end()); err != nil {
		if isNoSpace(err) && !errors.Is(err, ErrFailed) {
			l.log.Warn("log has no room for the next segment", "segment", seg.number, "err", err)
			return fmt.Errorf("%w: %w", ErrNoSpace, err)
		}
		return l.fail(err)
	}
	if err := b.write(); err != nil {
		return l.fail(fmt.Errorf("write segment %d: %w", seg.number, err))
	}
	if err := seg.file.Sync(); err != nil {
		return l.fail(fmt.Errorf("sync segment %d: %w", seg.number, err))
	}
	return nil
}

func isNoSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// makeRoom sees to it that the segment has a file of at least size bytes.
func (l *Log) makeRoom(seg *segment, size int64) error {
	if seg.file == nil {
		f, n, err := l.takeFile(seg.number)
		if err != nil {
			return err
		}
		l.mu.Lock()
		seg.attach(f, n)
		l.mu.Unlock()
	}
	if seg.size >= size {
		return nil
	}
	if err := seg.file.Preallocate(size); err != nil {
		return fmt.Errorf("extend segment %d to %d bytes: %w", seg.number, size, err)
	}
	seg.size = size
	return nil
}

// fail makes an error final.
func (l *Log) fail(err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed == nil {
		l.failed = fmt.Errorf("%w: %w", ErrFailed, err)
		l.log.Error("log failed", "dir", l.opt.Dir, "err", err)
	}
	return l.failed
}

// written notes that the first pending batch is durable.
func (l *Log) written(b *batch) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.durable = max(l.durable, b.last)
	l.waiting -= b.size()
	b.seg.durable = true
	l.pending = slices.Delete(l.pending, 0, 1)
	b.empty()
	if len(l.free) < keepBuffers {
		l.free = append(l.free, b)
	}
}

// Close syncs what was appended, marks the end of the log as clean, and gives up
// the lock. After an error it closes all the same.
func (l *Log) Close() error {
	_, err := l.Sync()
	l.stopPreparing()
	l.syncMu.Lock()
	defer l.syncMu.Unlock()
	if err == nil {
		err = l.markClosed()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return ErrClosed
	}
	l.closed = true
	for _, s := range l.segments {
		if s.file != nil {
			s.release()
		}
	}
	if cerr := l.lock.Close(); err == nil && cerr != nil {
		err = fmt.Errorf("unlock log: %w", cerr)
	}
	return err
}

// markClosed writes an empty batch: what is before a valid batch was synced, so
// damage there is never taken for a torn write.
func (l *Log) markClosed() error {
	l.mu.Lock()
	if err := l.usable(); err != nil {
		l.mu.Unlock()
		return err
	}
	seg := l.active()
	if l.openBatch() != nil || seg.end+batchHeader > seg.capacity || seg.file == nil || l.cleanEnd {
		l.mu.Unlock() // somebody appends at the same time, or there is no room: the mark is no duty
		return nil
	}
	b := l.start(seg, flagClosed)
	l.seal()
	l.mu.Unlock()
	if err := l.write(b); err != nil {
		return fmt.Errorf("close log: %w", err)
	}
	l.written(b)
	return nil
}
