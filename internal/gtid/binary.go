package gtid

import (
	"encoding/binary"
	"fmt"
)

// The binary form of a set, as in a binlog's previous-GTIDs event and in
// COM_BINLOG_DUMP_GTID. All integers are little-endian.
//
//	classic:  number of sources u64
//	tagged:   1 u8 | number of sources, 6 bytes | 1 u8
//	then for each source, in order:
//	+-----------+----------------------+-----------------------+----------------------------+
//	| uuid 16   | tagged form only:    | number of intervals   | for each: first u64,       |
//	|           | length*2 u8, tag     | u64                   | the number after last u64  |
//	+-----------+----------------------+-----------------------+----------------------------+
const (
	binaryHeader   = 8
	binaryInterval = 16
	taggedMark     = 1
)

// AppendBinary appends the binary form. The classic form is used unless the set
// has a tag, because servers before 8.3 know no other.
func (s *Set) AppendBinary(b []byte) []byte {
	le := binary.LittleEndian
	all := s.sorted()
	tagged := false
	for _, iv := range all {
		tagged = tagged || iv.source.Tag != ""
	}
	if tagged {
		b = le.AppendUint64(b, taggedMark|uint64(len(all))<<8|taggedMark<<56)
	} else {
		b = le.AppendUint64(b, uint64(len(all)))
	}
	for _, iv := range all {
		b = append(b, iv.source.UUID[:]...)
		if tagged {
			b = append(b, byte(len(iv.source.Tag)<<1))
			b = append(b, iv.source.Tag...)
		}
		b = le.AppendUint64(b, uint64(len(iv.list)))
		for _, in := range iv.list {
			b = le.AppendUint64(b, uint64(in.First))
			b = le.AppendUint64(b, uint64(in.Last)+1)
		}
	}
	return b
}

// DecodeSet reads a binary form that fills b exactly.
func DecodeSet(b []byte) (*Set, error) {
	if len(b) < binaryHeader {
		return nil, fmt.Errorf("decode GTID set: %d bytes: %w", len(b), ErrMalformed)
	}
	head := binary.LittleEndian.Uint64(b)
	tagged := head>>56 == taggedMark
	n := head
	if tagged {
		n = head << 8 >> 16
	}
	s := &Set{}
	rest := b[binaryHeader:]
	for i := uint64(0); i < n; i++ {
		var err error
		if rest, err = s.decodeSource(rest, tagged); err != nil {
			return nil, fmt.Errorf("decode GTID set: source %d of %d: %w", i+1, n, err)
		}
	}
	if len(rest) != 0 {
		return nil, fmt.Errorf("decode GTID set: %d bytes left over: %w", len(rest), ErrMalformed)
	}
	return s, nil
}

// decodeSource reads one source from the front of b and returns the rest.
func (s *Set) decodeSource(b []byte, tagged bool) ([]byte, error) {
	le := binary.LittleEndian
	var src Source
	if len(b) < len(src.UUID) {
		return nil, ErrMalformed
	}
	b = b[copy(src.UUID[:], b):]
	if tagged {
		if len(b) < 1 || b[0]&1 != 0 || len(b) < 1+int(b[0]>>1) {
			return nil, ErrMalformed
		}
		n := int(b[0] >> 1)
		src.Tag = string(b[1 : 1+n])
		if n > 0 && !ValidTag(src.Tag) {
			return nil, fmt.Errorf("tag %q: %w", src.Tag, ErrMalformed)
		}
		b = b[1+n:]
	}
	if len(b) < 8 {
		return nil, ErrMalformed
	}
	n := le.Uint64(b)
	b = b[8:]
	if n == 0 || n > uint64(len(b)/binaryInterval) {
		return nil, fmt.Errorf("%d intervals in %d bytes: %w", n, len(b), ErrMalformed)
	}
	for ; n > 0; n-- {
		first, end := le.Uint64(b), le.Uint64(b[8:])
		if first < 1 || first >= end || end > MaxGNO+1 {
			return nil, fmt.Errorf("interval %d to %d: %w", first, end, ErrMalformed)
		}
		s.AddInterval(src, Interval{int64(first), int64(end - 1)})
		b = b[binaryInterval:]
	}
	return b, nil
}
