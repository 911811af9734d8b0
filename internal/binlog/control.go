package binlog

import (
	"encoding/binary"
	"fmt"
)

// body returns what stands between the header and the CRC32 of a whole event.
func body(event []byte, types ...Type) ([]byte, error) {
	h, err := ParseHeader(event)
	if err != nil {
		return nil, err
	}
	if int(h.Size) != len(event) || len(event) < HeaderSize+ChecksumSize {
		return nil, fmt.Errorf("parse %v event: %d bytes, header says %d: %w", h.Type, len(event), h.Size, ErrMalformed)
	}
	for _, t := range types {
		if h.Type == t {
			return event[HeaderSize : len(event)-ChecksumSize], nil
		}
	}
	return nil, fmt.Errorf("parse %v event as %v: %w", h.Type, types[0], ErrMalformed)
}

// MaxFileName is the longest name of a binlog file in bytes.
const MaxFileName = 511

// ParseRotate reads the name of the next file and the position of the first
// event to come from it.
//
//	+--------------+---------------------+
//	| position u64 | file name, the rest |
//	+--------------+---------------------+
func ParseRotate(event []byte) (file string, position uint64, err error) {
	b, err := body(event, Rotate)
	if err != nil {
		return "", 0, err
	}
	if len(b) <= 8 || len(b) > 8+MaxFileName {
		return "", 0, fmt.Errorf("parse rotate event: body of %d bytes: %w", len(b), ErrMalformed)
	}
	return string(b[8:]), binary.LittleEndian.Uint64(b), nil
}

// AppendRotate appends the artificial event that tells a replica which file and
// position the following events stand at. It has no time and no position of its
// own.
func AppendRotate(b []byte, file string, position uint64, serverID uint32) []byte {
	h := Header{Type: Rotate, ServerID: serverID, Flags: FlagArtificial}
	b, start := open(b, h)
	b = binary.LittleEndian.AppendUint64(b, position)
	b = append(b, file...)
	return seal(b, start, 0)
}

// AppendHeartbeat appends the event that a source sends when it has nothing
// else to send: it names the file and position that the replica is at.
// Position must not be lower than what the replica has counted, and must fit in
// 32 bits; use AppendHeartbeatV2 where the replica asked for it.
func AppendHeartbeat(b []byte, file string, position uint32, serverID uint32) []byte {
	h := Header{Type: Heartbeat, ServerID: serverID, LogPos: position}
	b, start := open(b, h)
	b = append(b, file...)
	return seal(b, start, 0)
}

// The fields of a version 2 heartbeat: id, length, value each.
const (
	heartbeatEnd      = 0
	heartbeatFile     = 1
	heartbeatPosition = 2
)

// AppendHeartbeatV2 is AppendHeartbeat for positions of any size.
//
//	+--------+---------+--------+--------+------+------------------------+--------+
//	| 1 (u8) | length  | file   | 2 (u8) | size | position, packed       | 0 (u8) |
//	|        | packed  | name   |        | u8   | integer of that size   |        |
//	+--------+---------+--------+--------+------+------------------------+--------+
func AppendHeartbeatV2(b []byte, file string, position uint64, serverID uint32) []byte {
	h := Header{Type: HeartbeatV2, ServerID: serverID}
	b, start := open(b, h)
	b = append(b, heartbeatFile)
	b = appendPackedInt(b, uint64(len(file)))
	b = append(b, file...)
	b = append(b, heartbeatPosition)
	b = append(b, byte(len(appendPackedInt(nil, position))))
	b = appendPackedInt(b, position)
	b = append(b, heartbeatEnd)
	return seal(b, start, 0)
}

// ParseHeartbeat reads either version of the event.
func ParseHeartbeat(event []byte) (file string, position uint64, err error) {
	b, err := body(event, Heartbeat, HeartbeatV2)
	if err != nil {
		return "", 0, err
	}
	if Type(event[4]) == Heartbeat {
		return string(b), uint64(binary.LittleEndian.Uint32(event[13:])), nil
	}
	malformed := fmt.Errorf("parse heartbeat event: %w", ErrMalformed)
	for len(b) > 0 && b[0] != heartbeatEnd {
		n, ok := packedInt(b[1:])
		skip := 1 + len(appendPackedInt(nil, n))
		if !ok || skip > len(b) || n > uint64(len(b)-skip) {
			return "", 0, malformed
		}
		value := b[skip : skip+int(n)]
		switch b[0] {
		case heartbeatFile:
			file = string(value)
		case heartbeatPosition:
			if position, ok = packedInt(value); !ok {
				return "", 0, malformed
			}
		}
		b = b[skip+int(n):]
	}
	return file, position, nil
}

func appendPackedInt(b []byte, v uint64) []byte {
	le := binary.LittleEndian
	switch {
	case v < 0xfb:
		return append(b, byte(v))
	case v < 1<<16:
		return le.AppendUint16(append(b, 0xfc), uint16(v))
	case v < 1<<24:
		return append(b, 0xfd, byte(v), byte(v>>8), byte(v>>16))
	}
	return le.AppendUint64(append(b, 0xfe), v)
}
