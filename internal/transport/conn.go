package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/phxsql/phxsql/paxos"
)

// Credentials prove this node to others and others to it. internal/identity has
// them; certificates of an outside authority can take their place.
type Credentials interface {
	// ClientConfig is for dialing the given node, and no other.
	ClientConfig(peer paxos.NodeID) *tls.Config
	// ServerConfig is for accepting any node of the cluster.
	ServerConfig() *tls.Config
	// Peer returns the node that a finished handshake proved.
	Peer(tls.ConnectionState) (paxos.NodeID, error)
}

// writePiece is how much is written under one write deadline: a peer must take
// that much within the idle time, or it counts as dead.
const writePiece = 256 << 10

// conn is one connection after its handshake.
type conn struct {
	raw    net.Conn // closed to end it; a TLS goodbye could block
	stream net.Conn // raw or TLS over it
	frames *frameReader
	direct *direct // nil where writing may mean waiting: TLS
	idle   time.Duration
	peer   paxos.NodeID // proven by TLS; 0 in insecure mode until the hello
}

// idleConn ends a read that gets nothing for too long. It looks at the bytes below
// TLS, so that a large frame counts as life while it comes in.
type idleConn struct {
	net.Conn
	idle time.Duration // 0 while the handshake has its own deadline
	set  time.Time     // when the deadline was set last
}

func (c *idleConn) Read(b []byte) (int, error) {
	// Setting it for each read would cost as much as a small read: it may come an
	// eighth too early.
	if now := time.Now(); c.idle > 0 && now.Sub(c.set) > c.idle/8 {
		if err := c.SetReadDeadline(now.Add(c.idle)); err != nil {
			return 0, err
		}
		c.set = now
	}
	n, err := c.Conn.Read(b)
	if c.idle > 0 && errors.Is(err, os.ErrDeadlineExceeded) {
		err = fmt.Errorf("nothing read for %v: %w", c.idle, ErrSilent)
	}
	return n, err
}

// secure runs the TLS handshake, as client if dial names the wanted node. Hello
// frames are still under the handshake's deadline; settled ends it.
func (t *Transport) secure(ctx context.Context, raw net.Conn, dial paxos.NodeID) (*conn, error) {
	if err := raw.SetDeadline(time.Now().Add(t.opt.HandshakeTimeout)); err != nil {
		return nil, fmt.Errorf("set handshake deadline: %w", err)
	}
	c := &conn{raw: &idleConn{Conn: raw}, idle: t.opt.IdleTimeout}
	c.stream = c.raw
	if t.opt.Insecure {
		c.direct = newDirect(raw)
	} else {
		var sec *tls.Conn
		if dial != 0 {
			sec = tls.Client(c.raw, t.opt.Credentials.ClientConfig(dial))
		} else {
			sec = tls.Server(c.raw, t.opt.Credentials.ServerConfig())
		}
		if err := sec.HandshakeContext(ctx); err != nil {
			return nil, explain(err)
		}
		peer, err := t.opt.Credentials.Peer(sec.ConnectionState())
		if err != nil {
			return nil, err
		}
		c.stream, c.peer = sec, peer
	}
	c.frames = newFrameReader(c.stream)
	return c, nil
}

// secret reports whether the connection encrypts.
func (c *conn) secret() bool { return c.stream != c.raw }

// settled replaces the handshake's deadline by the idle limit.
func (c *conn) settled() error {
	if err := c.raw.SetDeadline(time.Time{}); err != nil {
		return fmt.Errorf("clear handshake deadline: %w", err)
	}
	c.raw.(*idleConn).idle = c.idle
	return nil
}

// write writes pieces one behind the other. What is much is written in parts that
// each have their own deadline.
func (c *conn) write(pieces [][]byte) error {
	if len(pieces) > 1 { // little more than writePiece, see outbox.take
		return c.writeTogether(pieces)
	}
	for b := pieces[0]; len(b) > 0; {
		n := min(len(b), writePiece)
		if err := c.raw.SetWriteDeadline(time.Now().Add(c.idle)); err != nil {
			return fmt.Errorf("set write deadline: %w", err)
		}
		if _, err := c.stream.Write(b[:n]); err != nil {
			return c.writeError(err)
		}
		b = b[n:]
	}
	return nil
}

// writeTogether writes pieces with one system call where there is no TLS.
func (c *conn) writeTogether(pieces net.Buffers) error {
	if err := c.raw.SetWriteDeadline(time.Now().Add(c.idle)); err != nil {
		return fmt.Errorf("set write deadline: %w", err)
	}
	to := c.stream
	if raw, ok := to.(*idleConn); ok {
		to = raw.Conn // only the connection itself knows how
	}
	if _, err := pieces.WriteTo(to); err != nil {
		return c.writeError(err)
	}
	return nil
}

func (c *conn) writeError(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("write: peer took nothing for %v: %w", c.idle, ErrSilent)
	}
	return fmt.Errorf("write: %w", err)
}

// identify checks the node id of a hello against the certificate.
func (c *conn) identify(h Hello) error {
	switch {
	case h.Node == 0:
		return fmt.Errorf("check hello: node id 0: %w", ErrMalformed)
	case c.peer != 0 && c.peer != h.Node:
		return fmt.Errorf("check hello: node %d holds the certificate of node %d: %w", h.Node, c.peer, ErrWrongNode)
	}
	c.peer = h.Node
	return nil
}
