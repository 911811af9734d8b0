package proxy

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"
)

// session is one client connection with its server connection.
//
// Two goroutines: run owns the session, connects it, carries server bytes to the
// client, and alone closes it; up carries client bytes to the server. Whoever
// wants the session to end calls finish, which wakes both.
type session struct {
	port   *port
	client net.Conn
	down   *source // from the server
	born   time.Time
	// patient is set when run has waited for a hop header.
	patient bool

	heard  chan struct{} // closed when the client's first bytes are known to be a hop header or not
	opened chan struct{} // closed when the server is connected
	done   chan struct{} // closed when why is set
	upDone chan struct{} // closed when up has returned
	gone   chan struct{} // closed when the client has got the last byte

	mu      sync.Mutex
	talk    talk
	server  net.Conn
	target  Route
	open    bool               // the server's first bytes are there: the target is final
	attempt context.CancelFunc // interrupts the attempt to connect
	hop     hop                // set if another member has forwarded the connection
	hopped  bool
	why     *ending
	eof     bool   // the client has closed its side
	moves   uint64 // counts pieces of data in both directions
	quiet   quiet
}

// quiet is what the last sweep of a drain has seen.
type quiet struct {
	moves uint64
	since time.Time
}

// endKind is why a session ended, for the counters.
type endKind uint8

const (
	endClosed  endKind = iota // by the client or the server
	endCut                    // Cut, a closed gate, another master
	endDrained                // Drain
	endRefused                // no route, a bad hop, a failed login exchange
)

// ending is how a session ends. A failure without text is not told.
type ending struct {
	kind    endKind
	failure failure
}

// lost is what a client is told whose answer will not come.
func lost(reason string) failure {
	return failure{codeShutdown, stateLost, "phxsql: the session was ended: " + reason +
		". If a COMMIT was running, its outcome is not known: check before you repeat it"}
}

func newSession(pt *port, c net.Conn) *session {
	s := &session{
		port: pt, client: c,
		heard:  make(chan struct{}),
		opened: make(chan struct{}), done: make(chan struct{}),
		upDone: make(chan struct{}), gone: make(chan struct{}),
	}
	return s
}

// addr is the client's own address, also behind another member.
func (s *session) addr() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hopped {
		return s.hop.client.String()
	}
	return s.client.RemoteAddr().String()
}

// run carries the session from accept to close.
func (s *session) run() {
	go s.up()
	if first, ok := s.connect(); ok {
		s.port.stats.open.Add(1)
		login := time.AfterFunc(s.port.proxy.opt.LoginLimit, s.loginLate)
		s.carry(first)
		login.Stop()
		s.port.stats.open.Add(-1)
	}
	s.finish(ending{kind: endClosed})
	s.end()
}

// finish sets how the session ends, once, and wakes its goroutines.
func (s *session) finish(e ending) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.why != nil {
		return false
	}
	s.why = &e
	close(s.done)
	s.wake()
	return true
}

// wake interrupts everything that the session's goroutines wait for. The caller
// holds mu.
func (s *session) wake() {
	if s.attempt != nil {
		s.attempt()
	}
	_ = s.client.SetDeadline(past)
	if s.server != nil {
		_ = s.server.SetDeadline(past)
	}
}

// cut ends the session if it is open. One that is still connecting tries again.
func (s *session) cut(reason string) bool {
	s.mu.Lock()
	if !s.open {
		if s.attempt != nil {
			s.attempt()
		}
		s.mu.Unlock()
		return false
	}
	if s.why != nil { // ending already: do not wait for a slow client
		s.wake()
	}
	s.mu.Unlock()
	return s.finish(ending{kind: endCut, failure: lost(reason)})
}

// routeChanged tells the session that its port leads to r now.
func (s *session) routeChanged(r Route) {
	s.mu.Lock()
	elsewhere := !s.target.sameTarget(r)
	open := s.open
	if !open && s.attempt != nil && elsewhere {
		s.attempt()
	}
	s.mu.Unlock()
	if open && elsewhere && r.Kind != RouteNone {
		s.finish(ending{kind: endCut, failure: lost("another node is the master now")})
	}
}

// nodeEnds ends the session because the node does. One that has reached no server yet
// has nothing to lose.
func (s *session) nodeEnds() {
	s.mu.Lock()
	open := s.open
	s.mu.Unlock()
	f := lost("this node is shutting down")
	if !open {
		f = failure{codeShutdown, stateLost, "phxsql: this node is shutting down, and no server was reached yet: connect again, or to another node"}
	}
	s.finish(ending{kind: endCut, failure: f})
}

// loginLate ends the session if its client has not logged in yet.
func (s *session) loginLate() {
	s.mu.Lock()
	late := s.talk.phase < phaseCommand && !s.talk.login.change
	s.mu.Unlock()
	if late {
		s.finish(ending{kind: endRefused, failure: failure{codeBadHop, stateLost, "phxsql: the login took too long"}})
	}
}

// end closes both connections. It tells the client why, if there is something to
// tell and the protocol has a place for it.
func (s *session) end() {
	s.mu.Lock()
	why, server := *s.why, s.server
	s.mu.Unlock()
	if server != nil {
		_ = server.Close()
	}
	<-s.upDone
	s.mu.Lock()
	seq, place := s.talk.errorSeq()
	eof := s.eof
	s.mu.Unlock()
	s.port.stats.ended(why.kind)
	_ = s.client.SetWriteDeadline(time.Now().Add(errorLimit))
	if why.failure.text != "" && place {
		_, _ = s.client.Write(appendERR(nil, seq, why.failure))
	}
	if h, ok := s.client.(halfCloser); ok {
		_ = h.CloseWrite()
	}
	s.port.proxy.log.Debug("session ended", "port", s.port.name, "client", s.addr(), "reason", why.failure.text)
	s.port.remove(s)
	close(s.gone)
	if !eof {
		s.linger()
	}
	_ = s.client.Close()
}

// linger reads and drops what the client still sends, until it closes. A command
// among it is counted: its client sees a lost connection.
func (s *session) linger() {
	_ = s.client.SetReadDeadline(time.Now().Add(lingerLimit))
	buf := make([]byte, 512)
	for {
		n, err := s.client.Read(buf)
		if n > 0 {
			s.dropped(buf[:n])
		}
		if err != nil {
			return
		}
	}
}

// dropped takes bytes of the client that are not sent on. Saying goodbye is not a
// loss; what a session that is not followed says, nobody knows.
func (s *session) dropped(b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.talk.phase != phaseCommand {
		return
	}
	before := s.talk.waiting
	_, _ = s.talk.commands(b)
	if s.talk.waiting > before {
		s.port.stats.late.Add(1)
	}
}

// clientAddr is what a hop header says about the client.
func (s *session) clientAddr() hop {
	return hop{
		client: addrPort(s.client.RemoteAddr()),
		own:    addrPort(s.client.LocalAddr()),
		node:   s.port.proxy.opt.Node,
		sent:   time.Now(),
	}
}

func addrPort(a net.Addr) netip.AddrPort {
	if tcp, ok := a.(*net.TCPAddr); ok {
		return tcp.AddrPort()
	}
	return netip.AddrPort{}
}

// refusal is what a client is told that cannot be connected.
func refusal(port, reason string, waited time.Duration) failure {
	text := fmt.Sprintf("phxsql: the %s port has no server to lead to: %s", port, reason)
	if waited > 0 {
		text += fmt.Sprintf(" (waited %v)", waited)
	}
	return failure{codeTooMany, stateRefused, text}
}
