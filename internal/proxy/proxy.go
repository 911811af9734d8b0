package proxy

import (
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Proxy serves the client ports of a node. Its methods may be called from any
// goroutine.
type Proxy struct {
	opt     Options
	log     *slog.Logger
	rw, ro  *port
	running sync.WaitGroup // sessions
	served  atomic.Int64   // connections to the local server
	done    chan struct{}  // closed by Close
	limits  atomic.Pointer[limits]

	mu        sync.Mutex
	listeners map[net.Listener]struct{}
	closed    bool
}

// New returns a proxy that routes nowhere yet: see SetRoute and SetLocal.
func New(opt Options) (*Proxy, error) {
	if opt.Socket == "" {
		return nil, fmt.Errorf("make proxy: no server socket is given")
	}
	opt = opt.withDefaults()
	p := &Proxy{opt: opt, log: opt.Logger, done: make(chan struct{}), listeners: map[net.Listener]struct{}{}}
	p.SetLimits(opt.MaxSessions, opt.HoldLimit)
	p.rw = newPort(p, "rw", true)
	p.ro = newPort(p, "ro", false)
	return p, nil
}

// limits are those of the options that may change while the proxy serves.
type limits struct {
	sessions int
	hold     time.Duration
}

// SetLimits changes Options.MaxSessions and Options.HoldLimit. Sessions that are open
// or wait already are left as they are.
func (p *Proxy) SetLimits(maxSessions int, hold time.Duration) {
	p.limits.Store(&limits{maxSessions, hold})
}

// ServeRW accepts clients of the read-write port until ln or the proxy is
// closed. It returns nil then.
func (p *Proxy) ServeRW(ln net.Listener) error { return p.serve(p.rw, ln) }

// ServeRO accepts clients of the read-only port until ln or the proxy is
// closed. It returns nil then.
func (p *Proxy) ServeRO(ln net.Listener) error { return p.serve(p.ro, ln) }

func (p *Proxy) serve(pt *port, ln net.Listener) error {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		_ = ln.Close()
		return nil
	}
	p.listeners[ln] = struct{}{}
	p.mu.Unlock()
	return pt.serve(ln)
}

// SetRoute says where the read-write port leads from now on.
//
// Waiting connections follow it at once. Open sessions that lead elsewhere end
// when r names a master (Local or Remote); None leaves them to the node that
// serves them. A route that names a master also ends a Drain.
func (p *Proxy) SetRoute(r Route) { p.rw.setRoute(r) }

// SetLocal says whether the local server may serve the read-only port. When it
// may not, new connections get an error with the reason, and open sessions of
// that port end.
func (p *Proxy) SetLocal(ok bool, reason string) {
	if ok {
		p.ro.setRoute(Local())
		return
	}
	p.ro.setRoute(None(reason))
	p.cut(p.ro, reason)
}

// Cut ends all open sessions of the read-write port and returns how many they
// were. A client that waits for an answer of which nothing was sent yet gets an
// error packet, where the session is followed (no TLS, no compression); the
// others' connections just end. Connections that wait for a route go on waiting.
//
// When Cut returns, nothing that was read from the server later than the call
// has reached or will reach a client.
func (p *Proxy) Cut(reason string) int { return p.cut(p.rw, reason) }

func (p *Proxy) cut(pt *port, reason string) int {
	var cut []*session
	for _, s := range pt.all() {
		if s.cut(reason) {
			cut = append(cut, s)
		}
	}
	limit := time.NewTimer(cutLimit)
	defer limit.Stop()
	for _, s := range cut {
		select {
		case <-s.gone:
		case <-limit.C:
			p.log.Warn("cut is slow", "port", pt.name, "limit", cutLimit.String())
			return len(cut)
		}
	}
	if len(cut) > 0 {
		p.log.Info("sessions cut", "port", pt.name, "sessions", len(cut), "reason", reason)
	}
	return len(cut)
}

// Close closes the listeners, ends every session and waits for them.
func (p *Proxy) Close() error {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil
	}
	p.closed = true
	close(p.done)
	for ln := range p.listeners {
		_ = ln.Close()
	}
	p.mu.Unlock()
	for _, pt := range []*port{p.rw, p.ro} {
		pt.mu.Lock()
		pt.closed = true
		pt.mu.Unlock()
		for _, s := range pt.all() {
			s.nodeEnds()
		}
	}
	p.running.Wait()
	return nil
}
