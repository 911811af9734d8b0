package wal

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// Read returns the payload of the latest record of an entry, which the caller may
// keep. It serves records that are not written yet from memory. What does not
// match its checksum is a *CorruptError.
func (l *Log) Read(group Group, index uint64) ([]byte, error) {
	seg, at, payload, err := l.find(group, index)
	if err != nil {
		return nil, fmt.Errorf("read entry %d of group %d: %w", index, group, err)
	}
	if payload != nil {
		return payload, nil
	}
	defer seg.release()
	if payload, err = l.readAt(seg, group, index, at); err != nil {
		return nil, fmt.Errorf("read entry %d of group %d: %w", index, group, err)
	}
	return payload, nil
}

// find returns the payload of an entry if it is in memory, else its place and the
// segment, which the caller must release.
func (l *Log) find(group Group, index uint64) (*segment, place, []byte, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	g := l.groups[group]
	if l.closed {
		return nil, place{}, nil, ErrClosed
	}
	if g == nil {
		return nil, place{}, nil, ErrNotFound
	}
	if index < g.trim {
		return nil, place{}, nil, ErrTrimmed
	}
	at, ok := g.get(index)
	if !ok {
		return nil, place{}, nil, ErrNotFound
	}
	seg := l.segments[uint64(at.segment)-l.segments[0].number]
	for _, b := range l.pending {
		if b.holds(seg, at.offset()) {
			p := make([]byte, at.length)
			b.copyOut(p, at.offset()+recordHeader)
			return nil, at, p, nil
		}
	}
	l.cache.noteRead(seg.number, l.active().number)
	seg.users.Add(1)
	return seg, at, nil, nil
}

// readAt reads a record from its file and checks all of it.
func (l *Log) readAt(seg *segment, group Group, index uint64, at place) ([]byte, error) {
	off := at.offset()
	buf := make([]byte, recordHeader+int(at.length))
	bad := func(cause string, err error) error {
		return &CorruptError{
			File: segmentName(l.opt.Dir, seg.number), Offset: off, Cause: cause, Err: err,
			Hint: "fetch this entry from another member and append it again; check the disk",
		}
	}
	if n, err := seg.file.ReadAt(buf, off); n < len(buf) {
		if errors.Is(err, io.EOF) {
			return nil, bad("file ends within the record", nil)
		}
		return nil, bad("the device cannot read it", err)
	}
	h, ok := decodeRecord(buf, seg.seeds, off)
	switch {
	case !ok:
		return nil, bad("record header does not match its checksum", nil)
	case h.kind != KindEntry || h.group != group || h.index != index || h.length != int(at.length):
		return nil, bad("another record is in this place", nil)
	}
	payload := buf[recordHeader:]
	if crc32.Checksum(payload, castagnoli) != h.crc {
		return nil, bad("payload does not match its checksum", nil)
	}
	return payload, nil
}
