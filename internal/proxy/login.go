package proxy

import (
	"bytes"
	"crypto/rsa"
	"fmt"
)

// login is the state of an authentication exchange: the one that opens the
// connection, or that of COM_CHANGE_USER.
//
// The server sees a Unix socket. caching_sha2_password takes that for safe, so
// that in a full authentication the server wants the password in plain text. A
// client on plaintext TCP sends it encrypted with the server's public key, which
// it asks for if it does not have it. The proxy answers that question and
// decrypts; the sequence numbers that this costs are hidden from both sides.
// (sha256_password trusts nothing but TLS: the server does the exchange itself.)
type login struct {
	change bool
	// key gives the server's RSA key; nil on the way to another member, whose
	// proxy does this part.
	key    KeySource
	nonce  []byte
	plugin string
	full   bool // caching_sha2_password asked for the password itself
	// shift is how far the client's sequence numbers are ahead of the server's.
	shift byte
	in    []byte // client bytes that are no whole packet yet
	seen  []byte // beginning of the server's packet in progress, with its header
}

// KeySource gives the private key that belongs to the server's public_key.pem.
// It is called when a client needs it: the server makes its key files at its
// first start.
type KeySource func() (*rsa.PrivateKey, error)

const (
	pluginCaching = "caching_sha2_password"

	askFull        = 4 // in AuthMoreData of caching_sha2_password
	askKey         = 2 // a client's request for the public key
	nonceSize      = 20
	maxLoginPacket = 256 << 10 // a longer packet of a client's login ends the session
	maxLoginSeen   = 1024      // of a server packet in a login; what is behind is not looked at
)

// serverLogin takes server bytes before phaseCommand and returns those that are
// left when the phase changes. It rewrites sequence numbers in place.
func (t *talk) serverLogin(b []byte) []byte {
	h, l := &t.fromSrv, &t.login
	for len(b) > 0 {
		if h.skip == 0 {
			b = t.loginHeader(b)
			continue
		}
		d := min(h.skip, len(b))
		if room := maxLoginSeen - len(l.seen); room > 0 {
			l.seen = append(l.seen, b[:min(d, room)]...)
		}
		h.skip -= d
		b = b[d:]
		if h.skip == 0 {
			t.loginPacket(l.seen[headerSize:])
			l.seen = l.seen[:0]
			if t.phase == phaseCommand || t.phase == phaseOpaque {
				return b
			}
		}
	}
	return nil
}

// loginHeader takes bytes of a packet header from b.
func (t *talk) loginHeader(b []byte) []byte {
	h, l := &t.fromSrv, &t.login
	for i := range b {
		if len(l.seen) == headerSize-1 {
			b[i] += l.shift
			t.lastSeq, t.turn = b[i], server
		}
		l.seen = append(l.seen, b[i])
		if len(l.seen) == headerSize {
			if h.skip = payloadLen(l.seen); h.skip == 0 {
				l.seen = l.seen[:0]
			}
			return b[i+1:]
		}
	}
	return nil
}

// loginPacket looks at a whole packet of the server.
func (t *talk) loginPacket(p []byte) {
	l := &t.login
	if t.phase == phaseGreeting {
		g, ok := parseGreeting(p)
		if !ok { // an ERR packet, or a protocol that is not known
			t.phase = phaseOpaque
			return
		}
		t.greet, t.phase = g, phaseLogin
		l.nonce, l.plugin = g.nonce, g.plugin
		return
	}
	switch p[0] {
	case markOK:
		t.loggedIn(p)
	case markEOF, markNextAuth:
		c := cursor{rest: p[1:]}
		if name := c.cstring(); !c.bad {
			l.plugin, l.nonce, l.full = string(name), append([]byte(nil), trimNUL(c.rest)...), false
		}
	case markMore:
		l.full = l.plugin == pluginCaching && len(p) == 2 && p[1] == askFull
	}
}

// loggedIn goes on to commands.
func (t *talk) loggedIn(ok []byte) {
	t.phase = phaseCommand
	if t.caps&(capCompress|capZstdCompress) != 0 {
		t.phase = phaseOpaque
	}
	t.status, _ = okStatus(ok)
	t.waiting, t.answer, t.last = 0, answer{status: t.status}, 0
	t.login = login{key: t.login.key, nonce: t.login.nonce, in: t.login.in}
}

