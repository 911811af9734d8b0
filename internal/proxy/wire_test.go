package proxy

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Packets of tests, built by name.

const (
	capsNew = capProtocol41 | capPluginAuth | capLenencAuthData | capDeprecateEOF | capConnectWithDB | 1<<15
	capsOld = capsNew &^ capDeprecateEOF
)

func greetingPacket(id, caps uint32, plugin string) []byte {
	p := append([]byte{10}, "9.7.4\x00"...)
	p = binary.LittleEndian.AppendUint32(p, id)
	p = append(p, "12345678\x00"...)
	p = append(p, byte(caps), byte(caps>>8), 255, 2, 0, byte(caps>>16), byte(caps>>24), 21)
	p = append(p, make([]byte, 10)...)
	p = append(p, "901234567890\x00"...)
	return appendPacket(nil, 0, append(append(p, plugin...), 0))
}

const testNonce = "12345678901234567890"

func loginResponse(caps uint32, plugin string) []byte {
	p := binary.LittleEndian.AppendUint32(nil, caps)
	p = append(p, make([]byte, 28)...)
	p = append(p, "user\x00"...)
	p = append(p, 4, 1, 2, 3, 4)
	p = append(p, "t\x00"...)
	return appendPacket(nil, 1, append(append(p, plugin...), 0))
}

func okPacket(seq byte, status uint16) []byte {
	return appendPacket(nil, seq, []byte{markOK, 0, 0, byte(status), byte(status >> 8), 0, 0})
}

// endPacket is an OK packet that ends a result set.
func endPacket(seq byte, status uint16) []byte {
	b := okPacket(seq, status)
	b[headerSize] = markEOF
	return b
}

func eofPacket(seq byte, status uint16) []byte {
	return appendPacket(nil, seq, []byte{markEOF, 0, 0, byte(status), byte(status >> 8)})
}

func command(cmd byte, rest string) []byte {
	return appendPacket(nil, 0, append([]byte{cmd}, rest...))
}

func columnPacket(seq byte) []byte {
	return appendPacket(nil, seq, []byte("\x03def\x01t\x01k\x01k\x01v\x01v\x0c\x3f\x00\x01\x00\x00\x00\x08\x81\x00\x00\x00\x00"))
}

func concat(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// readPacket reads one packet.
func readPacket(tb testing.TB, c net.Conn) (seq byte, payload []byte) {
	tb.Helper()
	_ = c.SetReadDeadline(time.Now().Add(testLimit))
	var h [headerSize]byte
	if _, err := io.ReadFull(c, h[:]); err != nil {
		tb.Fatalf("read packet: %v", err)
	}
	payload = make([]byte, payloadLen(h[:]))
	if _, err := io.ReadFull(c, payload); err != nil {
		tb.Fatalf("read packet: %v", err)
	}
	return h[3], payload
}

// readEnd expects the end of the stream.
func readEnd(tb testing.TB, c net.Conn) {
	tb.Helper()
	_ = c.SetReadDeadline(time.Now().Add(testLimit))
	if rest, err := io.ReadAll(c); len(rest) > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		tb.Fatalf("got %q, %v; want the end of the stream", rest, err)
	}
}

func write(tb testing.TB, c net.Conn, b []byte) {
	tb.Helper()
	_ = c.SetWriteDeadline(time.Now().Add(testLimit))
	if _, err := c.Write(b); err != nil {
		tb.Fatalf("write: %v", err)
	}
}

// errorOf reads the code of an ERR payload.
func errorOf(tb testing.TB, p []byte) uint16 {
	tb.Helper()
	if len(p) < 3 || p[0] != markERR {
		tb.Fatalf("got packet %q, want ERR", p)
	}
	return binary.LittleEndian.Uint16(p[1:])
}

func dial(tb testing.TB, addr string) net.Conn {
	tb.Helper()
	c, err := net.DialTimeout("tcp", addr, testLimit)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = c.Close() })
	return c
}

// fakeServer is a Unix socket on which a test plays the server.
type fakeServer struct {
	socket string
	ln     net.Listener
}

func newFakeServer(tb testing.TB) *fakeServer {
	f := &fakeServer{socket: filepath.Join(tb.TempDir(), "s")}
	f.ln = listen(tb, "unix", f.socket)
	return f
}

func (f *fakeServer) accept(tb testing.TB) net.Conn {
	tb.Helper()
	_ = f.ln.(*net.UnixListener).SetDeadline(time.Now().Add(testLimit))
	c, err := f.ln.Accept()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = c.Close() })
	return c
}

// logIn plays a login without a password between a client and the fake server.
func (f *fakeServer) logIn(tb testing.TB, addr string) (client, server net.Conn) {
	tb.Helper()
	client = dial(tb, addr)
	server = f.accept(tb)
	write(tb, server, greetingPacket(7, capsNew, pluginCaching))
	readPacket(tb, client)
	write(tb, client, loginResponse(capsNew, pluginCaching))
	readPacket(tb, server)
	write(tb, server, okPacket(2, 0))
	if _, p := readPacket(tb, client); p[0] != markOK {
		tb.Fatalf("login: got %q", p)
	}
	return client, server
}
