package binlog

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// Type is the type of an event.
type Type uint8

// The types of events that this package looks at.
const (
	Query              Type = 2
	Stop               Type = 3
	Rotate             Type = 4
	FormatDescription  Type = 15
	XID                Type = 16
	Heartbeat          Type = 27
	GTID               Type = 33
	AnonymousGTID      Type = 34
	PreviousGTIDs      Type = 35
	XAPrepare          Type = 38
	TransactionPayload Type = 40
	HeartbeatV2        Type = 41
	GTIDTagged         Type = 42
)

func (t Type) String() string {
	switch t {
	case Query:
		return "query"
	case Stop:
		return "stop"
	case Rotate:
		return "rotate"
	case FormatDescription:
		return "format_description"
	case XID:
		return "xid"
	case Heartbeat, HeartbeatV2:
		return "heartbeat"
	case GTID:
		return "gtid"
	case AnonymousGTID:
		return "anonymous_gtid"
	case PreviousGTIDs:
		return "previous_gtids"
	case XAPrepare:
		return "xa_prepare"
	case TransactionPayload:
		return "transaction_payload"
	case GTIDTagged:
		return "gtid_tagged"
	}
	return fmt.Sprintf("type(%d)", uint8(t))
}

// The flags of an event header.
const (
	FlagInUse      uint16 = 0x0001 // format description: the file was not closed
	FlagArtificial uint16 = 0x0020 // made for one connection; stands in no file
	FlagIgnorable  uint16 = 0x0080 // a reader that does not know the type may skip it
)

// Sizes of the parts of an event, in bytes.
const (
	HeaderSize   = 19
	ChecksumSize = 4

	// MaxEventSize limits the size that is believed from a header. The server's
	// own limit for a row event is max_allowed_packet, at most 1 GiB.
	MaxEventSize = 1<<30 + 1<<20
)

// Header is the common header of every event.
//
//	 0        4      5           9      13       17      19
//	+--------+------+-----------+------+--------+-------+
//	| time   | type | server id | size | end    | flags |
//	+--------+------+-----------+------+--------+-------+
//
// All integers of a binlog are little-endian.
type Header struct {
	Timestamp uint32 // seconds since 1970
	Type      Type
	ServerID  uint32
	Size      uint32 // of the whole event: header, body and CRC32
	LogPos    uint32 // position of the event's end in its file; it wraps above 4 GiB
	Flags     uint16
}

// ParseHeader reads the header at the start of b, which may hold less than the
// whole event.
func ParseHeader(b []byte) (Header, error) {
	if len(b) < HeaderSize {
		return Header{}, fmt.Errorf("parse event header: %d bytes: %w", len(b), ErrMalformed)
	}
	le := binary.LittleEndian
	h := Header{
		Timestamp: le.Uint32(b),
		Type:      Type(b[4]),
		ServerID:  le.Uint32(b[5:]),
		Size:      le.Uint32(b[9:]),
		LogPos:    le.Uint32(b[13:]),
		Flags:     le.Uint16(b[17:]),
	}
	if h.Size < HeaderSize || h.Size > MaxEventSize {
		return Header{}, fmt.Errorf("parse event header: event of %d bytes: %w", h.Size, ErrMalformed)
	}
	return h, nil
}

// appendTo appends the encoded header.
func (h *Header) appendTo(b []byte) []byte {
	le := binary.LittleEndian
	b = le.AppendUint32(b, h.Timestamp)
	b = append(b, byte(h.Type))
	b = le.AppendUint32(b, h.ServerID)
	b = le.AppendUint32(b, h.Size)
	b = le.AppendUint32(b, h.LogPos)
	return le.AppendUint16(b, h.Flags)
}

// Verify reports whether the CRC32 at the end of a whole event is right.
func Verify(event []byte) bool {
	n := len(event) - ChecksumSize
	if n < HeaderSize {
		return false
	}
	sum := crc32.ChecksumIEEE(event[:n])
	if Type(event[4]) == FormatDescription && event[17]&byte(FlagInUse) != 0 {
		sum = inUseChecksum(event[:n])
	}
	return sum == binary.LittleEndian.Uint32(event[n:])
}

// inUseChecksum is the CRC32 of a format description whose in-use flag is set.
// The flag is cleared in place when a file is closed, so it does not count.
func inUseChecksum(event []byte) uint32 {
	sum := crc32.ChecksumIEEE(event[:17])
	sum = crc32.Update(sum, crc32.IEEETable, []byte{event[17] &^ byte(FlagInUse)})
	return crc32.Update(sum, crc32.IEEETable, event[18:])
}
