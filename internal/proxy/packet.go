package proxy

import (
	"bytes"
	"encoding/binary"
)

// A packet of the client/server protocol:
//
//	0  payload length u24, little-endian; 0xffffff: the next packet continues this one
//	3  sequence number u8, counted from 0 in each command, by both sides in turn
//	4  payload
const (
	headerSize = 4
	maxPayload = 1<<24 - 1
)

// Bits of the capability flags that the proxy looks at.
const (
	capConnectWithDB  = 1 << 3
	capCompress       = 1 << 5
	capProtocol41     = 1 << 9
	capSSL            = 1 << 11
	capPluginAuth     = 1 << 19
	capLenencAuthData = 1 << 21
	capDeprecateEOF   = 1 << 24
	capOptionalMeta   = 1 << 25
	capZstdCompress   = 1 << 26
)

// Bits of the server status that OK and EOF packets carry.
const (
	statusInTrans     = 0x0001
	statusMoreResults = 0x0008
	statusCursor      = 0x0040
)

// First bytes of payloads.
const (
	markOK       = 0x00
	markMore     = 0x01 // in a login: AuthMoreData
	markInfile   = 0xfb // the server asks for a file of LOAD DATA LOCAL
	markEOF      = 0xfe // also: AuthSwitchRequest in a login
	markERR      = 0xff
	markNextAuth = 0x02 // in a login: AuthNextFactor
)

// failure is an error that a client gets.
type failure struct {
	code  uint16
	state string // SQLSTATE, five characters
	text  string
}

// The codes are those that drivers know: state 08xxx is "connection lost" or
// "connection refused" to pools and to Connector/J.
const (
	codeTooMany  = 1040 // ER_CON_COUNT_ERROR
	codeShutdown = 1053 // ER_SERVER_SHUTDOWN
	codeDenied   = 1045 // ER_ACCESS_DENIED_ERROR
	codeBadHop   = 1043 // ER_HANDSHAKE_ERROR

	stateRefused = "08004"
	stateLost    = "08S01"
	stateDenied  = "28000"
)

// appendPacket appends one packet; the payload must be shorter than maxPayload.
func appendPacket(b []byte, seq byte, payload []byte) []byte {
	n := len(payload)
	b = append(b, byte(n), byte(n>>8), byte(n>>16), seq)
	return append(b, payload...)
}

// maxText limits the text of an error packet, as the server does.
const maxText = 511

// appendERR appends an ERR packet: ff, code u16, '#', state, text. With sequence
// number 0 it stands in place of a greeting; clients do not look for a state
// there (libmysqlclient would show it as text), so it has none.
func appendERR(b []byte, seq byte, f failure) []byte {
	text := f.text
	if len(text) > maxText {
		text = text[:maxText]
	}
	p := make([]byte, 0, 9+len(text))
	p = append(p, markERR)
	p = binary.LittleEndian.AppendUint16(p, f.code)
	if seq != 0 {
		p = append(p, '#')
		p = append(p, f.state...)
	}
	p = append(p, text...)
	return appendPacket(b, seq, p)
}

// greeting is what the proxy needs of the server's first packet.
type greeting struct {
	connection   uint32
	capabilities uint32
	nonce        []byte
	plugin       string
}

// parseGreeting reads a HandshakeV10 payload. It answers false for anything else.
//
//	10 | server version, NUL | connection id u32 | nonce[0:8] | 00 | capabilities u16 low
//	| charset u8 | status u16 | capabilities u16 high | nonce length u8 | 10 zero bytes
//	| nonce[8:], NUL | plugin, NUL
func parseGreeting(p []byte) (greeting, bool) {
	c := cursor{rest: p}
	if c.u8() != 10 {
		return greeting{}, false
	}
	c.cstring()
	g := greeting{connection: c.u32()}
	nonce := append([]byte(nil), c.bytes(8)...)
	c.bytes(1)
	low := uint32(c.u16())
	c.bytes(3)
	g.capabilities = low | uint32(c.u16())<<16
	n := int(c.u8()) - 8
	c.bytes(10)
	if c.bad || n < 0 {
		return greeting{}, false
	}
	tail := c.bytes(max(13, n))
	g.nonce = trimNUL(append(nonce, tail...))
	g.plugin = string(c.cstring())
	return g, !c.bad
}

func trimNUL(b []byte) []byte {
	if n := len(b); n > 0 && b[n-1] == 0 {
		return b[:n-1]
	}
	return b
}

// cursor reads fields from a payload. After a field that does not fit, bad is
// set and every read gives zero.
type cursor struct {
	rest []byte
	bad  bool
}

func (c *cursor) bytes(n int) []byte {
	if c.bad || n < 0 || n > len(c.rest) {
		c.bad = true
		return nil
	}
	b := c.rest[:n]
	c.rest = c.rest[n:]
	return b
}

func (c *cursor) u8() byte {
	if b := c.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (c *cursor) u16() uint16 {
	if b := c.bytes(2); b != nil {
		return binary.LittleEndian.Uint16(b)
	}
	return 0
}

func (c *cursor) u32() uint32 {
	if b := c.bytes(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

// cstring reads up to a NUL, which it drops.
func (c *cursor) cstring() []byte {
	i := bytes.IndexByte(c.rest, 0)
	if c.bad || i < 0 {
		c.bad = true
		return nil
	}
	return c.bytes(i + 1)[:i]
}

// lenenc reads a length-encoded integer.
func (c *cursor) lenenc() uint64 {
	first := c.u8()
	size := 0
	switch first {
	case 0xfc:
		size = 2
	case 0xfd:
		size = 3
	case 0xfe:
		size = 8
	case 0xfb, 0xff:
		c.bad = true
		return 0
	default:
		return uint64(first)
	}
	var v uint64
	for i, x := range c.bytes(size) {
		v |= uint64(x) << (8 * i)
	}
	return v
}

func appendLenenc(b []byte, n int) []byte {
	switch {
	case n < 0xfb:
		return append(b, byte(n))
	case n < 1<<16:
		return append(b, 0xfc, byte(n), byte(n>>8))
	}
	return append(b, 0xfd, byte(n), byte(n>>8), byte(n>>16))
}
