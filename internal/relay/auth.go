package relay

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
)

// The one authentication method that this package speaks. On a Unix socket and
// with a known password it needs neither TLS nor an RSA key:
//
//   - A server that has not cached the account's hash asks for the password
//     itself; a Unix socket is a secure way for it.
//   - This package's own server knows the password, so it can always check the
//     scramble, which is the method's fast path.
const authPlugin = "caching_sha2_password"

const (
	scrambleSize = 20

	authFastOK   = 3
	authFullAuth = 4
)

// scramble is what a client proves its knowledge of the password with:
// SHA256(p) XOR SHA256(SHA256(SHA256(p)), nonce).
func scramble(password string, nonce []byte) []byte {
	if password == "" {
		return nil
	}
	once := sha256.Sum256([]byte(password))
	twice := sha256.Sum256(once[:])
	h := sha256.New()
	h.Write(twice[:])
	h.Write(nonce)
	out := h.Sum(nil)
	for i := range out {
		out[i] ^= once[i]
	}
	return out
}

// newNonce returns random bytes that no client takes for an end of string.
func newNonce() []byte {
	b := make([]byte, scrambleSize)
	_, _ = rand.Read(b) // never fails
	for i := range b {
		if b[i] = b[i] & 0x7f; b[i] == 0 || b[i] == '$' {
			b[i]++
		}
	}
	return b
}

// login is the client's side of the handshake, on a Unix socket.
func (w *wire) login(user, password string) error {
	greeting, err := w.read()
	if err != nil {
		return fmt.Errorf("log in as %s: %w", user, err)
	}
	if len(greeting) > 0 && greeting[0] == packetError {
		return fmt.Errorf("log in as %s: %w", user, parseServerError(greeting))
	}
	nonce, err := parseGreeting(greeting)
	if err != nil {
		return fmt.Errorf("log in as %s: %w", user, err)
	}
	const caps = capLongPassword | capLongFlag | capProtocol41 | capTransactions | capSecureConnection | capPluginAuth
	b := []byte{caps & 0xff, caps >> 8 & 0xff, caps >> 16 & 0xff, caps >> 24, 0, 0, 0, 1, charsetUTF8MB4}
	b = append(b, make([]byte, 23)...)
	b = append(append(b, user...), 0)
	proof := scramble(password, nonce)
	b = append(append(b, byte(len(proof))), proof...)
	b = append(append(b, authPlugin...), 0)
	if err := w.write(b); err != nil {
		return fmt.Errorf("log in as %s: %w", user, err)
	}
	if err := w.finishLogin(password); err != nil {
		return fmt.Errorf("log in as %s: %w", user, err)
	}
	return nil
}

// finishLogin answers the server until it says yes or no.
func (w *wire) finishLogin(password string) error {
	for range 4 { // switch, more data, OK
		b, err := w.read()
		if err != nil {
			return err
		}
		switch {
		case len(b) == 0:
			return fmt.Errorf("empty packet: %w", errProtocol)
		case b[0] == packetOK:
			return nil
		case b[0] == packetError:
			return parseServerError(b)
		case b[0] == packetEOF:
			plugin, nonce, _ := bytes.Cut(b[1:], []byte{0})
			if string(plugin) != authPlugin {
				return fmt.Errorf("the account uses %q, want %s: %w", plugin, authPlugin, errProtocol)
			}
			if err := w.write(scramble(password, bytes.TrimRight(nonce, "\x00"))); err != nil {
				return err
			}
		case b[0] == packetMoreData && len(b) == 2 && b[1] == authFullAuth:
			if err := w.write(append([]byte(password), 0)); err != nil {
				return err
			}
		case b[0] == packetMoreData && len(b) == 2 && b[1] == authFastOK:
		default:
			return fmt.Errorf("packet %#x in the handshake: %w", b[0], errProtocol)
		}
	}
	return fmt.Errorf("the handshake does not end: %w", errProtocol)
}

