package wal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/phxsql/phxsql/vfs"
)

// foundRecord is a record whose header is right.
type foundRecord struct {
	head  recordHead
	off   int64
	state []byte // payload of a state
}

// flaw is a range of a file in which something is wrong.
type flaw struct {
	off, end int64
	cause    string
	head     recordHead // of the damaged record
	known    bool       // head is right, only the payload is damaged
	lost     bool       // the file does not reach that far
	err      error      // of the device
}

// foundBatch is a batch whose header is right, or, when headless, what lies
// between two batches and is no batch itself.
type foundBatch struct {
	off, end int64
	head     batchHead
	headless bool
	records  []foundRecord
	flaws    []flaw
}

// scanner reads a segment from front to back through a window.
type scanner struct {
	f     io.ReaderAt
	seeds seeds
	size  int64
	buf   []byte
	at    int64 // offset of buf in the file

	unreadable error // the last error of the device
}

// scanWindow is how much is read at a time.
const scanWindow = 1 << 20

// readBlock is what is given up when the device cannot read a part of it.
const readBlock = 4096

// newScanner starts at a file whose header was checked.
func newScanner(f vfs.File, s seeds) (*scanner, error) {
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	return &scanner{f: f, seeds: s, size: size &^ (align - 1)}, nil
}

// bytes returns n bytes at off, which lie within the file, valid until the next
// call.
func (s *scanner) bytes(off int64, n int) ([]byte, error) {
	if off >= s.at && off+int64(n) <= s.at+int64(len(s.buf)) {
		return s.buf[off-s.at:][:n], nil
	}
	want := int(min(max(int64(n), scanWindow), s.size-off))
	if cap(s.buf) < want {
		s.buf = make([]byte, want)
	}
	s.buf, s.at = s.buf[:want], off
	m, err := s.f.ReadAt(s.buf, off)
	if m == want {
		return s.buf[:n], nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		s.buf = s.buf[:0]
		return nil, fmt.Errorf("read %d bytes at offset %d: %w", want, off, io.ErrUnexpectedEOF)
	}
	s.readAround(err)
	return s.buf[:n], nil
}

// readAround fills the window block by block. Blocks that the device cannot read
// are filled with ones: no checksum will match, and they do not look like a
// sector that was never written.
func (s *scanner) readAround(err error) {
	s.unreadable = err
	for at := 0; at < len(s.buf); at += readBlock {
		p := s.buf[at:min(at+readBlock, len(s.buf))]
		if n, err := s.f.ReadAt(p, s.at+int64(at)); n < len(p) {
			for i := range p {
				p[i] = 0xff
			}
			s.unreadable = err
		}
	}
}

// batches calls yield for each batch and returns where the last one ends. A
// headless one is only reported when a batch follows.
func (s *scanner) batches(yield func(foundBatch) error) (end int64, err error) {
	off := int64(segmentHeader)
	for off+batchHeader <= s.size {
		b, ok, err := s.batch(off)
		if err != nil {
			return off, err
		}
		if !ok {
			next, err := s.findBatch(off + align)
			if err != nil || next < 0 {
				return off, err
			}
			if b, err = s.salvage(off, next); err != nil {
				return off, err
			}
		}
		if err := yield(b); err != nil {
			return off, err
		}
		off = b.end
	}
	return off, nil
}

// batch reads the batch at off; ok is false if none is there.
func (s *scanner) batch(off int64) (b foundBatch, ok bool, err error) {
	p, err := s.bytes(off, batchHeader)
	if err != nil {
		return b, false, err
	}
	h, ok := decodeBatch(p, s.seeds, off)
	if !ok {
		return b, false, nil
	}
	b = foundBatch{off: off, end: min(off+batchHeader+h.length, s.size), head: h}
	err = s.records(&b, off+batchHeader)
	if want := off + batchHeader + h.length; want > b.end {
		b.flaws = append(b.flaws, flaw{off: b.end, end: want, cause: "file ends within the batch", lost: true})
	}
	unknown := 0
	for _, f := range b.flaws {
		if !f.known {
			unknown++
		}
	}
	if n := len(b.records) + len(b.flaws); err == nil && unknown == 0 && uint32(n) != h.count {
		b.flaws = append(b.flaws, flaw{off: off, end: b.end, cause: fmt.Sprintf("batch has %d records, its header says %d", n, h.count)})
	}
	return b, true, err
}

// salvage collects the records between off and end that are right in a place
// where there should be a batch and is none.
func (s *scanner) salvage(off, end int64) (foundBatch, error) {
	b := foundBatch{off: off, end: end, headless: true}
	b.flaws = append(b.flaws, flaw{off: off, end: off + batchHeader, cause: "batch header does not match its checksum", err: s.unreadable})
	first, err := s.findRecord(off+align, end)
	if err != nil || first == end {
		return b, err
	}
	err = s.records(&b, first)
	return b, err
}

