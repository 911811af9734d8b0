package proxy

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1" //nolint:gosec // the protocol's OAEP uses SHA-1
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"net"
	"testing"
)

// testClient speaks the protocol without TLS, with the full RSA exchange of
// caching_sha2_password, also in COM_CHANGE_USER.
type testClient struct {
	tb    testing.TB
	conn  net.Conn
	nonce []byte
}

const testCaps = capProtocol41 | capPluginAuth | capConnectWithDB | 1<<15

func (c *testClient) logIn(user, password string) {
	c.tb.Helper()
	_, p := readPacket(c.tb, c.conn)
	g, ok := parseGreeting(p)
	if !ok {
		c.tb.Fatalf("greeting: %q", p)
	}
	c.nonce = g.nonce
	r := binary.LittleEndian.AppendUint32(nil, testCaps)
	r = append(append(r, 0, 0, 0, 1, 45), make([]byte, 23)...)
	r = append(append(r, user...), 0)
	r = c.withAuth(r, password)
	r = append(append(r, "t\x00"...), pluginCaching+"\x00"...)
	write(c.tb, c.conn, appendPacket(nil, 1, r))
	c.finish(password)
}

func (c *testClient) changeUser(user, password string) {
	c.tb.Helper()
	r := append(append([]byte{comChangeUser}, user...), 0)
	r = c.withAuth(r, password)
	r = append(append(r, "t\x00\x2d\x00"...), pluginCaching+"\x00"...)
	write(c.tb, c.conn, appendPacket(nil, 0, r))
	c.finish(password)
}

func (c *testClient) withAuth(b []byte, password string) []byte {
	a := scramble(password, c.nonce)
	return append(append(b, byte(len(a))), a...)
}

// scramble is SHA256(password) XOR SHA256(SHA256(SHA256(password)), nonce).
func scramble(password string, nonce []byte) []byte {
	if password == "" {
		return nil
	}
	one := sha256.Sum256([]byte(password))
	two := sha256.Sum256(one[:])
	three := sha256.Sum256(append(two[:], nonce...))
	for i := range one {
		one[i] ^= three[i]
	}
	return one[:]
}

// finish carries the exchange to OK.
func (c *testClient) finish(password string) {
	c.tb.Helper()
	for {
		seq, p := readPacket(c.tb, c.conn)
		switch {
		case p[0] == markOK:
			return
		case p[0] == markEOF:
			c.nonce = trimNUL(p[len(pluginCaching)+2:])
			write(c.tb, c.conn, appendPacket(nil, seq+1, scramble(password, c.nonce)))
		case p[0] == markMore && p[1] == askFull:
			write(c.tb, c.conn, appendPacket(nil, seq+1, []byte{askKey}))
			seq, p = readPacket(c.tb, c.conn)
			write(c.tb, c.conn, appendPacket(nil, seq+1, c.encrypt(p[1:], password)))
		case p[0] == markMore:
		default:
			c.tb.Fatalf("login: got %q", p)
		}
	}
}

func (c *testClient) encrypt(key []byte, password string) []byte {
	c.tb.Helper()
	block, _ := pem.Decode(key)
	if block == nil {
		c.tb.Fatalf("public key: got %q", key)
	}
	k, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		c.tb.Fatal(err)
	}
	return encryptPassword(c.tb, k.(*rsa.PublicKey), password, c.nonce)
}

func encryptPassword(tb testing.TB, k *rsa.PublicKey, password string, nonce []byte) []byte {
	tb.Helper()
	plain := append([]byte(password), 0)
	for i := range plain {
		plain[i] ^= nonce[i%len(nonce)]
	}
	blob, err := rsa.EncryptOAEP(sha1.New(), rand.Reader, k, plain, nil) //nolint:gosec // see the import
	if err != nil {
		tb.Fatal(err)
	}
	return blob
}

// query returns the payload of the first row of a result with one column.
func (c *testClient) query(q string) string {
	c.tb.Helper()
	write(c.tb, c.conn, command(comQuery, q))
	var row string
	for i := range 5 { // count, column, EOF, row, EOF
		_, p := readPacket(c.tb, c.conn)
		if p[0] == markERR {
			c.tb.Fatalf("query: %q", p)
		}
		if i == 3 {
			row = string(p)
		}
	}
	return row
}
