// Package entry is the codec of the application's values in the replicated log:
// what a master says about its binlog, and who is master.
//
// It is not the log and does not decide which values count. The rule for that
// (a value counts only under the newest epoch before it) belongs to the reader,
// see package relay.
//
// Invariants: decoding never panics on any bytes and allocates nothing by a
// size that it read without checking it first; a decoded value's Events alias
// the input. Events are the bytes that the master's server wrote, with its
// CRC32s, unchanged. The layout is frozen by a golden test; another layout gets
// another version.
package entry

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/phxsql/phxsql/internal/gtid"
)

// Version is the version of the layout that this package writes and reads.
const Version = 1

// Kind says what a value is.
type Kind uint8

// The kinds of values.
const (
	Epoch        Kind = 1 // a new master begins; it discards an unfinished chunked transaction
	Transactions Kind = 2 // one or more whole transactions
	Chunk        Kind = 3 // a part of one transaction that is too large for one value
	Settings     Kind = 4 // a change of what the cluster has once for all members, see Change

	// FirstNotice is the first kind of notices. A notice holds no transaction and
	// belongs to no epoch: it changes nothing of what counts, so a reader that does
	// not know its kind passes over it.
	FirstNotice Kind = 128
	Event       Kind = 128 // what happened and why, see package events
	Audit       Kind = 129 // where members compare their rows, see package audit
)

// Notice reports whether values of the kind are notices.
func (k Kind) Notice() bool { return k >= FirstNotice }

