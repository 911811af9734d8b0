package relay

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
)

// Frames of the client protocol: length u24, sequence number u8, payload. A
// payload of maxFrame bytes or more goes on in the next frame.
const (
	frameHeader = 4
	maxFrame    = 1<<24 - 1

	// maxCommand limits a packet of the command phase, in bytes: a query, an
	// answer, a GTID set. A larger one ends the connection.
	maxCommand = maxFrame - 1

	tailBuffer = 128 << 10
)

// Commands and answers of the protocol.
const (
	comQuit            = 0x01
	comQuery           = 0x03
	comPing            = 0x0e
	comBinlogDump      = 0x12
	comRegisterReplica = 0x15
	comBinlogDumpGTID  = 0x1e

	packetOK       = 0x00
	packetMoreData = 0x01
	packetEOF      = 0xfe
	packetError    = 0xff
)

// Capabilities of a connection.
const (
	capLongPassword     = 1 << 0
	capLongFlag         = 1 << 2
	capConnectWithDB    = 1 << 3
	capProtocol41       = 1 << 9
	capTransactions     = 1 << 13
	capSecureConnection = 1 << 15
	capPluginAuth       = 1 << 19
	capConnectAttrs     = 1 << 20
	capLenencAuth       = 1 << 21
)

const (
	statusAutocommit = 2
	charsetUTF8MB4   = 255
)

// errProtocol is wrapped by errors about a peer that does not keep to the
// client protocol.
var errProtocol = errors.New("unexpected packet")

// ServerError is an error that a MySQL server answered.
type ServerError struct {
	Code    uint16
	State   string
	Message string
}

func (e *ServerError) Error() string {
	return fmt.Sprintf("server error %d (%s): %s", e.Code, e.State, e.Message)
}

// parseServerError reads the payload of an error packet.
func parseServerError(b []byte) error {
	if len(b) < 3 || b[0] != packetError {
		return fmt.Errorf("parse error packet: %w", errProtocol)
	}
	e := &ServerError{Code: binary.LittleEndian.Uint16(b[1:])}
	b = b[3:]
	if len(b) >= 6 && b[0] == '#' {
		e.State, b = string(b[1:6]), b[6:]
	}
	e.Message = string(b)
	return e
}

// wire is a connection in its handshake and command phase.
type wire struct {
	conn net.Conn
	br   *bufio.Reader
	seq  byte // of the next packet, either way
	out  []byte
}

func newWire(conn net.Conn, buffer int) *wire {
	return &wire{conn: conn, br: bufio.NewReaderSize(conn, buffer)}
}

// read returns the payload of the next packet.
func (w *wire) read() ([]byte, error) {
	var head [frameHeader]byte
	if _, err := io.ReadFull(w.br, head[:]); err != nil {
		return nil, fmt.Errorf("read packet: %w", err)
	}
	n := int(head[0]) | int(head[1])<<8 | int(head[2])<<16
	if n > maxCommand {
		return nil, fmt.Errorf("read packet: %d bytes, limit %d: %w", n, maxCommand, errProtocol)
	}
	w.seq = head[3] + 1
	b := make([]byte, n)
	if _, err := io.ReadFull(w.br, b); err != nil {
		return nil, fmt.Errorf("read packet: %w", err)
	}
	return b, nil
}

// write sends one packet.
func (w *wire) write(payload []byte) error {
	if len(payload) > maxCommand {
		return fmt.Errorf("write packet: %d bytes, limit %d: %w", len(payload), maxCommand, errProtocol)
	}
	w.out = appendFrame(w.out[:0], payload, w.seq)
	w.seq++
	if _, err := w.conn.Write(w.out); err != nil {
		return fmt.Errorf("write packet: %w", err)
	}
	return nil
}

// command sends the first packet of an exchange.
func (w *wire) command(payload []byte) error {
	w.seq = 0
	return w.write(payload)
}

func appendFrame(b, payload []byte, seq byte) []byte {
	n := len(payload)
	b = append(b, byte(n), byte(n>>8), byte(n>>16), seq)
	return append(b, payload...)
}

// lenenc reads a length-encoded integer and returns the rest.
func lenenc(b []byte) (n uint64, rest []byte, ok bool) {
	if len(b) == 0 {
		return 0, nil, false
	}
	size := 0
	switch b[0] {
	case 0xfb, 0xff:
		return 0, nil, false
	case 0xfc:
		size = 2
	case 0xfd:
		size = 3
	case 0xfe:
		size = 8
	default:
		return uint64(b[0]), b[1:], true
	}
	if len(b) < 1+size {
		return 0, nil, false
	}
	var full [8]byte
	copy(full[:], b[1:1+size])
	return binary.LittleEndian.Uint64(full[:]), b[1+size:], true
}

// lenencBytes reads a length-encoded string and returns the rest.
func lenencBytes(b []byte) (s, rest []byte, ok bool) {
	n, rest, ok := lenenc(b)
	if !ok || n > uint64(len(rest)) {
		return nil, nil, false
	}
	return rest[:n], rest[n:], true
}

func appendLenencBytes(b []byte, s string) []byte {
	switch n := len(s); {
	case n < 0xfb:
		b = append(b, byte(n))
	case n < 1<<16:
		b = append(b, 0xfc, byte(n), byte(n>>8))
	default:
		b = append(b, 0xfd, byte(n), byte(n>>8), byte(n>>16))
	}
	return append(b, s...)
}

// isEOF reports whether a payload is the old end-of-data packet.
func isEOF(b []byte) bool { return len(b) < 9 && len(b) > 0 && b[0] == packetEOF }