// clientLogin takes client bytes before phaseCommand. What it returns is never
// part of b.
func (t *talk) clientLogin(b []byte) (forward, reply []byte, err error) {
	l := &t.login
	l.in = append(l.in, b...)
	for len(l.in) >= headerSize && t.phase != phaseOpaque {
		end := headerSize + payloadLen(l.in)
		if end > maxLoginPacket {
			return forward, reply, fmt.Errorf("follow login: packet of %d bytes: %w", end, errProtocol)
		}
		if len(l.in) < end {
			return forward, reply, nil
		}
		packet := l.in[:end]
		l.in = l.in[end:]
		t.lastSeq, t.turn = packet[3], user
		f, r, err := t.loginAnswer(packet)
		if len(r) > 0 {
			t.lastSeq, t.turn = packet[3]+1, server
		}
		forward, reply = append(forward, f...), append(reply, r...)
		if err != nil {
			return forward, reply, err
		}
	}
	if t.phase == phaseOpaque {
		forward = append(forward, l.in...)
		l.in = nil
	}
	return forward, reply, nil
}

// loginAnswer takes one whole packet of the client.
func (t *talk) loginAnswer(packet []byte) (forward, reply []byte, err error) {
	l := &t.login
	payload := packet[headerSize:]
	switch t.phase {
	case phaseGreeting:
		return nil, nil, fmt.Errorf("follow login: the client spoke before the server: %w", errProtocol)
	case phaseLogin:
		return t.opening(packet)
	}
	switch {
	case l.key == nil || !l.full || l.plugin != pluginCaching:
		return t.pass(packet), nil, nil
	case len(payload) == 1 && payload[0] == askKey:
		reply, err = t.keyPacket(packet[3] + 1)
		l.shift += 2
		return nil, reply, err
	case len(payload) < minKeyBlob:
		return t.pass(packet), nil, nil
	}
	password, reply, err := t.password(payload, packet[3]+1)
	if err != nil {
		return nil, reply, err
	}
	return appendPacket(nil, packet[3]-l.shift, password), nil, nil
}

// minKeyBlob is the shortest RSA ciphertext: that of a 1024 bit key, which is
// below what the server makes.
const minKeyBlob = 128

// pass returns the packet with the server's sequence number.
func (t *talk) pass(packet []byte) []byte {
	out := append([]byte(nil), packet...)
	out[3] -= t.login.shift
	return out
}

// opening takes the client's first packet: a request for TLS, a
// HandshakeResponse41, or a COM_CHANGE_USER.
func (t *talk) opening(packet []byte) (forward, reply []byte, err error) {
	payload := packet[headerSize:]
	t.phase = phaseAuth
	if t.login.change {
		t.login.plugin = changePlugin(payload, t.caps)
		return t.pass(packet), nil, nil
	}
	o, ok := parseOpening(payload)
	t.caps = o.capabilities & t.greet.capabilities
	t.login.plugin = o.plugin
	if !ok || o.tls {
		t.phase = phaseOpaque
	}
	return t.pass(packet), nil, nil
}

// opening is what the proxy needs of the client's first packet.
type opening struct {
	capabilities uint32
	tls          bool // it asks for TLS and says nothing else
	plugin       string
}

// tlsRequestSize is the length of the request for TLS: a HandshakeResponse41 that
// ends where the user name would begin.
const tlsRequestSize = 32

// parseOpening reads a HandshakeResponse41:
//
//	capabilities u32 | packet limit u32 | charset u8 | 23 bytes | user, NUL
//	| auth (length lenenc or u8) | database, NUL if any | plugin, NUL | attributes
func parseOpening(p []byte) (opening, bool) {
	c := cursor{rest: p}
	o := opening{capabilities: c.u32()}
	c.bytes(tlsRequestSize - 4)
	if c.bad || o.capabilities&capProtocol41 == 0 {
		return o, false
	}
	if len(p) == tlsRequestSize {
		o.tls = o.capabilities&capSSL != 0
		return o, o.tls
	}
	c.cstring()
	if o.capabilities&capLenencAuthData != 0 {
		c.bytes(int(min(c.lenenc(), maxLoginPacket)))
	} else {
		c.bytes(int(c.u8()))
	}
	if o.capabilities&capConnectWithDB != 0 {
		c.cstring()
	}
	if !c.bad && o.capabilities&capPluginAuth != 0 {
		o.plugin = string(c.lastString())
	}
	return o, !c.bad
}

// changePlugin reads the plugin from a COM_CHANGE_USER, if it names one:
//
//	11 | user, NUL | auth (length u8) | database, NUL | charset u16 | plugin, NUL | attributes
func changePlugin(p []byte, caps uint32) string {
	c := cursor{rest: p}
	c.u8()
	c.cstring()
	c.bytes(int(c.u8()))
	c.cstring()
	c.u16()
	if c.bad || caps&capPluginAuth == 0 {
		return ""
	}
	return string(c.lastString())
}

// lastString reads a string that ends with a NUL or with the payload.
func (c *cursor) lastString() []byte {
	if i := bytes.IndexByte(c.rest, 0); i >= 0 {
		return c.cstring()
	}
	return c.bytes(len(c.rest))
}

func clone(b []byte) []byte { return append([]byte(nil), b...) }
