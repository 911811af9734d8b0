package binlog

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"time"

	"github.com/phxsql/phxsql/internal/gtid"
)

// Transaction is what the GTID event at a transaction's start says about it.
type Transaction struct {
	GTID gtid.GTID
	// Length is the size in bytes of all events of the transaction, this one
	// and every CRC32 included. Every server since 8.0.2 writes it, so the
	// end of a transaction is known without looking into its events.
	Length uint64
	// LastCommitted and SequenceNumber are the master's logical clock.
	LastCommitted, SequenceNumber int64
}

// ParseGTID reads a whole event of type GTID or GTIDTagged.
func ParseGTID(event []byte) (Transaction, error) {
	h, err := ParseHeader(event)
	if err != nil {
		return Transaction{}, err
	}
	if int(h.Size) != len(event) || len(event) < HeaderSize+ChecksumSize {
		return Transaction{}, fmt.Errorf("parse gtid event: %d bytes, header says %d: %w", len(event), h.Size, ErrMalformed)
	}
	body := event[HeaderSize : len(event)-ChecksumSize]
	var t Transaction
	switch h.Type {
	case GTID:
		t, err = parseClassic(body)
	case GTIDTagged:
		t, err = parseTagged(body)
	default:
		return Transaction{}, fmt.Errorf("parse gtid event: it is a %v: %w", h.Type, ErrMalformed)
	}
	if err != nil {
		return Transaction{}, fmt.Errorf("parse %v event: %w", h.Type, err)
	}
	if t.GTID.GNO < 1 || t.GTID.GNO > gtid.MaxGNO {
		return Transaction{}, fmt.Errorf("parse %v event: number %d: %w", h.Type, t.GTID.GNO, ErrMalformed)
	}
	if t.Length < uint64(len(event)) {
		return Transaction{}, fmt.Errorf("parse %v event: transaction of %d bytes, the event alone has %d: %w",
			h.Type, t.Length, len(event), ErrMalformed)
	}
	return t, nil
}

// The body of a classic GTID event.
//
//	 0       1      17    25      26               34
//	+-------+------+-----+-------+----------------+-----------------+
//	| flags | uuid | gno | clock | last committed | sequence number |
//	| u8    | 16   | i64 | u8=2  | i64            | i64             |
//	+-------+------+-----+-------+----------------+-----------------+
//	42 commit time u56, bit 55 set when the next field is there
//	49 original commit time u56 (optional)
//	   transaction length, packed integer
//	   server version u32, bit 31 set when another u32 follows; later fields
const (
	classicFixed = 42
	clockType    = 2
)

func parseClassic(b []byte) (Transaction, error) {
	le := binary.LittleEndian
	if len(b) < classicFixed+7+1 {
		return Transaction{}, fmt.Errorf("body of %d bytes: %w", len(b), ErrMalformed)
	}
	if b[25] != clockType {
		return Transaction{}, fmt.Errorf("logical clock of type %d: %w", b[25], ErrMalformed)
	}
	var t Transaction
	copy(t.GTID.UUID[:], b[1:])
	t.GTID.GNO = int64(le.Uint64(b[17:]))
	t.LastCommitted = int64(le.Uint64(b[26:]))
	t.SequenceNumber = int64(le.Uint64(b[34:]))
	at := classicFixed + 7
	if b[at-1]&0x80 != 0 {
		at += 7
	}
	n, ok := packedInt(b[min(at, len(b)):])
	if !ok {
		return Transaction{}, fmt.Errorf("no transaction length: %w", ErrMalformed)
	}
	t.Length = n
	return t, nil
}

// packedInt reads a length-encoded integer of the client protocol.
func packedInt(b []byte) (uint64, bool) {
	if len(b) == 0 {
		return 0, false
	}
	size := 0
	switch b[0] {
	case 0xfb, 0xff:
		return 0, false
	case 0xfc:
		size = 2
	case 0xfd:
		size = 3
	case 0xfe:
		size = 8
	default:
		return uint64(b[0]), true
	}
	if len(b) < 1+size {
		return 0, false
	}
	var full [8]byte
	copy(full[:], b[1:1+size])
	return binary.LittleEndian.Uint64(full[:]), true
}

// The body of a tagged GTID event is a message of the library
// mysql::serialization: version, size, and the id of the last field that a
// reader must know, then fields, each its id and its value, ascending by id.
// All integers but the bytes of the UUID and the flags are variable-length.
const (
	fieldFlags          = 0
	fieldUUID           = 1
	fieldGNO            = 2
	fieldTag            = 3
	fieldLastCommitted  = 4
	fieldSequenceNumber = 5
	fieldCommitTime     = 6
	fieldOriginalTime   = 7
	fieldLength         = 8
)

