package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// port is one of the two client ports: its route and its sessions.
type port struct {
	proxy *Proxy
	name  string
	rw    bool
	stats portCounters

	// drain is set while the port's sessions are being closed.
	drain atomic.Pointer[drain]

	mu       sync.Mutex
	route    Route
	version  uint64        // counts changes of what routeFor answers
	changed  chan struct{} // closed at the next one
	sessions map[*session]struct{}
	closed   bool
}

// drain is one run of Drain.
type drain struct {
	stop context.CancelFunc
	all  bool // sessions with other members too
}

func newPort(p *Proxy, name string, rw bool) *port {
	return &port{
		proxy: p, name: name, rw: rw,
		route:    None("this node is starting"),
		changed:  make(chan struct{}),
		sessions: map[*session]struct{}{},
	}
}

// way is the answer of routeFor: a route with the signal of its change.
type way struct {
	route   Route
	version uint64
	changed <-chan struct{}
	// poll is set when the route can open without a signal.
	poll bool
}

// routeFor says where a new session goes now. A session that another member has
// forwarded goes nowhere but to the local server.
func (pt *port) routeFor(forwarded bool) way {
	pt.mu.Lock()
	w := way{route: pt.route, version: pt.version, changed: pt.changed}
	pt.mu.Unlock()
	switch {
	case pt.draining().all:
		w.route = None("this node is about to stop")
	case pt.drain.Load() != nil:
		w.route = None("a switchover is under way")
	case forwarded && w.route.Kind == RouteRemote:
		w.route = None("the connection was forwarded to this node, which is not the master")
	case pt.rw && w.route.Kind == RouteLocal && !pt.proxy.opt.Gate():
		w.route, w.poll = None("this node's lease does not run"), true
	}
	return w
}

func (pt *port) currentVersion() uint64 {
	pt.mu.Lock()
	defer pt.mu.Unlock()
	return pt.version
}

// setRoute changes the route. A session whose server is no longer the master's
// ends as soon as another master is named, not before: without a master, the old
// one may still finish what runs on it.
func (pt *port) setRoute(r Route) {
	pt.mu.Lock()
	if pt.route == r {
		pt.mu.Unlock()
		return
	}
	old := pt.route
	pt.route = r
	all := pt.signal()
	pt.mu.Unlock()
	if r.Kind != RouteNone && pt.rw {
		pt.endDrain()
	}
	pt.proxy.log.Info("route changed", "port", pt.name, "from", old.String(), "to", r.String())
	for _, s := range all {
		s.routeChanged(r)
	}
}

// signal tells waiting sessions to look again and returns all sessions. The
// caller holds mu.
func (pt *port) signal() []*session {
	pt.version++
	close(pt.changed)
	pt.changed = make(chan struct{})
	all := make([]*session, 0, len(pt.sessions))
	for s := range pt.sessions {
		all = append(all, s)
	}
	return all
}

func (pt *port) all() []*session {
	pt.mu.Lock()
	defer pt.mu.Unlock()
	all := make([]*session, 0, len(pt.sessions))
	for s := range pt.sessions {
		all = append(all, s)
	}
	return all
}

var (
	errClosed  = errors.New("proxy is closed")
	errTooMany = errors.New("too many sessions")
)

// add takes a new session into the port.
func (pt *port) add(s *session) error {
	pt.mu.Lock()
	defer pt.mu.Unlock()
	if pt.closed {
		return errClosed
	}
	if len(pt.sessions) >= pt.proxy.limits.Load().sessions {
		return fmt.Errorf("open session: %d are open: %w", len(pt.sessions), errTooMany)
	}
	pt.sessions[s] = struct{}{}
	return nil
}

func (pt *port) remove(s *session) {
	pt.mu.Lock()
	defer pt.mu.Unlock()
	delete(pt.sessions, s)
}

// serve accepts connections until the listener is closed.
func (pt *port) serve(ln net.Listener) error {
	for {
		c, err := ln.Accept()
		switch {
		case err == nil:
			pt.accept(c)
		case errors.Is(err, net.ErrClosed):
			return nil
		default:
			pt.proxy.log.Warn("accept failed", "port", pt.name, "err", err)
			select {
			case <-time.After(acceptPause):
			case <-pt.proxy.done:
				return nil
			}
		}
	}
}

func (pt *port) accept(c net.Conn) {
	pt.stats.accepted.Add(1)
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetKeepAliveConfig(keepAlive)
	}
	s := newSession(pt, c)
	err := pt.add(s)
	switch {
	case err == nil:
		pt.proxy.running.Go(s.run)
		return
	case errors.Is(err, errTooMany):
		pt.stats.refused.Add(1)
		pt.proxy.log.Debug("session refused", "port", pt.name, "client", s.addr(), "err", err)
		f := failure{codeTooMany, stateRefused, "phxsql: too many connections on this port (limit " +
			fmt.Sprint(pt.proxy.limits.Load().sessions) + "); close some or raise the limit"}
		_ = c.SetWriteDeadline(time.Now().Add(errorLimit))
		_, _ = c.Write(appendERR(nil, 0, f))
	}
	_ = c.Close()
}
