package relay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/phxsql/phxsql/internal/entry"
	"github.com/phxsql/phxsql/internal/gtid"
	"github.com/phxsql/phxsql/internal/semisync"
	"github.com/phxsql/phxsql/paxos"
)

// How a Tail ends, beside the end of its context.
var (
	// ErrNotChosen says that a value was refused or that its outcome is
	// unknown: this node has stopped leading. Commits that wait go on waiting.
	ErrNotChosen = errors.New("value not known to be chosen")
	// ErrServerGone says that the server process cannot be reached any more or
	// is another one than before. What it had written is not acknowledged.
	ErrServerGone = errors.New("server process gone")
	// ErrUnfit says that the server is set up in a way that would lose commits,
	// or wrote an event that cannot be carried.
	ErrUnfit = errors.New("server unfit to be master")
	// ErrDiverged says that the server holds transactions that are not in the
	// log, or used a GTID of the log for another one. It must be rebuilt.
	ErrDiverged = errors.New("server holds transactions that the log does not")
)

// Proposer queues values for the log. Propose may block for back-pressure and
// keeps data. Done is called once per accepted value, in the order of Propose,
// from any goroutine: a nil error says that the value was chosen at i.
type Proposer interface {
	Propose(data []byte, done func(i paxos.Instance, err error)) error
}

// Ledger judges what was chosen; it is a *Journal.
type Ledger interface {
	// Executed returns all transactions that count so far.
	Executed() *gtid.Set
	// Confirm returns nil when every value of the epoch through i counts.
	Confirm(ctx context.Context, epoch uint64, i paxos.Instance) error
}

// TailOptions says what a Tail attaches to. Zero sizes and times have defaults.
type TailOptions struct {
	Socket   string // the server's Unix socket
	User     string // an account with all privileges
	Password string

	ReplicaID   uint32    // server id to register with; not the server's own
	ReplicaUUID gtid.UUID // replica UUID to register with

	Epoch, Node uint64 // what the values are marked with

	// GroupSize is about the largest Transactions value in bytes, ChunkSize
	// that of a Chunk: what does not fit is cut. Default 1 MiB each.
	GroupSize, ChunkSize int
	// Patience is how long the server may be unreachable. Default 5 s.
	Patience time.Duration

	Logger *slog.Logger
}

// TailStats is what a Tail has done so far.
type TailStats struct {
	Attached     bool // a connection stands and the server treats it as semi-synchronous
	Sent         semisync.Position
	Chosen       semisync.Position
	Acked        semisync.Position
	InFlight     int    // values on their way
	Connections  uint64 // connections that reached the dump
	Values       uint64
	Transactions uint64
	Skipped      uint64 // transactions that came again
	Bytes        uint64 // of events, as received
	Acks         uint64
}

// Tail is the one semi-synchronous replica of the local master, for one epoch
// and one server process. A Tail runs once.
type Tail struct {
	o      TailOptions
	p      Proposer
	ledger Ledger
	logger *slog.Logger
	cancel context.CancelCauseFunc

	// The server sends what it wrote itself in this epoch, so nothing from before
	// can come, and what was proposed comes again after a reconnect only. Both
	// belong to Run's goroutine.
	before   *gtid.Set // in the log when the Tail began
	proposed *gtid.Set // proposed by this Tail

	pid     int32 // of the server process
	doneFn  func(paxos.Instance, error)
	ackable chan struct{} // holds a token when an acknowledgement may be due

	mu        sync.Mutex
	tracker   semisync.Tracker
	newest    paxos.Instance // newest chosen instance
	receiving bool           // something was received that is not proposed yet
	stats     TailStats
	changed   chan struct{} // closed when a waiter may look again; nil while nobody waits
}

// NewTail returns a Tail that proposes to p. The ledger must have followed the
// log through the epoch's own instance.
func NewTail(p Proposer, ledger Ledger, o TailOptions) *Tail {
	if o.GroupSize <= 0 {
		o.GroupSize = 1 << 20
	}
	if o.ChunkSize <= 0 {
		o.ChunkSize = 1 << 20
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Patience <= 0 {
		o.Patience = 5 * time.Second
	}
	t := &Tail{
		o: o, p: p, ledger: ledger, logger: o.Logger, ackable: make(chan struct{}, 1),
		before: &gtid.Set{}, proposed: &gtid.Set{},
	}
	t.doneFn = t.done
	return t
}

// Run attaches to the server and stays attached until the context ends, the
// node stops leading or the server goes. It never returns nil; the sentinels
// above tell the reasons apart.
func (t *Tail) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	t.cancel = cancel
	t.before = t.ledger.Executed()
	backoff := newBackoff()
	for {
		connected, err := t.attach(ctx)
		t.detached()
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("tail server: %w", context.Cause(ctx))
		case lasting(err):
			return fmt.Errorf("tail server: %w", err)
		case connected:
			backoff.reset()
		case backoff.spent() > t.o.Patience:
			return fmt.Errorf("tail server: %w: %w", ErrServerGone, err)
		}
		t.logger.Warn("tail_broken", "error", err)
		backoff.wait(ctx)
	}
}

