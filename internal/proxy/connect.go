package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// connect connects the session to the server that its port leads to and returns
// the server's first bytes. While there is no route, or the server cannot be
// reached, it waits for up to HoldLimit, so that a failover looks like a slow
// connect. It answers false when the session is over.
func (s *session) connect() ([]byte, bool) {
	hold := s.port.proxy.limits.Load().hold
	limit := time.Now().Add(hold)
	pause := retryFirst
	waiting := false
	defer func() {
		if waiting {
			s.port.stats.waiting.Add(-1)
		}
	}()
	for {
		w := s.port.routeFor(s.forwarded())
		if w.route.Kind == RouteRemote && s.mayBeHop() {
			continue
		}
		err := errors.New(w.route.Reason)
		if w.route.Kind != RouteNone {
			var first []byte
			if first, err = s.reach(w, limit); err == nil {
				return first, true
			}
		}
		left := time.Until(limit)
		if full := errors.Is(err, errServerFull); full || !s.port.rw || left <= 0 {
			s.refuse(err, s.port.rw && !full, hold)
			return nil, false
		}
		if !waiting {
			waiting = true
			s.port.stats.waiting.Add(1)
		}
		if w.route.Kind != RouteNone || w.poll {
			left = min(left, pause)
			pause = min(2*pause, retryLast)
		}
		if !s.hold(w.changed, left) {
			return nil, false
		}
	}
}

// refuse ends a session that has no server.
func (s *session) refuse(err error, waited bool, hold time.Duration) {
	d := time.Duration(0)
	if waited {
		d = hold
	}
	if s.finish(ending{kind: endRefused, failure: refusal(s.port.name, err.Error(), d)}) {
		s.port.proxy.log.Debug("session refused", "port", s.port.name, "client", s.addr(), "err", err)
	}
}

// hold waits for a change of the route, or for d. It answers false when the
// session is over.
func (s *session) hold(changed <-chan struct{}, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-changed:
	case <-t.C:
	case <-s.done:
		return false
	}
	return true
}

// mayBeHop waits, once, for a hop header to arrive. It answers true when one has.
func (s *session) mayBeHop() bool {
	if s.patient {
		return false
	}
	s.patient = true
	t := time.NewTimer(hopPatience)
	defer t.Stop()
	select {
	case <-s.heard:
		return s.forwarded()
	case <-s.done:
	case <-t.C:
	}
	return false
}

func (s *session) forwarded() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.hopped
}

var (
	errInterrupted = errors.New("the route has changed")
	errServerFull  = errors.New("too many connections to the server (engine.max_connections)")
	errGateClosed  = errors.New("this node's lease does not run")
)

// reach makes one attempt to connect along w. It is interrupted when the route
// changes or the session is over.
func (s *session) reach(w way, limit time.Time) ([]byte, error) {
	ctx, cancel := context.WithDeadline(context.Background(), limit)
	defer cancel()
	s.mu.Lock()
	s.attempt, s.target = cancel, w.route
	over := s.why != nil || s.hopped && w.route.Kind == RouteRemote
	s.mu.Unlock()
	if over || s.port.currentVersion() != w.version {
		return nil, errInterrupted
	}
	conn, err := s.dial(ctx, w.route)
	if err != nil {
		return nil, err
	}
	down := newSource(conn)
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(past) })
	first, err := s.greet(conn, down, w.route)
	if !stop() && err == nil {
		err = errInterrupted
	}
	if err == nil {
		err = s.adopt(conn, down, w)
	}
	if err != nil {
		down.release()
		_ = conn.Close()
		return nil, err
	}
	return first, nil
}

func (s *session) dial(ctx context.Context, r Route) (net.Conn, error) {
	d := net.Dialer{Timeout: s.port.proxy.opt.DialLimit, KeepAliveConfig: keepAlive}
	if r.Kind == RouteLocal {
		return s.port.proxy.dialServer(ctx, d)
	}
	c, err := d.DialContext(ctx, "tcp", r.Addr)
	if err != nil {
		return nil, fmt.Errorf("connect to the master: %w", err)
	}
	return c, nil
}

// dialServer connects to the local server, within the limit of its sessions.
func (p *Proxy) dialServer(ctx context.Context, d net.Dialer) (net.Conn, error) {
	if n := p.served.Add(1); p.opt.ServerSessions > 0 && n > int64(p.opt.ServerSessions) {
		p.served.Add(-1)
		return nil, fmt.Errorf("%w: limit %d", errServerFull, p.opt.ServerSessions)
	}
	c, err := d.DialContext(ctx, "unix", p.opt.Socket)
	if err != nil {
		p.served.Add(-1)
		return nil, fmt.Errorf("connect to the local server: %w", err)
	}
	return &serverConn{UnixConn: c.(*net.UnixConn), closed: sync.OnceFunc(func() { p.served.Add(-1) })}, nil
}

// serverConn is a connection to the local server that is counted until it is
// closed.
type serverConn struct {
	*net.UnixConn
	closed func()
}

func (c *serverConn) Close() error {
	defer c.closed()
	return c.UnixConn.Close()
}

// greet says who this node is, if a member is at the other end, and waits for
// the server's first bytes.
func (s *session) greet(conn net.Conn, down *source, r Route) ([]byte, error) {
	if r.Kind == RouteRemote {
		header, err := appendHop(nil, s.port.proxy.opt.Secret, s.clientAddr())
		if err != nil {
			return nil, err
		}
		if _, err := conn.Write(header); err != nil {
			return nil, fmt.Errorf("forward to the master: %w", err)
		}
	}
	first, err := down.next()
	if len(first) == 0 {
		if err == nil {
			err = errors.New("it closed the connection")
		}
		return nil, fmt.Errorf("wait for the server's greeting: %w", err)
	}
	return first, nil
}

// adopt makes the connection the session's server, if it may still be.
func (s *session) adopt(conn net.Conn, down *source, w way) error {
	opt := &s.port.proxy.opt
	if s.gated(w.route) && !opt.Gate() {
		return errGateClosed
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.why != nil || s.hopped && w.route.Kind == RouteRemote || s.port.currentVersion() != w.version {
		return errInterrupted
	}
	if w.route.Kind == RouteLocal {
		s.talk.login.key = opt.Key
	}
	s.server, s.down, s.open, s.attempt = conn, down, true, nil
	s.born = time.Now()
	close(s.opened)
	return nil
}

// gated reports whether answers along r need an open gate.
func (s *session) gated(r Route) bool { return s.port.rw && r.Kind == RouteLocal }
