package transport

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// direct writes to a connection without ever waiting. One goroutine uses it at a time.
type direct struct {
	raw    syscall.RawConn
	pieces [][]byte
	n      int // bytes that the last write wrote
	once   func(fd uintptr) bool
}

// newDirect returns nil where the connection is no socket, as in some tests.
func newDirect(c net.Conn) *direct {
	s, ok := c.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return nil
	}
	d := &direct{raw: raw}
	d.once = d.try
	return d
}

// try is one system call. It never asks to be called again. Whatever keeps it from
// writing, the writer meets it too, and says so.
func (d *direct) try(fd uintptr) bool {
	if len(d.pieces) == 1 {
		d.n, _ = unix.Write(int(fd), d.pieces[0])
	} else {
		d.n, _ = unix.Writev(int(fd), d.pieces)
	}
	return true
}

// write writes what goes at once and returns the rest, which refers to pieces.
func (d *direct) write(pieces [][]byte) [][]byte {
	d.pieces, d.n = pieces, 0
	_ = d.raw.Write(d.once) // closed, or its deadline is over: nothing was written
	d.pieces = nil
	d.n = max(d.n, 0)
	n := d.n
	for len(pieces) > 0 && n >= len(pieces[0]) {
		n -= len(pieces[0])
		pieces = pieces[1:]
	}
	if n > 0 {
		pieces[0] = pieces[0][n:]
	}
	return pieces
}
