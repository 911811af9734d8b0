package proxy

import (
	"errors"
	"fmt"
	"io"
	"time"
)

// carry brings server bytes to the client until one of them ends or the session
// is finished. It is given the first bytes.
func (s *session) carry(first []byte) {
	defer s.down.release()
	gated := s.gated(s.target)
	for b := first; s.deliver(b, gated); {
		s.down.release()
		var err error
		if b, err = s.down.next(); len(b) == 0 || err != nil {
			return
		}
	}
}

// deliver writes bytes that were read from the server to the client. It answers
// false when the session is over.
func (s *session) deliver(b []byte, gated bool) bool {
	if gated && !s.port.proxy.opt.Gate() {
		s.finish(ending{kind: endCut, failure: lost("this node is no longer sure to be the master (its lease has run out)")})
		return false
	}
	s.mu.Lock()
	if s.why != nil {
		s.mu.Unlock()
		return false
	}
	s.talk.followServer(b)
	s.moves++
	last := s.isLast(gated)
	s.mu.Unlock()
	s.port.stats.toClient.Add(uint64(len(b)))
	if last {
		_ = writeLast(s.client, b)
		return false
	}
	_, err := s.client.Write(b)
	return err == nil
}

// isLast reports whether the bytes that are about to be written are the
// session's last: it is drained, or the member that serves it has closed it. The
// client then learns that together with its answer, before it can send the next
// command. The caller holds mu.
func (s *session) isLast(local bool) bool {
	if s.talk.phase != phaseOpaque && !s.talk.idle() {
		return false
	}
	if s.target.Kind == RouteRemote && s.down.ended() {
		s.conclude(endClosed)
		return true
	}
	if d := s.port.drain.Load(); d == nil || !local && !d.all {
		return false
	}
	if s.talk.phase == phaseOpaque || s.talk.inTransaction() || s.talk.restless() {
		return false
	}
	if time.Since(s.born) < settleTime || unread(s.client) {
		return false
	}
	s.conclude(endDrained)
	return true
}

// conclude sets the session's end without waking anybody: the owner writes the
// last bytes first. The caller holds mu.
func (s *session) conclude(k endKind) {
	s.why = &ending{kind: k}
	close(s.done)
	_ = s.client.SetReadDeadline(past)
}

// up brings client bytes to the server.
func (s *session) up() {
	defer close(s.upDone)
	src := newSource(s.client)
	defer src.release()
	b, err := s.start(src)
	for err == nil && len(b) > 0 {
		if !s.accept(b) {
			return
		}
		src.release()
		b, err = src.next()
	}
	s.clientEnded(err)
}

// start reads the client's first bytes, takes a hop header off, and waits for
// the server.
func (s *session) start(src *source) ([]byte, error) {
	b, err := src.next()
	if err == nil && len(b) > 0 && startsHop(b) {
		b, err = s.takeHop(src, b)
	} else {
		close(s.heard)
	}
	if err != nil || len(b) == 0 {
		return nil, err
	}
	select {
	case <-s.opened:
		return b, nil
	case <-s.done:
		return nil, errInterrupted
	}
}

// takeHop reads the rest of a hop header and returns what the client itself has
// sent behind it.
func (s *session) takeHop(src *source, b []byte) ([]byte, error) {
	opt := &s.port.proxy.opt
	buf := clone(b)
	for {
		h, n, err := parseHop(buf, opt.Secret)
		if err == nil && !s.port.rw {
			err = fmt.Errorf("read hop: members forward to the read-write port only: %w", errHop)
		}
		if err != nil {
			s.refuseHop(err)
			return nil, err
		}
		if n > 0 {
			s.arrived(h)
			if buf = buf[n:]; len(buf) > 0 {
				return buf, nil
			}
			src.release()
			return src.next()
		}
		src.release()
		if b, err = src.next(); err != nil || len(b) == 0 {
			return nil, err
		}
		buf = append(buf, b...)
	}
}

// arrived notes that another member has forwarded this connection. If the
// session was on its way to a third one, it turns back.
func (s *session) arrived(h hop) {
	s.port.stats.hops.Add(1)
	s.mu.Lock()
	s.hop, s.hopped = h, true
	close(s.heard)
	astray := s.target.Kind == RouteRemote
	if astray && !s.open && s.attempt != nil {
		s.attempt()
	}
	astray = astray && s.open
	s.mu.Unlock()
	if astray {
		s.finish(ending{kind: endRefused})
	}
}

func (s *session) refuseHop(err error) {
	s.port.proxy.log.Warn("hop refused", "port", s.port.name, "from", s.client.RemoteAddr().String(), "err", err)
	s.finish(ending{kind: endRefused, failure: failure{codeBadHop, stateRefused, "phxsql: " + err.Error()}})
}

// accept takes bytes from the client. It answers false when no more are wanted.
func (s *session) accept(b []byte) bool {
	s.mu.Lock()
	if s.why != nil {
		s.mu.Unlock()
		s.dropped(b)
		return false
	}
	forward, reply, err := s.talk.followClient(b)
	s.moves++
	s.mu.Unlock()
	s.port.stats.fromClient.Add(uint64(len(b)))
	if len(reply) > 0 {
		if _, werr := s.client.Write(reply); werr != nil {
			err = errors.Join(err, werr)
		}
	}
	if err != nil {
		s.port.proxy.log.Debug("login failed", "port", s.port.name, "client", s.addr(), "err", err)
		s.finish(ending{kind: endRefused})
		return false
	}
	if len(forward) == 0 {
		return true
	}
	_, err = s.server.Write(forward)
	return err == nil // else the server has closed; carry reads what it still had to say
}

// clientEnded handles the end of the client's bytes. A client that has closed
// its side still gets what the server answers.
func (s *session) clientEnded(err error) {
	s.mu.Lock()
	s.eof = err == nil || errors.Is(err, io.EOF)
	half, ok := s.server.(halfCloser)
	live := s.open && s.eof && ok
	s.mu.Unlock()
	if live {
		_ = half.CloseWrite()
		return
	}
	s.finish(ending{kind: endClosed})
}
