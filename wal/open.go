package wal

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"

	"github.com/phxsql/phxsql/vfs"
)

// Open opens the log in a directory and makes one where there is none. It reads
// all of it, checks every byte, and cuts a torn tail. Damage elsewhere is a
// *CorruptError, unless Options.Salvage is set.
func Open(opt Options) (*Log, error) {
	if err := opt.complete(); err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	l := &Log{opt: opt, fs: opt.FS, log: opt.Logger, groups: make(map[Group]*groupIndex), seq: 1}
	if err := l.open(); err != nil {
		l.abandon()
		return nil, fmt.Errorf("open log %s: %w", opt.Dir, err)
	}
	l.startPreparing()
	return l, nil
}

func (o *Options) complete() error {
	if o.FS == nil || o.Dir == "" {
		return fmt.Errorf("no file system or directory: %w", ErrInvalid)
	}
	if o.SegmentSize == 0 {
		o.SegmentSize = defaultSegmentSize
	}
	if o.SegmentSize < minSegmentSize || o.SegmentSize > maxSegmentSize {
		return fmt.Errorf("segment size %d is not from %d to %d: %w", o.SegmentSize, minSegmentSize, int64(maxSegmentSize), ErrInvalid)
	}
	o.SegmentSize &^= align - 1
	if o.MaxPending <= 0 {
		o.MaxPending = defaultMaxPending
	}
	if o.Rand == nil {
		o.Rand = rand.Reader
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	o.Dir = filepath.Clean(o.Dir)
	return nil
}

func (l *Log) open() error {
	dir := l.opt.Dir
	if err := l.fs.MkdirAll(dir); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	if err := l.fs.SyncDir(filepath.Dir(dir)); err != nil {
		return fmt.Errorf("sync directory above: %w", err)
	}
	lock, err := l.fs.Lock(filepath.Join(dir, lockName))
	if errors.Is(err, vfs.ErrLocked) {
		return fmt.Errorf("%w (hint: is this node already running?): %w", ErrInUse, err)
	}
	if err != nil {
		return err
	}
	l.lock = lock
	numbers, err := l.listSegments()
	if err != nil {
		return err
	}
	if len(numbers) == 0 {
		return l.create()
	}
	// A process that ended right before it did so may have left segments whose names
	// only the page cache knows.
	if err := l.fs.SyncDir(dir); err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	return l.recover(numbers)
}

// abandon closes what a failed open has opened.
func (l *Log) abandon() {
	for _, s := range l.segments {
		if s.file != nil {
			s.release()
		}
	}
	if l.prep.file != nil {
		l.prep.file.Close()
	}
	if l.lock != nil {
		l.lock.Close()
	}
}

// listSegments returns the numbers of the segments, ascending, and removes what
// an interrupted creation left.
func (l *Log) listSegments() ([]uint64, error) {
	names, err := l.fs.List(l.opt.Dir)
	if err != nil {
		return nil, fmt.Errorf("list segments: %w", err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, segmentSuffix+tempSuffix) {
			if err := l.fs.Remove(filepath.Join(l.opt.Dir, name)); err != nil {
				return nil, fmt.Errorf("remove unfinished segment: %w", err)
			}
		}
	}
	return segmentNumbers(names), nil
}

func segmentNumbers(names []string) []uint64 {
	var numbers []uint64
	for _, name := range names {
		if n, ok := segmentNumber(name); ok {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	return numbers
}

// create makes a new log. It exists once its first segment does.
func (l *Log) create() error {
	if _, err := io.ReadFull(l.opt.Rand, l.id[:]); err != nil {
		return fmt.Errorf("draw identity: %w", err)
	}
	err := l.makeSpare(1)
	if err == nil && !l.opt.Inline {
		err = l.prep.fillFirst()
	}
	if isNoSpace(err) {
		err = fmt.Errorf("%w: %w", ErrNoSpace, err)
	}
	if err != nil {
		return err
	}
	f, size, err := l.takeFile(1)
	if err != nil {
		return err
	}
	seg := newSegment(l.id, 1)
	seg.capacity = l.opt.SegmentSize
	seg.attach(f, size)
	l.segments = append(l.segments, seg)
	l.log.Info("log created", "dir", l.opt.Dir, "identity", l.id.String())
	return nil
}

// ReadIdentity returns the identity of the log in a directory without opening
// it, or ErrNoLog.
func ReadIdentity(fs vfs.FS, dir string) (string, error) {
	names, err := fs.List(dir)
	if err != nil {
		return "", fmt.Errorf("read log identity: %w", err)
	}
	numbers := segmentNumbers(names)
	if len(numbers) == 0 {
		return "", fmt.Errorf("read log identity: %s: %w", dir, ErrNoLog)
	}
	var first error
	for _, n := range numbers { // any segment will do
		f, id, err := openSegment(fs, dir, n, false)
		if err == nil {
			f.Close()
			return id.String(), nil
		}
		if first == nil {
			first = err
		}
	}
	return "", fmt.Errorf("read log identity: %w", first)
}

// openSegment opens a segment and checks its header. With a damaged header it
// returns the file and a *CorruptError.
func openSegment(fs vfs.FS, dir string, number uint64, write bool) (vfs.File, identity, error) {
	name := segmentName(dir, number)
	open := fs.Open
	if write {
		open = fs.OpenReadWrite
	}
	f, err := open(name)
	if err != nil {
		return nil, identity{}, fmt.Errorf("open segment %d: %w", number, err)
	}
	b := make([]byte, segmentHeader)
	n, err := f.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return f, identity{}, &CorruptError{File: name, Cause: "the device cannot read it", Err: err}
	}
	id, got, cause := decodeSegmentHeader(b[:n])
	if cause == "" && got != number {
		cause = fmt.Sprintf("segment header has number %d", got)
	}
	if cause != "" {
		return f, id, &CorruptError{File: name, Cause: cause}
	}
	return f, id, nil
}
