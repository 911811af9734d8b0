package entry

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// Builder makes one Transactions or Chunk value in a single buffer: the caller
// writes events straight into it, the transactions' table is appended at the
// end, and the buffer is handed over. The zero Builder must be started.
type Builder struct {
	buf  []byte
	txns []Txn // reused from value to value
	open int   // where the events of the transaction that is being written begin
}

// Start begins a value with room for that many bytes of events. What was
// not finished is dropped.
func (bl *Builder) Start(epoch, node uint64, room int) {
	bl.buf = make([]byte, headerSize, headerSize+room+2*rowSize)
	bl.txns = bl.txns[:0]
	bl.open = headerSize
	bl.buf[0], bl.buf[1] = Version, byte(Transactions)
	binary.LittleEndian.PutUint64(bl.buf[8:], epoch)
	binary.LittleEndian.PutUint64(bl.buf[16:], node)
}

// Started reports whether a value is being built.
func (bl *Builder) Started() bool { return bl.buf != nil }

// Extend lengthens the events by n bytes and returns them, to be filled by the
// caller before the next call.
func (bl *Builder) Extend(n int) []byte {
	at := len(bl.buf)
	bl.buf = slices.Grow(bl.buf, n)[:at+n]
	return bl.buf[at:]
}

// Append copies b to the end of the events.
func (bl *Builder) Append(b []byte) { bl.buf = append(bl.buf, b...) }

// Len is the number of bytes of events.
func (bl *Builder) Len() int {
	if bl.buf == nil {
		return 0
	}
	return len(bl.buf) - headerSize
}

// EndTxn says that the events since the last call are the whole transaction t,
// whose size must agree.
func (bl *Builder) EndTxn(t Txn) {
	if got := uint64(len(bl.buf) - bl.open); got != t.Size {
		panic(fmt.Sprintf("entry: %v has %d bytes of events, said to have %d", t.GTID, got, t.Size))
	}
	bl.open = len(bl.buf)
	bl.txns = append(bl.txns, t)
}

// Txns returns the transactions ended so far; valid until the next Start.
func (bl *Builder) Txns() []Txn { return bl.txns }

// Finish completes a Transactions value and hands its bytes over.
func (bl *Builder) Finish() []byte {
	if len(bl.txns) == 0 || bl.open != len(bl.buf) {
		panic("entry: finish a value that has no or an unfinished transaction")
	}
	binary.LittleEndian.PutUint32(bl.buf[32:], uint32(len(bl.buf)-headerSize))
	return bl.seal()
}

// FinishChunk completes a Chunk value, whose events are those of t from offset
// on, and hands its bytes over.
func (bl *Builder) FinishChunk(t Txn, offset uint64) []byte {
	n := uint64(bl.Len())
	if n == 0 || len(bl.txns) != 0 || offset+n > t.Size {
		panic(fmt.Sprintf("entry: finish chunk %d+%d of %d bytes", offset, n, t.Size))
	}
	bl.buf[1] = byte(Chunk)
	if offset+n == t.Size {
		bl.buf[2] = flagLast
	}
	binary.LittleEndian.PutUint64(bl.buf[24:], offset)
	binary.LittleEndian.PutUint32(bl.buf[32:], uint32(n))
	bl.txns = append(bl.txns, t)
	return bl.seal()
}

func (bl *Builder) seal() []byte {
	le := binary.LittleEndian
	b := bl.buf
	le.PutUint32(b[4:], uint32(len(bl.txns)))
	for i := range bl.txns {
		b = appendRow(b, &bl.txns[i])
	}
	bl.buf = nil
	return b
}

func appendRow(b []byte, t *Txn) []byte {
	le := binary.LittleEndian
	b = append(b, t.GTID.UUID[:]...)
	b = le.AppendUint64(b, uint64(t.GTID.GNO))
	b = le.AppendUint64(b, t.Size)
	b = append(b, byte(len(t.GTID.Tag)))
	return append(b, t.GTID.Tag...)
}

// AppendTo appends the encoded value. A value whose fields do not fit together
// is a mistake of the caller and panics.
func (v *Value) AppendTo(b []byte) []byte {
	if err := v.check(); err != nil {
		panic("entry: encode: " + err.Error())
	}
	le := binary.LittleEndian
	var flags byte
	if v.Last {
		flags |= flagLast
	}
	body := v.Events
	if v.Kind == Epoch {
		body = v.ServerUUID[:]
	}
	b = append(b, Version, byte(v.Kind), flags, 0)
	b = le.AppendUint32(b, uint32(len(v.Txns)))
	b = le.AppendUint64(b, v.Epoch)
	b = le.AppendUint64(b, v.Node)
	b = le.AppendUint64(b, v.Offset)
	b = le.AppendUint32(b, uint32(len(body)))
	b = le.AppendUint32(b, 0)
	b = append(b, body...)
	for i := range v.Txns {
		b = appendRow(b, &v.Txns[i])
	}
	return b
}

// Encode returns the encoded value.
func (v *Value) Encode() []byte { return v.AppendTo(nil) }