// lasting reports whether another connection would end the same way.
func lasting(err error) bool {
	for _, e := range []error{ErrNotChosen, ErrServerGone, ErrUnfit, ErrDiverged, ErrSuperseded} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// propose hands a value over. End is the end of its newest whole transaction: the
// position that may be acknowledged once the value is chosen. It is zero for a
// chunk that is not the last.
func (t *Tail) propose(data []byte, txns []entry.Txn, end semisync.Position, size int) error {
	t.mu.Lock()
	t.stats.Values++
	t.stats.Bytes += uint64(size)
	if !end.IsZero() {
		t.tracker.Sent(end)
		t.receiving = false
		t.stats.Transactions += uint64(len(txns))
	}
	t.tracker.Propose(end)
	t.mu.Unlock()
	if !end.IsZero() {
		for i := range txns {
			t.proposed.Add(txns[i].GTID)
		}
	}
	if err := t.p.Propose(data, t.doneFn); err != nil {
		return fmt.Errorf("propose: %w: %w", ErrNotChosen, err)
	}
	return nil
}

// done is called by the proposer, in order.
func (t *Tail) done(i paxos.Instance, err error) {
	if err != nil {
		t.cancel(fmt.Errorf("%w: %w", ErrNotChosen, err))
		return
	}
	t.mu.Lock()
	t.tracker.Done()
	t.newest = i
	t.mu.Unlock()
	t.wakeAcker()
}

func (t *Tail) wakeAcker() {
	select {
	case t.ackable <- struct{}{}:
	default: // a token is there
	}
}

// skipped says that a transaction that was proposed came again.
func (t *Tail) skipped(end semisync.Position) {
	t.mu.Lock()
	t.tracker.Sent(end)
	t.tracker.Skip(end)
	t.receiving = false
	t.stats.Skipped++
	t.notify()
	t.mu.Unlock()
	t.wakeAcker()
}

// begin says that a transaction has begun to arrive. It returns the end of the
// newest one that was proposed or skipped.
func (t *Tail) begin() semisync.Position {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.receiving = true
	sent, _, _ := t.tracker.Positions()
	return sent
}

func (t *Tail) attached() {
	t.mu.Lock()
	t.tracker.Reconnected()
	t.stats.Attached = true
	t.stats.Connections++
	t.notify()
	t.mu.Unlock()
	t.wakeAcker()
}

func (t *Tail) detached() {
	t.mu.Lock()
	t.stats.Attached = false
	t.receiving = false
	t.mu.Unlock()
}

// notify wakes those who wait for a condition; mu is held.
func (t *Tail) notify() {
	if t.changed != nil {
		close(t.changed)
		t.changed = nil
	}
}

// Stats returns what the Tail has done so far.
func (t *Tail) Stats() TailStats {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.stats
	s.Sent, s.Chosen, s.Acked = t.tracker.Positions()
	s.InFlight = t.tracker.InFlight()
	return s
}

// WaitAttached returns when the server treats this Tail as its semi-synchronous
// replica.
func (t *Tail) WaitAttached(ctx context.Context) error {
	return t.waitFor(ctx, func() bool { return t.stats.Attached })
}

// WaitDrained returns when everything that was received is chosen and
// acknowledged. It says nothing about what the server has not sent yet: make
// the server read-only first, which itself waits for the commits before it.
func (t *Tail) WaitDrained(ctx context.Context) error {
	return t.waitFor(ctx, func() bool { return t.stats.Attached && !t.receiving && t.tracker.Drained() })
}

// waitFor waits for a condition over what mu guards.
func (t *Tail) waitFor(ctx context.Context, cond func() bool) error {
	for {
		t.mu.Lock()
		if cond() {
			t.mu.Unlock()
			return nil
		}
		if t.changed == nil {
			t.changed = make(chan struct{})
		}
		changed := t.changed
		t.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait for tail: %w", ctx.Err())
		}
	}
}

// acknowledge sends the newest position that may be acknowledged whenever there
// is a newer one, until the context ends or the connection breaks.
func (t *Tail) acknowledge(ctx context.Context, send func(semisync.Position) error) error {
	for {
		select {
		case <-t.ackable:
		case <-ctx.Done():
			return ctx.Err()
		}
		t.mu.Lock()
		p, ok := t.tracker.Next()
		newest := t.newest
		t.mu.Unlock()
		if !ok {
			continue
		}
		// Chosen is not enough: a value that was chosen after a newer epoch
		// is void, and nobody will ever apply it.
		if newest > 0 {
			if err := t.ledger.Confirm(ctx, t.o.Epoch, newest); err != nil {
				return err
			}
		}
		if err := send(p); err != nil {
			return err
		}
		t.mu.Lock()
		t.stats.Acks++
		t.notify()
		t.mu.Unlock()
	}
}

// backoff spaces out attempts: 20 ms, doubled up to 500 ms.
type backoff struct {
	next  time.Duration
	since time.Time
}

func newBackoff() *backoff {
	b := &backoff{}
	b.reset()
	return b
}

func (b *backoff) reset() { b.next, b.since = 20*time.Millisecond, time.Now() }

func (b *backoff) spent() time.Duration { return time.Since(b.since) }

func (b *backoff) wait(ctx context.Context) {
	timer := time.NewTimer(b.next)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	b.next = min(2*b.next, 500*time.Millisecond)
}
