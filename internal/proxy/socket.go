package proxy

import (
	"net"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// chunkSize is the size of the buffers between the two connections. The server
// writes its results in pieces of net_buffer_length (16 KiB).
const chunkSize = 32 << 10

var chunks = sync.Pool{New: func() any { return new([chunkSize]byte) }}

// source reads a connection without holding a buffer while nothing comes: it
// takes one when the connection is readable. It belongs to one goroutine.
type source struct {
	conn net.Conn
	raw  syscall.RawConn // nil for a connection that is not a socket
	buf  *[chunkSize]byte
	n    int
	err  error
	try  func(fd uintptr) bool

	end  bool
	one  [1]byte
	peek func(fd uintptr)
}

func newSource(c net.Conn) *source {
	s := &source{conn: c}
	if sc, ok := c.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			s.raw = raw
			s.try, s.peek = s.read, s.look
		}
	}
	return s
}

// next returns the next bytes; they are valid until release. No bytes without
// an error is the end of the stream.
func (s *source) next() ([]byte, error) {
	if s.raw == nil {
		s.take()
		n, err := s.conn.Read(s.buf[:])
		if n > 0 {
			return s.buf[:n], nil
		}
		s.release()
		return nil, err
	}
	s.n, s.err = 0, nil
	if err := s.raw.Read(s.try); err != nil {
		return nil, err
	}
	if s.n <= 0 {
		return nil, s.err
	}
	return s.buf[:s.n], nil
}

// read is called by the runtime's poller; false means "wait until readable".
func (s *source) read(fd uintptr) bool {
	s.take()
	for {
		n, err := unix.Read(int(fd), s.buf[:])
		if err == unix.EINTR {
			continue
		}
		if n > 0 {
			s.n = n
			return true
		}
		s.release()
		if err == unix.EAGAIN {
			return false
		}
		s.err = err
		return true
	}
}

func (s *source) take() {
	if s.buf == nil {
		s.buf = chunks.Get().(*[chunkSize]byte)
	}
}

func (s *source) release() {
	if s.buf != nil {
		chunks.Put(s.buf)
		s.buf = nil
	}
}

// ended reports whether the peer has closed its side and everything before that
// has been read. It never waits.
func (s *source) ended() bool {
	if s.raw == nil {
		return false
	}
	s.end = false
	_ = s.raw.Control(s.peek)
	return s.end
}

func (s *source) look(fd uintptr) {
	// Not unix.Recvfrom, which allocates the sender's address.
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&s.one[0])), 1,
		unix.MSG_PEEK|unix.MSG_DONTWAIT, 0, 0)
	s.end = n == 0 && errno == 0
}

// unread reports whether bytes of the peer wait in the socket.
func unread(c net.Conn) bool {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	n := 0
	_ = raw.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), unix.SIOCINQ) })
	return n > 0
}

// writeLast writes b and ends the stream such that the peer, if b is short,
// gets the end in the same segment as b: whoever has read b can also see that
// the connection is over.
func writeLast(c net.Conn, b []byte) error {
	tcp, ok := c.(*net.TCPConn)
	if ok {
		cork(tcp)
	}
	_, err := c.Write(b)
	if h, ok := c.(halfCloser); ok && err == nil {
		err = h.CloseWrite()
	}
	return err
}

func cork(c *net.TCPConn) {
	if raw, err := c.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_CORK, 1)
		})
	}
}

type halfCloser interface{ CloseWrite() error }

// past is a deadline that has gone by.
var past = time.Unix(1, 0)

// keepAlive finds clients and members that vanished without a word in about a
// minute. Latency matters, so small writes are not delayed (the default of Go).
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 30 * time.Second, Interval: 10 * time.Second, Count: 3}
