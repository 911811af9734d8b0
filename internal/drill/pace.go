package drill

import (
	"context"
	"sync"
	"time"
)

// DefaultRate is how many operations per second all clients of a drill begin together.
// Three nodes, their servers and the clients then need about half a processor core while
// nothing is broken, so that what a drill measures is the faults and not the machine.
const DefaultRate = 120

// pacer spaces the operations of all clients. One that is nil spaces nothing. It is safe
// for concurrent use.
type pacer struct {
	every time.Duration

	mu   sync.Mutex
	next time.Time // when the next operation may begin
}

// newPacer spaces so many operations evenly over each second; 0: as they come.
func newPacer(rate int) *pacer {
	if rate <= 0 {
		return nil
	}
	return &pacer{every: time.Second / time.Duration(rate)}
}

// wait returns when it is the caller's turn, first come, first served. Turns that nobody
// took are not made up for.
func (p *pacer) wait(ctx context.Context) {
	if p == nil {
		return
	}
	wait(ctx, time.Until(p.turn(time.Now())))
}

func (p *pacer) turn(now time.Time) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	at := p.next
	if at.Before(now) {
		at = now
	}
	p.next = at.Add(p.every)
	return at
}