// parseGreeting returns the nonce of a version 10 handshake.
func parseGreeting(b []byte) ([]byte, error) {
	fail := fmt.Errorf("parse greeting: %w", errProtocol)
	if len(b) < 1 || b[0] != 10 {
		return nil, fail
	}
	_, b, ok := bytes.Cut(b[1:], []byte{0}) // the version
	const part1, fixed = 8, 4 + 8 + 1 + 2 + 1 + 2 + 2 + 1 + 10
	if !ok || len(b) < fixed+scrambleSize-part1 {
		return nil, fail
	}
	nonce := append([]byte(nil), b[4:4+part1]...)
	return append(nonce, b[fixed:fixed+scrambleSize-part1]...), nil
}

// accept is the server's side of the handshake. It lets in the one account, with any of
// its passwords.
func (w *wire) accept(version, user string, passwords []string, id uint32) error {
	nonce := newNonce()
	if err := w.write(greeting(version, nonce, id)); err != nil {
		return err
	}
	b, err := w.read()
	if err != nil {
		return err
	}
	got, err := parseLogin(b)
	if err != nil {
		return err
	}
	if got.plugin != authPlugin {
		b := append([]byte{packetEOF}, authPlugin...)
		if err := w.write(append(append(append(b, 0), nonce...), 0)); err != nil {
			return err
		}
		if got.proof, err = w.read(); err != nil {
			return err
		}
	}
	known := 0
	for _, p := range passwords {
		if p != "" {
			known |= subtle.ConstantTimeCompare(got.proof, scramble(p, nonce))
		}
	}
	if known&subtle.ConstantTimeCompare([]byte(got.user), []byte(user)) != 1 {
		_ = w.fail(1045, "28000", "Access denied for user '"+clipText(got.user)+"'")
		return fmt.Errorf("let in %q: wrong name or password", clipText(got.user))
	}
	if err := w.write([]byte{packetMoreData, authFastOK}); err != nil {
		return err
	}
	return w.ok()
}

func greeting(version string, nonce []byte, id uint32) []byte {
	const caps = capLongPassword | capLongFlag | capProtocol41 | capTransactions | capSecureConnection | capPluginAuth |
		capConnectAttrs | capLenencAuth
	b := append([]byte{10}, version...)
	b = append(b, 0, byte(id), byte(id>>8), byte(id>>16), byte(id>>24))
	b = append(append(b, nonce[:8]...), 0)
	b = append(b, caps&0xff, caps>>8&0xff, charsetUTF8MB4, statusAutocommit, 0, caps>>16&0xff, caps>>24, scrambleSize+1)
	b = append(b, make([]byte, 10)...)
	b = append(append(b, nonce[8:]...), 0)
	return append(append(b, authPlugin...), 0)
}

// loginRequest is what a client says of itself.
type loginRequest struct {
	user   string
	proof  []byte
	plugin string
}

func parseLogin(b []byte) (loginRequest, error) {
	fail := fmt.Errorf("parse login: %w", errProtocol)
	if len(b) < 32 {
		return loginRequest{}, fail
	}
	caps := uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24
	if caps&capProtocol41 == 0 || caps&capSecureConnection == 0 {
		return loginRequest{}, fail
	}
	user, b, ok := bytes.Cut(b[32:], []byte{0})
	r := loginRequest{user: string(user)}
	if !ok || len(b) == 0 {
		return loginRequest{}, fail
	}
	if caps&capLenencAuth != 0 {
		r.proof, b, ok = lenencBytes(b)
	} else if ok = len(b) > int(b[0]); ok {
		n := int(b[0])
		r.proof, b = b[1:1+n], b[1+n:]
	}
	if !ok {
		return loginRequest{}, fail
	}
	if caps&capConnectWithDB != 0 {
		_, b, _ = bytes.Cut(b, []byte{0})
	}
	if caps&capPluginAuth != 0 {
		plugin, _, _ := bytes.Cut(b, []byte{0})
		r.plugin = string(plugin)
	}
	return r, nil
}

func (w *wire) ok() error { return w.write([]byte{packetOK, 0, 0, statusAutocommit, 0, 0, 0}) }

// fail answers with an error packet.
func (w *wire) fail(code uint16, state, message string) error {
	b := []byte{packetError, byte(code), byte(code >> 8), '#'}
	return w.write(append(append(b, state...), message...))
}

func clipText(s string) string {
	if len(s) > 120 {
		return s[:120] + "..."
	}
	return s
}