func (k Kind) String() string {
	switch k {
	case Epoch:
		return "epoch"
	case Transactions:
		return "transactions"
	case Chunk:
		return "chunk"
	case Settings:
		return "settings"
	case Event:
		return "event"
	case Audit:
		return "audit"
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// Txn is one transaction: its GTID and the size in bytes of all its events, the
// GTID event included.
type Txn struct {
	GTID gtid.GTID
	Size uint64
}

// Value is one application value of the log.
//
// Transactions holds the events of all Txns one after the other. Chunk holds
// the bytes from Offset on of the single transaction in Txns, whose Size is that
// of the whole transaction; a chunk may end anywhere, also within an event.
// Last is set on the chunk that completes the transaction, and only there. Epoch
// holds the new master's server UUID and no events. Of a notice, Events is its
// text, Node the node that has it to say. Of Settings, Events is an encoded Change
// and Node the leader that proposed it; it belongs to no epoch.
type Value struct {
	Kind       Kind
	Epoch      uint64 // the epoch that the value belongs to; of an Epoch value, the one that begins
	Node       uint64 // the master of that epoch
	ServerUUID gtid.UUID
	Txns       []Txn
	Offset     uint64
	Last       bool
	Events     []byte
}

// Layout of a value; all integers are little-endian.
//
//	 0         1      2       3    4            8       16      24         32       36
//	+---------+------+-------+----+------------+-------+-------+----------+--------+-----+
//	| version | kind | flags | 0  | number of  | epoch | node  | offset   | size of| 0   |
//	| u8 = 1  | u8   | u8    | u8 | txns u32   | u64   | u64   | u64      | body   | u32 |
//	|         |      |       |    |            |       |       | (Chunk)  | u32    |     |
//	+---------+------+-------+----+------------+-------+-------+----------+--------+-----+
//	40 body: the events; of an Epoch, the server UUID (16 bytes); of a notice or Settings, its text
//	   then for each transaction:
//	+---------+---------+----------+---------------+-----+
//	| uuid 16 | gno u64 | size u64 | tag length u8 | tag |
//	+---------+---------+----------+---------------+-----+
//
// The table follows the events, so that a writer appends events as they arrive.
const (
	headerSize = 40
	rowSize    = 16 + 8 + 8 + 1 // without the tag

	flagLast = 1

	// MaxTxns is the largest number of transactions in one value.
	MaxTxns = 1 << 20
	// MaxNotice is the largest text of a notice in bytes.
	MaxNotice = 64 << 10
)

// ErrMalformed is wrapped by every error about bytes that are not a value.
var ErrMalformed = errors.New("malformed value")

// Decode reads a value that fills b exactly. Its Events alias b.
func Decode(b []byte) (Value, error) {
	var v Value
	err := v.Decode(b)
	return v, err
}

// Decode is Decode into a value that is used again: the memory of v.Txns is
// reused, every other field is replaced.
func (v *Value) Decode(b []byte) error {
	le := binary.LittleEndian
	if len(b) < headerSize {
		return fmt.Errorf("decode value: %d bytes are less than a header: %w", len(b), ErrMalformed)
	}
	if b[0] != Version {
		return fmt.Errorf("decode value: version %d, want %d: %w", b[0], Version, ErrMalformed)
	}
	n, size := le.Uint32(b[4:]), le.Uint32(b[32:])
	if b[2]&^flagLast != 0 || b[3] != 0 || le.Uint32(b[36:]) != 0 {
		return fmt.Errorf("decode value: unknown flags: %w", ErrMalformed)
	}
	if uint64(size) > uint64(len(b)-headerSize) {
		return fmt.Errorf("decode value: body of %d bytes in %d: %w", size, len(b), ErrMalformed)
	}
	body, table := b[headerSize:headerSize+size:headerSize+size], b[headerSize+size:]
	if n > MaxTxns || int(n) > len(table)/rowSize {
		return fmt.Errorf("decode value: %d transactions in %d bytes: %w", n, len(table), ErrMalformed)
	}
	*v = Value{
		Kind: Kind(b[1]), Last: b[2]&flagLast != 0,
		Epoch: le.Uint64(b[8:]), Node: le.Uint64(b[16:]), Offset: le.Uint64(b[24:]),
		Txns: v.Txns[:0],
	}
	if v.Kind == Epoch {
		if copy(v.ServerUUID[:], body) != len(body) || len(body) != len(v.ServerUUID) {
			return fmt.Errorf("decode value: epoch with a body of %d bytes: %w", len(body), ErrMalformed)
		}
	} else {
		v.Events = body
	}
	if err := v.decodeTable(table, int(n)); err != nil {
		return err
	}
	return v.check()
}

func (v *Value) decodeTable(b []byte, n int) error {
	le := binary.LittleEndian
	if cap(v.Txns) < n {
		v.Txns = make([]Txn, 0, n)
	}
	for range n {
		if len(b) < rowSize || len(b) < rowSize+int(b[rowSize-1]) {
			return fmt.Errorf("decode value: table cut short: %w", ErrMalformed)
		}
		t := Txn{Size: le.Uint64(b[24:])}
		copy(t.GTID.UUID[:], b)
		t.GTID.GNO = int64(le.Uint64(b[16:]))
		end := rowSize + int(b[rowSize-1])
		if end > rowSize {
			t.GTID.Tag = string(b[rowSize:end])
		}
		v.Txns = append(v.Txns, t)
		b = b[end:]
	}
	if len(b) != 0 {
		return fmt.Errorf("decode value: %d bytes left over: %w", len(b), ErrMalformed)
	}
	return nil
}

// check tells whether the fields fit together.
func (v *Value) check() error {
	if v.Kind.Notice() && (len(v.Txns) != 0 || len(v.Events) == 0 || len(v.Events) > MaxNotice) {
		return fmt.Errorf("check %v: %d transactions, text of %d bytes: %w", v.Kind, len(v.Txns), len(v.Events), ErrMalformed)
	}
	if v.Kind != Chunk && (v.Offset != 0 || v.Last) {
		return fmt.Errorf("check %v: marks of a chunk: %w", v.Kind, ErrMalformed)
	}
	for i := range v.Txns {
		g := v.Txns[i].GTID
		if g.GNO < 1 || g.GNO > gtid.MaxGNO || g.Tag != "" && !gtid.ValidTag(g.Tag) {
			return fmt.Errorf("check %v: GTID %v: %w", v.Kind, g, ErrMalformed)
		}
	}
	switch {
	case v.Kind.Notice():
		return nil
	case v.Kind == Epoch:
		if len(v.Txns) != 0 {
			return fmt.Errorf("check epoch: it has transactions: %w", ErrMalformed)
		}
	case v.Kind == Transactions:
		return v.checkTransactions()
	case v.Kind == Chunk:
		return v.checkChunk()
	case v.Kind == Settings:
		if len(v.Txns) != 0 || len(v.Events) == 0 || len(v.Events) > MaxChange {
			return fmt.Errorf("check settings: %d transactions, text of %d bytes: %w", len(v.Txns), len(v.Events), ErrMalformed)
		}
	default:
		return fmt.Errorf("check value: %v: %w", v.Kind, ErrMalformed)
	}
	return nil
}

func (v *Value) checkTransactions() error {
	rest := uint64(len(v.Events))
	for i := range v.Txns {
		size := v.Txns[i].Size
		if size == 0 || size > rest {
			return fmt.Errorf("check transactions: %v has %d bytes: %w", v.Txns[i].GTID, size, ErrMalformed)
		}
		rest -= size
	}
	if rest != 0 || len(v.Txns) == 0 {
		return fmt.Errorf("check transactions: %d bytes of events belong to none: %w", rest, ErrMalformed)
	}
	return nil
}

func (v *Value) checkChunk() error {
	if len(v.Txns) != 1 || len(v.Events) == 0 {
		return fmt.Errorf("check chunk: %d transactions, %d bytes: %w", len(v.Txns), len(v.Events), ErrMalformed)
	}
	size, n := v.Txns[0].Size, uint64(len(v.Events))
	if v.Offset > size || n > size-v.Offset || v.Last != (v.Offset+n == size) {
		return fmt.Errorf("check chunk: bytes %d+%d of %d: %w", v.Offset, n, size, ErrMalformed)
	}
	return nil
}