// records reads records from off to the end of b.
func (s *scanner) records(b *foundBatch, off int64) error {
	for off < b.end {
		h, ok, err := s.record(off, b.end)
		if err != nil {
			return err
		}
		if !ok {
			next, err := s.findRecord(off+align, b.end)
			if err != nil {
				return err
			}
			b.flaws = append(b.flaws, flaw{off: off, end: next, cause: "record header does not match its checksum", err: s.unreadable})
			off = next
			continue
		}
		end := off + int64(recordSize(h.length))
		r := foundRecord{head: h, off: off}
		cause, err := s.payload(&r)
		if err != nil {
			return err
		}
		if cause == "" {
			b.records = append(b.records, r)
		} else {
			b.flaws = append(b.flaws, flaw{off: off, end: end, cause: cause, head: h, known: true, err: s.unreadable})
		}
		off = end
	}
	return nil
}

// record reads the record header at off; ok is false if there is none whose
// record ends by end.
func (s *scanner) record(off, end int64) (h recordHead, ok bool, err error) {
	if end-off < recordHeader {
		return h, false, nil
	}
	p, err := s.bytes(off, recordHeader)
	if err != nil {
		return h, false, err
	}
	h, ok = decodeRecord(p, s.seeds, off)
	return h, ok && int64(recordSize(h.length)) <= end-off, nil
}

// payload checks the payload of a record and returns what is wrong with it.
func (s *scanner) payload(r *foundRecord) (cause string, err error) {
	p, err := s.bytes(r.off+recordHeader, padded(r.head.length))
	if err != nil {
		return "", err
	}
	if crc32.Checksum(p[:r.head.length], castagnoli) != r.head.crc {
		return "payload does not match its checksum", nil
	}
	if !allZero(p[r.head.length:]) {
		return "bytes between records are not zero", nil
	}
	if r.head.kind == KindState {
		r.state = bytes.Clone(p[:r.head.length])
	}
	return "", nil
}

// findBatch returns the offset of the first batch header at or after off, or -1.
func (s *scanner) findBatch(off int64) (int64, error) {
	magic := binary.LittleEndian.AppendUint32(nil, batchMagic)
	for off+batchHeader <= s.size {
		p, err := s.bytes(off, int(min(scanWindow, s.size-off)))
		if err != nil {
			return -1, err
		}
		for i := 0; ; {
			j := bytes.Index(p[i:], magic)
			if j < 0 {
				break
			}
			if i += j + 1; (i-5)%align != 0 || i < 5 || i-5+batchHeader > len(p) {
				continue
			}
			at := off + int64(i-5)
			if _, ok := decodeBatch(p[i-5:], s.seeds, at); ok {
				return at, nil
			}
		}
		if int64(len(p)) == s.size-off {
			break
		}
		off += int64(len(p)) - batchHeader // a header may begin in this window and end in the next
	}
	return -1, nil
}

// findRecord returns the offset of the first record header at or after off whose
// record ends by end, or end.
func (s *scanner) findRecord(off, end int64) (int64, error) {
	for ; off+recordHeader <= end; off += align {
		if _, ok, err := s.record(off, end); err != nil || ok {
			return off, err
		}
	}
	return end, nil
}

// lostSector reports whether a sector of the range from off to end reads as zeros,
// as it does when a write into fresh space did not reach it. Sectors are taken as
// far as they lie in the batch from lo to hi.
func (s *scanner) lostSector(off, end, lo, hi int64) (bool, error) {
	for sector := off / vfs.SectorSize; sector*vfs.SectorSize < min(end, hi); sector++ {
		a, z := max(sector*vfs.SectorSize, lo), min((sector+1)*vfs.SectorSize, hi)
		p, err := s.bytes(a, int(z-a))
		if err != nil {
			return false, err
		}
		if allZero(p) {
			return true, nil
		}
	}
	return false, nil
}

// dirtyEnd returns the end of the last byte after off that is not zero, or off.
func (s *scanner) dirtyEnd(off int64) (int64, error) {
	end := off
	for off < s.size {
		p, err := s.bytes(off, int(min(scanWindow, s.size-off)))
		if err != nil {
			return end, err
		}
		for len(p) > 0 && !allZero(p) {
			n := min(len(p), vfs.SectorSize)
			if !allZero(p[:n]) {
				end = off + int64(n)
			}
			p, off = p[n:], off+int64(n)
		}
		off += int64(len(p))
	}
	return end, nil
}

func allZero(p []byte) bool {
	for len(p) > len(zeros) {
		if !bytes.Equal(p[:len(zeros)], zeros[:]) {
			return false
		}
		p = p[len(zeros):]
	}
	return bytes.Equal(p, zeros[:len(p)])
}
