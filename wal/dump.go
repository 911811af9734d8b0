package wal

import (
	"errors"
	"fmt"
	"iter"

	"github.com/phxsql/phxsql/vfs"
)

// Raw is a record as it lies in a file.
type Raw struct {
	File   string
	Offset int64  // of the record header, in bytes
	Batch  uint64 // sequence number; 0 if the batch header is damaged
	// Head says that the batch is the head of a segment, which begins with
	// copies of all states and trims.
	Head   bool
	Record Record
	// Damage says what is wrong here; Record then is what is known, which may
	// be nothing. The tail of a log that is in use may look damaged.
	Damage *CorruptError
}

// Records returns all records of the log in a directory, in the order in which
// they were appended, those that no longer count included. It takes no lock and
// changes nothing, so that it works on a log in use and on a damaged one. An error
// of the file system ends it.
func Records(fs vfs.FS, dir string) iter.Seq2[Raw, error] {
	return func(yield func(Raw, error) bool) {
		names, err := fs.List(dir)
		numbers := segmentNumbers(names)
		if err == nil && len(numbers) == 0 {
			err = ErrNoLog
		}
		if err != nil {
			yield(Raw{}, fmt.Errorf("list log %s: %w", dir, err))
			return
		}
		for _, n := range numbers {
			if err := dumpSegment(fs, dir, n, yield); err != nil {
				if !errors.Is(err, errStop) {
					yield(Raw{}, fmt.Errorf("read segment %d: %w", n, err))
				}
				return
			}
		}
	}
}

// errStop says that the consumer has seen enough.
var errStop = errors.New("stop")

func dumpSegment(fs vfs.FS, dir string, number uint64, yield func(Raw, error) bool) error {
	f, id, err := openSegment(fs, dir, number, false)
	if f == nil {
		return err
	}
	defer f.Close()
	name := segmentName(dir, number)
	var corrupt *CorruptError
	if errors.As(err, &corrupt) {
		if !yield(Raw{File: name, Damage: corrupt}, nil) {
			return errStop
		}
		return nil // without the identity no record can be checked
	}
	s, err := newScanner(f, makeSeeds(id, number))
	if err != nil {
		return err
	}
	_, err = s.batches(func(b foundBatch) error { return dumpBatch(f, name, b, yield) })
	return err
}

// dumpBatch yields the records and flaws of a batch in the order of their places.
func dumpBatch(f vfs.File, name string, b foundBatch, yield func(Raw, error) bool) error {
	flaws := b.flaws
	raw := Raw{File: name, Batch: b.head.seq, Head: b.head.flags&flagHead != 0}
	before := func(off int64) bool {
		for len(flaws) > 0 && flaws[0].off < off {
			r := raw
			r.Offset = flaws[0].off
			r.Damage = &CorruptError{File: name, Offset: r.Offset, Cause: flaws[0].cause, Err: flaws[0].err}
			if flaws[0].known {
				r.Record = flaws[0].head.record(nil)
			}
			if flaws = flaws[1:]; !yield(r, nil) {
				return false
			}
		}
		return true
	}
	for _, rec := range b.records {
		payload := make([]byte, rec.head.length)
		if _, err := f.ReadAt(payload, rec.off+recordHeader); err != nil {
			return fmt.Errorf("read %d bytes at offset %d: %w", len(payload), rec.off+recordHeader, err)
		}
		r := raw
		r.Offset, r.Record = rec.off, rec.head.record(payload)
		if !before(rec.off) || !yield(r, nil) {
			return errStop
		}
	}
	if !before(1 << 62) {
		return errStop
	}
	return nil
}