func parseTagged(b []byte) (Transaction, error) {
	r := serialReader{b: b}
	if v := r.unsigned(); v != 1 && !r.bad {
		return Transaction{}, fmt.Errorf("serialization version %d: %w", v, ErrMalformed)
	}
	r.unsigned() // size of the message
	r.unsigned() // last field that must be known
	var t Transaction
	seen := 0
	for !r.bad && len(r.b) > 0 {
		id := r.unsigned()
		switch id {
		case fieldFlags:
			r.byte()
		case fieldUUID:
			for i := range t.GTID.UUID {
				t.GTID.UUID[i] = r.byte()
			}
		case fieldGNO:
			t.GTID.GNO = r.signed()
		case fieldTag:
			t.GTID.Tag = r.text()
		case fieldLastCommitted:
			t.LastCommitted = r.signed()
		case fieldSequenceNumber:
			t.SequenceNumber = r.signed()
		case fieldCommitTime, fieldOriginalTime:
			r.unsigned()
		case fieldLength:
			t.Length = r.unsigned()
		}
		if id < 64 {
			seen |= 1 << id
		}
		if id >= fieldLength {
			break // nothing after it is needed
		}
	}
	const needed = 1<<fieldUUID | 1<<fieldGNO | 1<<fieldTag | 1<<fieldLength
	if r.bad || seen&needed != needed || t.GTID.Tag != "" && !gtid.ValidTag(t.GTID.Tag) {
		return Transaction{}, fmt.Errorf("fields are missing or cut short: %w", ErrMalformed)
	}
	return t, nil
}

// serialReader reads the values of mysql::serialization. After the first value
// that does not fit, bad is set and everything reads as zero.
type serialReader struct {
	b   []byte
	bad bool
}

// unsigned reads a variable-length integer: as many low bits of the first byte
// are 1 as bytes follow it, then a 0 unless all 8 are 1.
func (r *serialReader) unsigned() uint64 {
	if r.bad || len(r.b) == 0 {
		r.bad = true
		return 0
	}
	extra := bits.TrailingZeros8(^r.b[0])
	if len(r.b) < 1+extra {
		r.bad = true
		return 0
	}
	var full [8]byte
	if extra == 8 {
		copy(full[:], r.b[1:9])
	} else {
		copy(full[:], r.b[:1+extra])
	}
	v := binary.LittleEndian.Uint64(full[:])
	if extra < 8 {
		v >>= extra + 1
	}
	r.b = r.b[1+extra:]
	return v
}

// signed reads a variable-length integer whose lowest bit is the sign.
func (r *serialReader) signed() int64 {
	v := r.unsigned()
	if v&1 != 0 {
		return -int64(v>>1) - 1
	}
	return int64(v >> 1)
}

func (r *serialReader) byte() byte {
	v := r.unsigned()
	if v > 0xff {
		r.bad = true
	}
	return byte(v)
}

func (r *serialReader) text() string {
	n := r.unsigned()
	if r.bad || n > uint64(len(r.b)) {
		r.bad = true
		return ""
	}
	s := string(r.b[:n])
	r.b = r.b[n:]
	return s
}

// AppendGTID appends a classic GTID event. Position is where the event stands in
// its file, 0 for none. The tag of the GTID must be empty.
func AppendGTID(b []byte, t Transaction, serverID uint32, now time.Time, position uint32) []byte {
	if t.GTID.Tag != "" {
		panic("binlog: a classic GTID event cannot hold the tag " + t.GTID.Tag)
	}
	le := binary.LittleEndian
	b, start := open(b, Header{Timestamp: unix(now), Type: GTID, ServerID: serverID})
	b = append(b, 0) // flags
	b = append(b, t.GTID.UUID[:]...)
	b = le.AppendUint64(b, uint64(t.GTID.GNO))
	b = append(b, clockType)
	b = le.AppendUint64(b, uint64(t.LastCommitted))
	b = le.AppendUint64(b, uint64(t.SequenceNumber))
	const oneTimestamp = 1<<55 - 1
	micros := le.AppendUint64(nil, uint64(now.UnixMicro())&oneTimestamp)
	b = append(b, micros[:7]...)
	b = appendPackedInt(b, t.Length)
	b = le.AppendUint32(b, 80400) // server version that the transaction needs
	return seal(b, start, position)
}

// AppendEvent appends an event of any type whose body is given. It fills in
// the size, the end position if position is not 0, and the CRC32.
func AppendEvent(b []byte, h Header, body []byte, position uint32) []byte {
	b, start := open(b, h)
	b = append(b, body...)
	return seal(b, start, position)
}
