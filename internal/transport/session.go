package transport

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/phxsql/phxsql/paxos"
)

// maxCalls bounds the calls of one connection that wait for their answers.
const maxCalls = 1024

// session is one established connection of the dialing side.
type session struct {
	p     *peer
	c     *conn
	out   *outbox
	start time.Time

	failed chan struct{} // closed by the first fail
	once   sync.Once
	err    error // valid after failed is closed

	mu    sync.Mutex
	calls map[uint64]chan result // nil when the session is over
	last  uint64
}

func newSession(p *peer, c *conn) *session {
	return &session{
		p: p, c: c, out: newOutbox(p.t.opt.QueueBytes, c.secret()), start: time.Now(),
		failed: make(chan struct{}), calls: map[uint64]chan result{},
	}
}

// fail ends the session; the first reason stays.
func (s *session) fail(err error) {
	s.once.Do(func() {
		s.err = err
		s.out.close()
		close(s.failed)
		s.c.raw.Close()
	})
}

// write sends what the outbox holds and pings, until the session fails.
func (s *session) write() error {
	tick := time.NewTicker(s.p.t.opt.PingEvery)
	defer tick.Stop()
	s.ping()
	for {
		if err := s.writeAll(tick.C); err != nil {
			return err
		}
		select {
		case <-s.out.wake:
		case <-tick.C:
			s.out.trim()
			s.ping()
		case <-s.failed:
			return s.err
		}
	}
}

// writeAll writes what the outbox holds, unless a sender is at it.
func (s *session) writeAll(tick <-chan time.Time) error {
	if !s.out.grab() {
		return nil
	}
	defer func() { s.out.release(s.p.t.clock()) }()
	for b := s.out.take(); b != nil; b = s.out.take() {
		if err := s.c.write(b); err != nil {
			return err
		}
		select {
		case <-tick:
			s.ping()
		default:
		}
	}
	return nil
}

// hasten writes in the sender's goroutine what can be written without waiting, unless it
// is much, and wakes the writer for the rest.
func (s *session) hasten() {
	if s.c.direct == nil {
		s.out.signal()
		return
	}
	if !s.out.lend(s.p.t.clock()) {
		return
	}
	for n := 0; n < lendLimit && len(s.out.rest) == 0; { // others go on queueing meanwhile
		b := s.out.take()
		if b == nil {
			break
		}
		s.out.rest = s.c.direct.write(b)
		n += max(s.c.direct.n, 1)
	}
	s.out.release(s.p.t.clock())
}

// ping asks the peer for a sign of life and carries the time of asking, counted
// from the start of the session.
func (s *session) ping() {
	token := uint64(max(time.Since(s.start), 1))
	s.out.putUrgent(func(b []byte) []byte { return appendToken(b, framePing, token) })
}

// read takes the answers of the other side, until the session fails.
func (s *session) read() error {
	for {
		f, err := s.c.frames.next()
		if err != nil {
			return fmt.Errorf("read: %w", explain(err))
		}
		switch f.kind {
		case framePong:
			err = s.pong(f)
		case frameResponse:
			err = s.answer(f)
		case frameRefuse:
			err = parseRefusal(f.payload, s.p.id)
		default:
			err = fmt.Errorf("read: frame of kind %d from the acceptor: %w", f.kind, ErrMalformed)
		}
		if err != nil {
			return err
		}
	}
}

func (s *session) pong(f frame) error {
	token, err := parseToken(f.payload)
	if err != nil || token == 0 {
		return err
	}
	if d := time.Since(s.start) - time.Duration(token); d >= 0 && d <= time.Since(s.start) {
		s.p.stats.rtt.Store(int64(max(d, 1)))
	}
	return nil
}

func (s *session) answer(f frame) error {
	r, err := parseResult(f.payload)
	if err != nil {
		return err
	}
	if !f.owned {
		r.payload = bytes.Clone(r.payload)
	}
	s.mu.Lock()
	ch := s.calls[r.id]
	delete(s.calls, r.id)
	s.mu.Unlock()
	if ch != nil { // nil: the caller has given up
		ch <- r
	}
	return nil
}

// abandon wakes the callers that wait for answers which will not come.
func (s *session) abandon() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, ch := range s.calls {
		close(ch)
	}
	s.calls = nil
}

// register makes room for an answer.
func (s *session) register() (uint64, chan result, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.calls == nil:
		return 0, nil, ErrNotConnected
	case len(s.calls) >= maxCalls:
		return 0, nil, ErrBusy
	}
	s.last++
	ch := make(chan result, 1)
	s.calls[s.last] = ch
	return s.last, ch, nil
}

func (s *session) unregister(id uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.calls, id)
}

// Call asks a peer and waits for its answer. Without a connection it waits for one
// as long as ctx lives. The errors tell whether the call may have been carried out:
// ErrUnknownPeer, ErrTooLarge, ErrBusy and ErrNotConnected mean it was not,
// a *CallError is the answer of the other side, ErrConnectionLost and those of ctx leave
// it open.
func (t *Transport) Call(ctx context.Context, to paxos.NodeID, method string, payload []byte) ([]byte, error) {
	p := (*t.peers.Load())[to]
	switch {
	case p == nil:
		return nil, fmt.Errorf("call %s on node %d: %w", method, to, ErrUnknownPeer)
	case len(payload) > MaxCall || len(method) > maxMethod:
		return nil, fmt.Errorf("call %s on node %d: %d bytes, limit %d: %w", method, to, len(payload), MaxCall, ErrTooLarge)
	}
	s, err := p.await(ctx)
	if err != nil {
		return nil, fmt.Errorf("call %s on node %d: %w", method, to, err)
	}
	r, err := s.call(ctx, method, payload)
	if err != nil {
		return nil, fmt.Errorf("call %s on node %d: %w", method, to, err)
	}
	if r.failed {
		return nil, &CallError{Peer: to, Method: method, Text: string(r.payload)}
	}
	return r.payload, nil
}

// await returns the session, or waits for one.
func (p *peer) await(ctx context.Context) (*session, error) {
	for {
		p.mu.Lock()
		s, up := p.sess, p.up
		p.mu.Unlock()
		if s != nil {
			return s, nil
		}
		select {
		case <-up:
		case <-ctx.Done():
			return nil, errors.Join(ErrNotConnected, p.why(), ctx.Err())
		case <-p.ctx.Done():
			return nil, errors.Join(ErrNotConnected, context.Cause(p.ctx))
		}
	}
}

func (p *peer) why() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lastErr
}

func (s *session) call(ctx context.Context, method string, payload []byte) (result, error) {
	id, ch, err := s.register()
	if err != nil {
		return result{}, err
	}
	req := request{id: id, method: method, payload: payload}
	sent := s.out.putOrdered(req.size(), func(b []byte) []byte { return appendRequest(b, req) })
	if !sent {
		s.unregister(id)
		return result{}, ErrBusy
	}
	select {
	case r, ok := <-ch:
		if !ok {
			return result{}, errors.Join(ErrConnectionLost, s.err)
		}
		return r, nil
	case <-ctx.Done():
		s.unregister(id)
		return result{}, ctx.Err()
	}
}
