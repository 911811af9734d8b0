package semisync

import "fmt"

// Tracker follows what one server has sent and how much of it is chosen, over
// all connections to that server process. It is not safe for concurrent use.
type Tracker struct {
	sent   Position // newest position received from the server
	chosen Position // newest position through which everything is chosen
	acked  Position // newest position acknowledged on this connection

	// pending are the ends of values on their way, oldest first. A value
	// that carries no position of its own (a chunk that is not the last) has
	// the zero one.
	pending []Position
	head    int // pending[:head] are done
}

// Sent says that the server has sent everything up to p. Going back is normal:
// the server sends again after a reconnect.
func (t *Tracker) Sent(p Position) {
	if p.After(t.sent) {
		t.sent = p
	}
}

// Propose says that a value which ends at p is on its way. P is zero when the
// value completes nothing.
func (t *Tracker) Propose(p Position) {
	if p.After(t.sent) {
		panic(fmt.Sprintf("semisync: propose %v, only %v was sent", p, t.sent))
	}
	t.pending = append(t.pending, p)
}

// Skip says that what ends at p is in the log already: it is chosen as soon as
// everything before it is.
func (t *Tracker) Skip(p Position) {
	if p.After(t.sent) {
		panic(fmt.Sprintf("semisync: skip %v, only %v was sent", p, t.sent))
	}
	if t.head == len(t.pending) {
		t.advance(p)
		return
	}
	if last := &t.pending[len(t.pending)-1]; p.After(*last) {
		*last = p
	}
}

// Done says that the oldest value on its way is chosen.
func (t *Tracker) Done() {
	if t.head == len(t.pending) {
		panic("semisync: a value is done that was not proposed")
	}
	t.advance(t.pending[t.head])
	t.head++
	switch {
	case t.head == len(t.pending):
		t.pending, t.head = t.pending[:0], 0
	case t.head >= 1024 && t.head*2 >= len(t.pending):
		t.pending = t.pending[:copy(t.pending, t.pending[t.head:])]
		t.head = 0
	}
}

func (t *Tracker) advance(p Position) {
	if p.After(t.chosen) {
		t.chosen = p
	}
}

// Next returns the position to acknowledge, and false when the newest one that
// may be acknowledged has been. The caller sends what it gets.
func (t *Tracker) Next() (Position, bool) {
	if !t.chosen.After(t.acked) {
		return Position{}, false
	}
	t.acked = t.chosen
	return t.acked, true
}

// Reconnected says that a new connection to the same server process begins. The
// newest chosen position is acknowledged again: the answer may have been lost
// with the old connection, and the server does not ask twice for what the
// replica says it has.
func (t *Tracker) Reconnected() { t.acked = Position{} }

// Drained reports whether everything that the server has sent is chosen and
// acknowledged.
func (t *Tracker) Drained() bool {
	return t.head == len(t.pending) && t.acked == t.sent
}

// InFlight is the number of values on their way.
func (t *Tracker) InFlight() int { return len(t.pending) - t.head }

// Positions returns the newest positions sent, chosen and acknowledged.
func (t *Tracker) Positions() (sent, chosen, acked Position) { return t.sent, t.chosen, t.acked }
