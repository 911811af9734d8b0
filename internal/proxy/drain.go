package proxy

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Busy tells which connections of the local server, by connection id, must not
// be closed: those in a transaction and those that run a statement. It is asked
// for the sessions that the proxy cannot follow (TLS, compression).
//
// A transaction that has been started and has done nothing yet is not in
// INNODB_TRX; performance_schema.events_transactions_current has it. Because an
// answer may lack it, such sessions must also be quiet for longer.
//
// INNODB_TRX is a cache that the server renews only when nobody has read it for
// 100 ms: whoever reads it more often sees the same old answer for ever. Drain
// therefore asks at most every 120 ms; nothing else may read that table then.
type Busy func(ctx context.Context) (map[uint32]bool, error)

// Drain closes the sessions that the local server serves for the read-write
// port, each at a moment when its client loses nothing, and returns how many are
// left: 0, or more when ctx ends first. New connections wait meanwhile, and go on
// waiting when Drain has returned: for the next route, or for Resume.
//
// A session closes together with the answer that leaves it outside a
// transaction: the client has the end of the connection in hand when it has the
// answer, so that a pool that looks before it uses a connection (go-sql-driver)
// takes another one. A session without traffic closes when it has been quiet for
// DrainGrace; one that cannot be followed closes only in this way, so that under
// an uninterrupted load it stays until ctx ends. What no proxy can prevent: a client that sends a command on a
// connection while its end is on the way to it sees a lost connection; the
// command was not carried out. Stats counts these.
//
// An error of busy does not stop the drain: the sessions in question stay.
func (p *Proxy) Drain(ctx context.Context, busy Busy) (left int, err error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	pt := p.rw
	if !pt.startDrain(&drain{stop: stop}) {
		return 0, fmt.Errorf("drain sessions: a drain is under way already")
	}
	start := time.Now()
	before := pt.countLocal()
	left, err = pt.sweepUntil(ctx, busy)
	p.log.Info("sessions drained", "sessions", before, "left", left, "took", time.Since(start).String())
	return left, err
}

// DrainAll closes the sessions of both ports, wherever they lead, as Drain does: for a
// node that is about to stop. New connections to the read-write port wait, those to the
// read-only port are refused. A session with another member that cannot be followed
// (TLS, compression) stays until its client or that member closes it. It returns how
// many sessions are left.
func (p *Proxy) DrainAll(ctx context.Context, busy Busy) (left int) {
	start := time.Now()
	before := 0
	var wait sync.WaitGroup
	var still atomic.Int64
	for _, pt := range []*port{p.rw, p.ro} {
		ctx, stop := context.WithCancel(ctx)
		defer stop()
		if !pt.startDrain(&drain{stop: stop, all: true}) {
			continue
		}
		before += pt.countLocal()
		ask := busy
		if pt.rw {
			ask = nil // the local server knows nothing of them
		}
		wait.Go(func() {
			n, err := pt.sweepUntil(ctx, ask)
			if err != nil {
				p.log.Debug("busy connections are not known", "port", pt.name, "err", err)
			}
			still.Add(int64(n))
		})
	}
	wait.Wait()
	left = int(still.Load())
	p.log.Info("all sessions drained", "sessions", before, "left", left, "took", time.Since(start).String())
	return left
}

// Resume ends a drain: connections that wait are routed again, and sessions that
// are left stay.
func (p *Proxy) Resume() {
	pt := p.rw
	if !pt.endDrain() {
		return
	}
	pt.mu.Lock()
	pt.signal()
	pt.mu.Unlock()
	p.log.Info("drain ended", "port", pt.name)
}

// startDrain makes new connections wait, also those that are being connected.
func (pt *port) startDrain(d *drain) bool {
	if !pt.drain.CompareAndSwap(nil, d) {
		return false
	}
	pt.mu.Lock()
	all := pt.signal()
	pt.mu.Unlock()
	for _, s := range all {
		s.mu.Lock()
		if !s.open && s.attempt != nil {
			s.attempt()
		}
		s.quiet = quiet{moves: s.moves, since: time.Now()}
		s.mu.Unlock()
	}
	return true
}

// draining is the drain that is under way, the zero drain if there is none.
func (pt *port) draining() drain {
	if d := pt.drain.Load(); d != nil {
		return *d
	}
	return drain{}
}

func (pt *port) endDrain() bool {
	d := pt.drain.Swap(nil)
	if d != nil {
		d.stop()
	}
	return d != nil
}

func (pt *port) countLocal() int {
	n := 0
	for _, s := range pt.all() {
		if s.draining() {
			n++
		}
	}
	return n
}

// sweepUntil looks at the sessions again and again and closes those that can be.
func (pt *port) sweepUntil(ctx context.Context, busy Busy) (left int, err error) {
	tick := time.NewTicker(sweepPause)
	defer tick.Stop()
	var asked time.Time
	for {
		left, err = pt.sweep(ctx, busy, &asked)
		if left == 0 {
			return 0, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return pt.countLocal(), err
		}
	}
}

func (pt *port) sweep(ctx context.Context, busy Busy, asked *time.Time) (left int, err error) {
	grace := pt.proxy.opt.DrainGrace
	var dark []*session // quiet, but not followed: the server must say
	for _, s := range pt.all() {
		switch s.sweep(grace) {
		case sweepLeft:
			left++
		case sweepAsk:
			left++
			dark = append(dark, s)
		}
	}
	if len(dark) == 0 || busy == nil || time.Since(*asked) < askPause {
		return left, nil
	}
	defer func() { *asked = time.Now() }()
	ids, err := busy(ctx)
	if err != nil {
		return left, fmt.Errorf("ask for busy connections: %w", err)
	}
	for _, s := range dark {
		s.drainDark(ids)
	}
	return left, nil
}

// draining reports whether a drain waits for this session.
func (s *session) draining() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts()
}

// counts is draining under mu. A session that is ending counts until its client
// has got everything.
func (s *session) counts() bool {
	if !s.open || s.target.Kind != RouteLocal && !s.port.draining().all {
		return false
	}
	select {
	case <-s.gone:
		return false
	default:
		return true
	}
}

type sweepResult uint8

const (
	sweepGone sweepResult = iota
	sweepLeft
	sweepAsk
)

// sweep closes the session if it is followed, quiet, and between transactions.
func (s *session) sweep(grace time.Duration) sweepResult {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case !s.counts():
		return sweepGone
	case s.why != nil:
		return sweepLeft
	case s.moves != s.quiet.moves || s.quiet.since.IsZero():
		s.quiet = quiet{moves: s.moves, since: time.Now()}
		return sweepLeft
	case time.Since(s.quiet.since) < grace || unread(s.client):
		return sweepLeft
	case s.talk.phase == phaseOpaque:
		if time.Since(s.quiet.since) < darkGraces*grace {
			return sweepLeft
		}
		return sweepAsk
	case s.talk.phase < phaseCommand:
		if time.Since(s.quiet.since) < loginGrace {
			return sweepLeft
		}
	case !s.talk.idle() || s.talk.inTransaction():
		return sweepLeft
	}
	s.conclude(endDrained)
	s.wake()
	return sweepLeft
}

// drainDark closes a session that is not followed, unless the server says that
// it is busy or something has moved since it was asked.
func (s *session) drainDark(busy map[uint32]bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.why != nil || s.moves != s.quiet.moves || busy[s.talk.greet.connection] || unread(s.client) {
		return
	}
	s.conclude(endDrained)
	s.wake()
}
