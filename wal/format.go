package wal

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
)

// Group names one of the logs that share the file. It is an alias, so that plain
// numbers fit.
type Group = uint32

// Kind tells what a record is.
type Kind uint8

// The kinds of records.
const (
	// KindEntry is an entry of a group; the latest record of an index counts.
	KindEntry Kind = 1
	// KindState is a small value of a group; the latest record of a key counts.
	KindState Kind = 2
	// KindTrim is written by TrimBelow: entries of the group below Index are
	// gone. Append does not take it.
	KindTrim Kind = 3
)

func (k Kind) String() string {
	switch k {
	case KindEntry:
		return "entry"
	case KindState:
		return "state"
	case KindTrim:
		return "trim"
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// Record is what the log keeps.
type Record struct {
	Group Group
	Kind  Kind
	Key   uint8  // of a state
	Index uint64 // of an entry, from 1; for a trim the first index kept
	// Head, if any, is written before Payload as a part of it, which spares a
	// caller with two pieces the copy. What is read back is all in Payload.
	Head    []byte
	Payload []byte
}

// head is the header of the record, given the checksum of what is stored of it.
func (r *Record) head(crc uint32) recordHead {
	return recordHead{crc: crc, length: r.length(), group: r.Group, kind: r.Kind, key: r.Key, index: r.Index}
}

// length is that of the payload as it is stored.
func (r *Record) length() int { return len(r.Head) + len(r.Payload) }

// whole is the payload in one piece.
func (r *Record) whole() []byte {
	if len(r.Head) == 0 {
		return r.Payload
	}
	return append(append(make([]byte, 0, r.length()), r.Head...), r.Payload...)
}

// The layout, little-endian; every header starts at a multiple of 8 bytes.
//
//	segment   0  magic "PHXWAL\r\n" | 8 version u32 | 12 zero u32
//	         16  identity of the log, 16 bytes
//	         32  segment number u64 | zeros
//	       4092  CRC-32C of bytes 0..4092
//	       4096  batches, then zeros
//
//	batch     0  CRC-32C of bytes 4..32, started with the segment's seed
//	          4  magic "bat\n"
//	          8  sequence number u64, without gaps through all segments
//	         16  length of the records u32 | 20 position u32
//	         24  number of records u32 | 28 flags u32
//	         32  records
//
//	record    0  CRC-32C of bytes 4..32, started with the segment's seed
//	          4  CRC-32C of the payload | 8 length of the payload u32
//	         12  position u32
//	         16  group u32 | 20 kind u8 | 21 key u8 | 22 zero u16
//	         24  index u64
//	         32  payload, then zeros up to a multiple of 8 bytes
//
// A position is the offset in the file divided by 8. The seeds are CRC-32C of
// identity, segment number and one letter ('b' or 'r'). So a header counts only in the
// place, the file and the log for which it was written.
const (
	formatVersion = 1

	segmentMagic  = "PHXWAL\r\n"
	segmentHeader = 4096
	batchMagic    = 'b' | 'a'<<8 | 't'<<16 | '\n'<<24
	batchHeader   = 32
	recordHeader  = 32
	align         = 8

	// MaxPayload is the largest payload of an entry in bytes.
	MaxPayload = 64 << 20
	// MaxState is the largest payload of a state in bytes: states are written
	// again in every segment.
	MaxState = 64 << 10

	// flagClosed marks the empty batch that Close writes: what is before it was
	// synced.
	flagClosed = 1
	// flagHead marks a batch that begins with all states and trims.
	flagHead = 2
)

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	le         = binary.LittleEndian
)

// identity is drawn when a log is made.
type identity [16]byte

func (id identity) String() string { return hex.EncodeToString(id[:]) }

// seeds start the checksums of the headers of one segment.
type seeds struct{ batch, record uint32 }

func makeSeeds(id identity, segment uint64) seeds {
	var b [25]byte
	copy(b[:], id[:])
	le.PutUint64(b[16:], segment)
	b[24] = 'b'
	batch := crc32.Checksum(b[:], castagnoli)
	b[24] = 'r'
	return seeds{batch: batch, record: crc32.Checksum(b[:], castagnoli)}
}

// padded is the room that a payload takes.
func padded(n int) int { return (n + align - 1) &^ (align - 1) }

func recordSize(payload int) int { return recordHeader + padded(payload) }

func encodeSegmentHeader(id identity, segment uint64) []byte {
	b := make([]byte, segmentHeader)
	copy(b, segmentMagic)
	le.PutUint32(b[8:], formatVersion)
	copy(b[16:], id[:])
	le.PutUint64(b[32:], segment)
	le.PutUint32(b[segmentHeader-4:], crc32.Checksum(b[:segmentHeader-4], castagnoli))
	return b
}

// decodeSegmentHeader returns the identity and number of a segment, or what is
// wrong with the header.
func decodeSegmentHeader(b []byte) (identity, uint64, string) {
	var id identity
	switch {
	case len(b) < segmentHeader:
		return id, 0, "segment header is cut short"
	case string(b[:8]) != segmentMagic:
		return id, 0, "not a log segment: wrong magic number"
	case le.Uint32(b[segmentHeader-4:]) != crc32.Checksum(b[:segmentHeader-4], castagnoli):
		return id, 0, "segment header does not match its checksum"
	case le.Uint32(b[8:]) != formatVersion:
		return id, 0, fmt.Sprintf("segment has format version %d, this program knows %d", le.Uint32(b[8:]), formatVersion)
	}
	copy(id[:], b[16:])
	return id, le.Uint64(b[32:]), ""
}

// batchHead is a decoded batch header.
type batchHead struct {
	seq    uint64
	length int64 // of the records
	count  uint32
	flags  uint32
}

func (h batchHead) put(b []byte, s seeds, off int64) {
	_ = b[batchHeader-1]
	le.PutUint32(b[4:], batchMagic)
	le.PutUint64(b[8:], h.seq)
	le.PutUint32(b[16:], uint32(h.length))
	le.PutUint32(b[20:], uint32(off/align))
	le.PutUint32(b[24:], h.count)
	le.PutUint32(b[28:], h.flags)
	le.PutUint32(b, crc32.Update(s.batch, castagnoli, b[4:batchHeader]))
}

// decodeBatch reads a batch header at offset off; ok is false unless every field
// is right for that place.
func decodeBatch(b []byte, s seeds, off int64) (h batchHead, ok bool) {
	if len(b) < batchHeader || le.Uint32(b[4:]) != batchMagic || le.Uint32(b[20:]) != uint32(off/align) {
		return h, false
	}
	if le.Uint32(b) != crc32.Update(s.batch, castagnoli, b[4:batchHeader]) {
		return h, false
	}
	h = batchHead{
		seq: le.Uint64(b[8:]), length: int64(le.Uint32(b[16:])),
		count: le.Uint32(b[24:]), flags: le.Uint32(b[28:]),
	}
	return h, h.length%align == 0
}

// recordHead is a decoded record header.
type recordHead struct {
	crc    uint32 // of the payload
	length int
	group  Group
	kind   Kind
	key    uint8
	index  uint64
}

func (h recordHead) put(b []byte, s seeds, off int64) {
	_ = b[recordHeader-1]
	le.PutUint32(b[4:], h.crc)
	le.PutUint32(b[8:], uint32(h.length))
	le.PutUint32(b[12:], uint32(off/align))
	le.PutUint32(b[16:], h.group)
	b[20], b[21], b[22], b[23] = byte(h.kind), h.key, 0, 0
	le.PutUint64(b[24:], h.index)
	le.PutUint32(b, crc32.Update(s.record, castagnoli, b[4:recordHeader]))
}

// decodeRecord reads a record header at offset off; ok is false unless every
// field is right for that place.
func decodeRecord(b []byte, s seeds, off int64) (h recordHead, ok bool) {
	if len(b) < recordHeader || le.Uint32(b[12:]) != uint32(off/align) {
		return h, false
	}
	if le.Uint32(b) != crc32.Update(s.record, castagnoli, b[4:recordHeader]) {
		return h, false
	}
	n := le.Uint32(b[8:])
	h = recordHead{
		crc: le.Uint32(b[4:]), length: int(n),
		group: le.Uint32(b[16:]), kind: Kind(b[20]), key: b[21], index: le.Uint64(b[24:]),
	}
	return h, n <= MaxPayload && h.kind >= KindEntry && h.kind <= KindTrim
}

func (h recordHead) record(payload []byte) Record {
	return Record{Group: h.group, Kind: h.kind, Key: h.key, Index: h.index, Payload: payload}
}

// appendRecord appends an encoded record, whose header lands at offset off.
func appendRecord(b []byte, r *Record, s seeds, off int64) []byte {
	at := len(b)
	b = append(b, zeros[:recordHeader]...)
	b = append(append(b, r.Head...), r.Payload...)
	b = append(b, zeros[:padded(r.length())-r.length()]...)
	payload := b[at+recordHeader : at+recordHeader+r.length()]
	r.head(crc32.Checksum(payload, castagnoli)).put(b[at:], s, off)
	return b
}

// zeros is a source of zero bytes.
var zeros [zeroChunk]byte

// zeroChunk is how much of a new segment is filled with zeros at a time.
const zeroChunk = 256 << 10
