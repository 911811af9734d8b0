// Package semisync is the codec of MySQL's semi-synchronous replication and the
// bookkeeping of what a replica may acknowledge.
//
// It is not a replica: it has no connection and no goroutine.
//
// Invariants: an acknowledgement is cumulative, so only the newest position
// matters; it is never beyond what the source has sent (the source would let
// later commits pass that nobody holds) and never goes back.
//
// The formats are those of the server's plugin semisync_source and
// semisync_replica (ReplSemiSyncBase).
package semisync

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

const (
	// Magic begins the semi-sync part of every packet, both ways.
	Magic = 0xef
	// HeaderSize is what the source puts between the OK byte and an event.
	HeaderSize = 2

	flagNeedAck = 1

	// MaxFileName is the longest name of a binlog file in an acknowledgement.
	MaxFileName = 511
)

// ErrMalformed is wrapped by every error about bytes that are not semi-sync's.
var ErrMalformed = errors.New("malformed semi-sync packet")

// ParseHeader reads the header in front of an event and reports whether a
// commit waits for this event. The header is there in every packet once the
// source knows the replica as a semi-synchronous one; only the first packet of
// an event that is split has it.
//
//	+-----------+-------------------+-------+
//	| u8 = 0xef | u8, bit 0: answer | event |
//	+-----------+-------------------+-------+
func ParseHeader(b []byte) (needAck bool, err error) {
	if len(b) < HeaderSize || b[0] != Magic {
		return false, fmt.Errorf("parse semi-sync header: %w", ErrMalformed)
	}
	return b[1]&flagNeedAck != 0, nil
}

// AppendHeader appends the header that ParseHeader reads.
func AppendHeader(b []byte, needAck bool) []byte {
	if needAck {
		return append(b, Magic, flagNeedAck)
	}
	return append(b, Magic, 0)
}

// Position is a place in a server's binlog: the end of an event. Position 0 of
// no file is before all others.
type Position struct {
	File string
	Pos  uint64
}

// Compare orders positions. Files of one server have one base name and a number
// that gets longer when it must.
func (p Position) Compare(o Position) int {
	if p.File != o.File {
		if len(p.File) != len(o.File) {
			return len(p.File) - len(o.File)
		}
		return strings.Compare(p.File, o.File)
	}
	switch {
	case p.Pos < o.Pos:
		return -1
	case p.Pos > o.Pos:
		return 1
	}
	return 0
}

// After reports whether p is after o.
func (p Position) After(o Position) bool { return p.Compare(o) > 0 }

// IsZero reports whether p is before all others.
func (p Position) IsZero() bool { return p == Position{} }

func (p Position) String() string { return fmt.Sprintf("%s:%d", p.File, p.Pos) }

// AppendAck appends the payload of the packet that acknowledges everything up
// to p. Its packet has sequence number 0.
//
//	+-----------+--------------+---------------------+
//	| u8 = 0xef | position u64 | file name, the rest |
//	+-----------+--------------+---------------------+
func AppendAck(b []byte, p Position) []byte {
	b = append(b, Magic)
	b = binary.LittleEndian.AppendUint64(b, p.Pos)
	return append(b, p.File...)
}

// ParseAck reads the payload of an acknowledgement.
func ParseAck(b []byte) (Position, error) {
	if len(b) < 1+8+1 || len(b) > 1+8+MaxFileName || b[0] != Magic {
		return Position{}, fmt.Errorf("parse semi-sync acknowledgement of %d bytes: %w", len(b), ErrMalformed)
	}
	return Position{File: string(b[9:]), Pos: binary.LittleEndian.Uint64(b[1:])}, nil
}
