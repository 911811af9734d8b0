package proxy

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// A connection that one member forwards to another begins with a PROXY protocol
// header, version 2, with one private field (TLV) that proves membership.
// docs/format/proxy.md has the layout and the reasons.
//
//	 0  signature 0d 0a 0d 0a 00 0d 0a 51 55 49 54 0a
//	12  version and command u8 = 0x21
//	13  family u8: 0x11 TCP over IPv4, 0x21 TCP over IPv6
//	14  length of the rest u16, big-endian
//	16  client address, own address (4 or 16 bytes each), client port u16, own port u16
//	    field type u8 = 0xe5, length u16 = 65
//	    version u8 = 1 | node u64 | time i64, ms since 1970 | nonce 16 bytes | MAC 32 bytes
//
// All integers are big-endian. The MAC is HMAC-SHA256, keyed by the members'
// secret, of a fixed label and everything before the MAC.
const (
	hopSignature = "\r\n\r\n\x00\r\nQUIT\n"
	hopPreamble  = len(hopSignature) + 4
	hopFieldType = 0xe5
	hopVersion   = 1
	hopNonce     = 16
	hopFieldSize = 1 + 8 + 8 + hopNonce + sha256.Size
	hopLabel     = "phxsql proxy hop 1\n"
	hopVerCmd    = 0x21
	hopTCP4      = 0x11
	hopTCP6      = 0x21

	// maxHop is the longest header that is read.
	maxHop = 256
)

// hop is what a header says.
type hop struct {
	client netip.AddrPort // who connected to the sender
	own    netip.AddrPort // where the sender accepted it
	node   uint64         // the sender
	sent   time.Time
}

var errHop = errors.New("hop refused")

// startsHop reports whether b can be the beginning of a header. No packet of a
// MySQL client begins like one.
func startsHop(b []byte) bool {
	n := min(len(b), len(hopSignature))
	return n > 0 && string(b[:n]) == hopSignature[:n]
}

// appendHop appends the header for h.
func appendHop(b, secret []byte, h hop) ([]byte, error) {
	start := len(b)
	client, own := unmapped(h.client), unmapped(h.own)
	family, size := byte(hopTCP4), 2*4+4
	if !client.Addr().Is4() || !own.Addr().Is4() {
		family, size = hopTCP6, 2*16+4
	}
	be := binary.BigEndian
	b = append(b, hopSignature...)
	b = append(b, hopVerCmd, family)
	b = be.AppendUint16(b, uint16(size+3+hopFieldSize))
	for _, a := range [...]netip.AddrPort{client, own} {
		b = appendAddr(b, a.Addr(), family)
	}
	b = be.AppendUint16(b, client.Port())
	b = be.AppendUint16(b, own.Port())
	b = append(b, hopFieldType)
	b = be.AppendUint16(b, hopFieldSize)
	b = append(b, hopVersion)
	b = be.AppendUint64(b, h.node)
	b = be.AppendUint64(b, uint64(h.sent.UnixMilli()))
	var nonce [hopNonce]byte
	if _, err := rand.Read(nonce[:]); err != nil {
		return nil, fmt.Errorf("draw nonce of hop: %w", err)
	}
	b = append(b, nonce[:]...)
	return append(b, hopMAC(secret, b[start:])...), nil
}

func unmapped(a netip.AddrPort) netip.AddrPort {
	if !a.IsValid() {
		return netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
	}
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

func appendAddr(b []byte, a netip.Addr, family byte) []byte {
	if family == hopTCP4 {
		x := a.As4()
		return append(b, x[:]...)
	}
	x := a.As16()
	return append(b, x[:]...)
}

func hopMAC(secret, b []byte) []byte {
	m := hmac.New(sha256.New, secret)
	m.Write([]byte(hopLabel))
	m.Write(b)
	return m.Sum(nil)
}

// parseHop reads a header at the beginning of b. It returns the header's length,
// or zero without an error when b is too short to tell.
func parseHop(b, secret []byte) (hop, int, error) {
	if !startsHop(b) {
		return hop{}, 0, fmt.Errorf("read hop: no signature: %w", errHop)
	}
	if len(b) < hopPreamble {
		return hop{}, 0, nil
	}
	be := binary.BigEndian
	size := hopPreamble + int(be.Uint16(b[14:]))
	if size > maxHop {
		return hop{}, 0, fmt.Errorf("read hop: header of %d bytes, limit %d: %w", size, maxHop, errHop)
	}
	if len(b) < size {
		return hop{}, 0, nil
	}
	h, err := checkHop(b[:size], secret)
	if err != nil {
		return hop{}, 0, err
	}
	return h, size, nil
}

// checkHop reads a whole header.
func checkHop(b, secret []byte) (hop, error) {
	n := 4
	switch {
	case b[12] != hopVerCmd:
		return hop{}, fmt.Errorf("read hop: version and command %#x: %w", b[12], errHop)
	case b[13] == hopTCP6:
		n = 16
	case b[13] != hopTCP4:
		return hop{}, fmt.Errorf("read hop: address family %#x: %w", b[13], errHop)
	}
	at := hopPreamble + 2*n + 4
	if len(b) != at+3+hopFieldSize || !bytes.Equal(b[at:at+3], []byte{hopFieldType, 0, hopFieldSize}) {
		return hop{}, fmt.Errorf("read hop: no proof of membership: %w", errHop)
	}
	field := b[at+3:]
	if field[0] != hopVersion {
		return hop{}, fmt.Errorf("read hop: version %d of the proof, want %d: %w", field[0], hopVersion, errHop)
	}
	end := len(b) - sha256.Size
	if !hmac.Equal(b[end:], hopMAC(secret, b[:end])) {
		return hop{}, fmt.Errorf("read hop: the sender does not know this cluster's secret: %w", errHop)
	}
	be := binary.BigEndian
	client, _ := netip.AddrFromSlice(b[hopPreamble : hopPreamble+n])
	own, _ := netip.AddrFromSlice(b[hopPreamble+n : hopPreamble+2*n])
	ports := b[at-4:]
	return hop{
		client: unmapped(netip.AddrPortFrom(client, be.Uint16(ports))),
		own:    unmapped(netip.AddrPortFrom(own, be.Uint16(ports[2:]))),
		node:   be.Uint64(field[1:]),
		sent:   time.UnixMilli(int64(be.Uint64(field[9:]))),
	}, nil
}
