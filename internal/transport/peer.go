package transport

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/phxsql/phxsql/paxos"
)

// peer is the sending side towards one node at one address: it dials until
// it is cancelled, and holds the session while there is one.
type peer struct {
	t      *Transport
	id     paxos.NodeID
	addr   string
	stats  *stats
	ctx    context.Context
	cancel context.CancelCauseFunc
	kick   chan struct{} // ends the wait between attempts

	mu        sync.Mutex
	sess      *session
	up        chan struct{} // closed while there is a session
	since     time.Time
	lastErr   error
	lastErrAt time.Time
}

func newPeer(t *Transport, p Peer, s *stats) *peer {
	n := &peer{t: t, id: p.ID, addr: p.Addr, stats: s, kick: make(chan struct{}, 1), up: make(chan struct{})}
	n.ctx, n.cancel = context.WithCancelCause(t.ctx)
	return n
}

// settledAfter is how long a session must have lived for the next attempt to
// come soon.
const settledAfter = time.Second

// run dials and writes until the peer is removed or the transport closed.
func (p *peer) run() {
	for attempt := 0; p.ctx.Err() == nil; attempt++ {
		lived, err := p.connect()
		if p.ctx.Err() != nil {
			return
		}
		p.note(err)
		if lived >= settledAfter {
			attempt = 0
		}
		p.wait(backoff(attempt, p.t.opt.RetryMin, p.t.opt.RetryMax, rand.Float64()))
	}
}

// backoff doubles from least to most, and takes away up to a quarter so that
// nodes that lost each other together do not come back together. r is in [0, 1).
func backoff(attempt int, least, most time.Duration, r float64) time.Duration {
	d := least
	for range attempt {
		if d >= most {
			break
		}
		d *= 2
	}
	d = min(d, most)
	return d - time.Duration(r*float64(d)/4)
}

// wait waits for d, or less when the peer was heard of, but never so little that two
// nodes could keep each other busy.
func (p *peer) wait(d time.Duration) {
	least := min(d, p.t.opt.RetryMin/2)
	sleep(p.ctx, least)
	timer := time.NewTimer(d - least)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-p.kick:
	case <-p.ctx.Done():
	}
}

// hurry makes the next attempt come at once: the peer was just heard of.
func (p *peer) hurry() {
	select {
	case p.kick <- struct{}{}:
	default:
	}
}

// connect makes one connection and serves it to its end. It returns how long it
// lived after it was established.
func (p *peer) connect() (time.Duration, error) {
	dctx, cancel := context.WithTimeout(p.ctx, p.t.opt.DialTimeout)
	raw, err := p.t.opt.Dial(dctx, p.addr)
	cancel()
	if err != nil {
		return 0, fmt.Errorf("dial: %w", err)
	}
	defer raw.Close()
	stop := context.AfterFunc(p.ctx, func() { raw.Close() })
	defer stop()
	c, err := p.t.secure(p.ctx, raw, p.id)
	if err != nil {
		return 0, err
	}
	if err := p.introduce(c); err != nil {
		return 0, err
	}
	select {
	case <-p.kick: // heard of before this connection: no reason to hurry after it
	default:
	}
	start := time.Now()
	err = p.serve(c)
	return time.Since(start), err
}

// introduce exchanges hellos.
func (p *peer) introduce(c *conn) error {
	b, err := appendHello(nil, frameHello, p.t.self())
	if err != nil {
		return err
	}
	if _, err := c.stream.Write(b); err != nil {
		return fmt.Errorf("write hello: %w", explain(err))
	}
	f, err := c.frames.next()
	if err != nil {
		return fmt.Errorf("read welcome: %w", explain(err))
	}
	h, err := parseHello(f, frameWelcome)
	if refused := (*RefusedError)(nil); errors.As(err, &refused) {
		refused.By = p.id
		return err
	}
	if err == nil {
		err = p.t.judge(c, h)
	}
	if err == nil && h.Node != p.id {
		err = fmt.Errorf("check welcome: node %d answers at the address of node %d: %w", h.Node, p.id, ErrWrongNode)
	}
	if err != nil {
		_, _ = c.stream.Write(appendRefusal(nil, err)) // a courtesy: the connection ends anyway
		return err
	}
	return c.settled()
}

// serve runs a session to its end.
func (p *peer) serve(c *conn) error {
	s := newSession(p, c)
	p.attach(s)
	var read sync.WaitGroup
	read.Go(func() { s.fail(s.read()) })
	s.fail(s.write())
	c.raw.Close()
	p.detach()
	read.Wait()
	s.abandon()
	return s.err
}

func (p *peer) attach(s *session) {
	p.mu.Lock()
	p.sess, p.since = s, time.Now()
	close(p.up)
	p.mu.Unlock()
	p.t.log.Info("peer connected", "peer", uint64(p.id), "addr", p.addr)
}

func (p *peer) detach() {
	p.mu.Lock()
	p.sess, p.since = nil, time.Now()
	p.up = make(chan struct{})
	p.mu.Unlock()
}

// note keeps the reason for which there is no connection, and logs a new one.
func (p *peer) note(err error) {
	if err == nil {
		return
	}
	p.mu.Lock()
	fresh := p.lastErr == nil || Reason(p.lastErr) != Reason(err) || p.since.After(p.lastErrAt)
	p.lastErr, p.lastErrAt = err, time.Now()
	p.mu.Unlock()
	if fresh {
		p.t.log.Warn("peer not connected", "peer", uint64(p.id), "addr", p.addr, "reason", Reason(err), "error", err)
	}
}

func (p *peer) session() *session {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sess
}

func (p *peer) send(group paxos.Group, msgs []paxos.Message) {
	s := p.session()
	if s == nil {
		p.stats.droppedDown.Add(uint64(len(msgs)))
		return
	}
	n, bytes := s.out.putMessages(group, msgs)
	if n > 0 {
		s.hasten()
	}
	p.stats.messagesOut.Add(uint64(n))
	p.stats.bytesOut.Add(uint64(bytes))
	if n < len(msgs) {
		p.stats.droppedFull.Add(uint64(len(msgs) - n))
	}
}

func (p *peer) sendApp(payload []byte) error {
	s := p.session()
	if s == nil {
		p.stats.droppedDown.Add(1)
		return fmt.Errorf("send to node %d: %w", p.id, ErrNotConnected)
	}
	if !s.out.putUrgent(func(b []byte) []byte { return appendFrame(b, frameApp, payload) }) {
		p.stats.droppedFull.Add(1)
		return fmt.Errorf("send to node %d: %w", p.id, ErrBusy)
	}
	p.stats.messagesOut.Add(1)
	p.stats.bytesOut.Add(uint64(headerSize + len(payload)))
	return nil
}

func (p *peer) fill(ps *PeerStatus) {
	p.mu.Lock()
	defer p.mu.Unlock()
	ps.Addr, ps.Connected, ps.Since = p.addr, p.sess != nil, p.since
	if p.lastErr != nil {
		ps.Reason, ps.LastError, ps.LastErrorAt = Reason(p.lastErr), p.lastErr.Error(), p.lastErrAt
	}
}
