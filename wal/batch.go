package wal

import "hash/crc32"

const (
	// maxBatch limits a batch, but a record always fits into one. Appenders would
	// stall while the buffer of an endless one grows, and each batch has a sync
	// of its own, so that only the last of them can be torn.
	maxBatch = 2 << 20
	// refPayload is the length from which the payload of an entry is not copied into the
	// batch but written from where it is. Below, copying is cheaper than one more piece.
	// States are copied: their memory is used again.
	refPayload = 8 << 10
	// keepBuffer and keepBuffers limit the buffers kept for batches to come: one that is
	// written, one that takes records, and one between.
	keepBuffer  = maxBatch + maxBatch/2
	keepBuffers = 3
)

// batch is what one write brings to one segment.
type batch struct {
	seg    *segment
	off    int64 // in the file
	buf    []byte
	refs   []ref // what is not in buf, ascending
	seq    uint64
	count  uint32
	flags  uint32
	last   LSN
	sealed bool

	referred int64    // bytes of refs
	pieces   [][]byte // used again by write
}

// ref is a payload that stands in a batch without being in its buffer.
type ref struct {
	at   int // before this byte of buf
	data []byte
}

// size is the length of the batch in the file, end where it ends there.
func (b *batch) size() int64 { return int64(len(b.buf)) + b.referred }
func (b *batch) end() int64  { return b.off + b.size() }

// add encodes a record, whose header lands at the end of the batch.
func (b *batch) add(r *Record) {
	off := b.end()
	b.count++
	if r.Kind != KindEntry || len(r.Payload) < refPayload {
		b.buf = appendRecord(b.buf, r, b.seg.seeds, off)
		return
	}
	at := len(b.buf)
	b.buf = append(append(b.buf, zeros[:recordHeader]...), r.Head...)
	r.head(crc32.Update(crc32.Checksum(r.Head, castagnoli), castagnoli, r.Payload)).put(b.buf[at:], b.seg.seeds, off)
	b.refs = append(b.refs, ref{len(b.buf), r.Payload})
	b.referred += int64(len(r.Payload))
	b.buf = append(b.buf, zeros[:padded(r.length())-r.length()]...)
}

// holds reports whether the record at an offset of a segment's file is in the batch.
func (b *batch) holds(seg *segment, off int64) bool {
	return b.seg == seg && b.off <= off && off < b.end()
}

// copyOut fills p with what the batch has from offset off of its file on.
func (b *batch) copyOut(p []byte, off int64) {
	skip := off - b.off
	b.each(func(piece []byte) {
		if skip >= int64(len(piece)) {
			skip -= int64(len(piece))
			return
		}
		p = p[copy(p, piece[skip:]):]
		skip = 0
	})
}

// each calls f with all pieces of the batch in their order.
func (b *batch) each(f func(piece []byte)) {
	from := 0
	for i := range b.refs {
		f(b.buf[from:b.refs[i].at])
		f(b.refs[i].data)
		from = b.refs[i].at
	}
	f(b.buf[from:])
}

// write brings the batch to its file.
func (b *batch) write() error {
	if len(b.refs) == 0 {
		_, err := b.seg.file.WriteAt(b.buf, b.off)
		return err
	}
	b.pieces = b.pieces[:0]
	b.each(func(piece []byte) { b.pieces = append(b.pieces, piece) })
	_, err := b.seg.file.WritePiecesAt(b.pieces, b.off)
	return err
}

// empty lets the payloads go, and a buffer that is too large to be kept.
func (b *batch) empty() {
	clear(b.refs)
	clear(b.pieces)
	b.refs, b.pieces = b.refs[:0], b.pieces[:0]
	if cap(b.buf) > keepBuffer {
		b.buf = nil
	}
}
