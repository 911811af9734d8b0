package agent

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/phxsql/phxsql/paxos"
)

// A node that gives a copy of its data sends at most copy.rate, and less while commits
// on the master take longer than they did before the copy.
const (
	paceEvery = time.Second
	// paceBurst is how long a copy may be ahead of its rate.
	paceBurst = 50 * time.Millisecond
	// paceFirst, paceStep and paceLeast are parts of copy.rate: what a copy begins with,
	// what is added while commits are quick, and what is never withheld, so that every
	// copy ends.
	paceFirst, paceStep, paceLeast = 4, 10, 16
	// paceSlack and paceGrace say how much longer commits may take: a tenth, and what
	// the measurement itself is uncertain by.
	paceSlack = 10
	paceGrace = 300 * time.Microsecond
	// paceMemory is the weight of the past in what commits usually take.
	paceMemory = 16
)

// pacer limits the bytes that all copies of this node's data take together. It is safe
// for concurrent use.
type pacer struct {
	mu    sync.Mutex
	most  int64 // bytes per second
	rate  int64
	usual time.Duration // what commits take without a copy; 0: not known
	ahead time.Time     // when what was let through would be through at the rate
	given int           // copies under way
}

func newPacer(most int64) *pacer { return &pacer{most: most, rate: most / paceFirst} }

// limit changes the most, for copies under way, too.
func (p *pacer) limit(most int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if most != p.most {
		p.most, p.rate = most, most/paceFirst
	}
}

// begin and end tell of a connection that a copy goes over.
func (p *pacer) begin() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.given++; p.given == 1 {
		p.rate, p.ahead = p.most/paceFirst, time.Time{}
	}
}

func (p *pacer) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.given--
}

// learn takes in how long commits take on the master now; 0 says that it is not known.
func (p *pacer) learn(commit time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case commit == 0:
	case p.given > 0:
		p.adapt(commit)
	case p.usual == 0:
		p.usual = commit
	default:
		p.usual += (commit - p.usual) / paceMemory
	}
}

func (p *pacer) adapt(commit time.Duration) {
	if p.usual > 0 && commit > p.usual+p.usual/paceSlack+paceGrace {
		p.rate = max(p.most/paceLeast, p.rate/4*3)
		return
	}
	p.rate = min(p.most, p.rate+p.most/paceStep)
}

// wait returns how long the bytes have to wait, and counts them.
func (p *pacer) wait(n int, now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if early := now.Add(-paceBurst); p.ahead.Before(early) {
		p.ahead = early
	}
	p.ahead = p.ahead.Add(time.Duration(float64(n) / float64(p.rate) * float64(time.Second)))
	return max(0, p.ahead.Sub(now))
}

// current is the present rate in bytes per second.
func (p *pacer) current() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.rate
}

// paced is a connection to the local server that a copy of its data comes from.
type paced struct {
	net.Conn
	ctx  context.Context
	p    *pacer
	once sync.Once
}

func (p *pacer) pace(ctx context.Context, c net.Conn) net.Conn {
	p.begin()
	return &paced{Conn: c, ctx: ctx, p: p}
}

func (c *paced) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n == 0 {
		return n, err
	}
	if d := c.p.wait(n, time.Now()); d > 0 {
		_ = rest(c.ctx, d) // the copy itself notices its end
	}
	return n, err
}

func (c *paced) Close() error {
	c.once.Do(c.p.end)
	return c.Conn.Close()
}

// watchPace keeps the pacer informed until ctx ends.
func (a *Agent) watchPace(ctx context.Context) {
	t := time.NewTicker(paceEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-t.C:
			a.commits.turn()
			a.pacer.learn(a.commitTime(now))
		}
	}
}

// commitTime is how long commits take on the master, as it says; 0 if nobody says.
func (a *Agent) commitTime(now time.Time) time.Duration {
	id := a.master()
	if id == a.cfg.Node.ID {
		return a.commits.recent()
	}
	an, _, _ := a.peers.get(id, now)
	return time.Duration(an.Member.Commit)
}

// commitMeter measures how long values of the master wait for a majority. It is safe
// for concurrent use.
type commitMeter struct {
	mu   sync.Mutex
	now  [commitBuckets]uint32
	last time.Duration
}

// commitBuckets cover 16 µs to about a minute, some for each doubling.
const (
	commitParts   = 16
	commitBuckets = 22 * commitParts
	commitFirst   = 16 * time.Microsecond
)

func bucketOf(d time.Duration) int {
	b, limit := 0, commitFirst
	for d >= 2*limit && b < commitBuckets-commitParts {
		b, limit = b+commitParts, 2*limit
	}
	return min(commitBuckets-1, b+int(max(0, d-limit)*commitParts/limit))
}

func bucketStart(b int) time.Duration {
	limit := commitFirst << (b / commitParts)
	return limit + limit*time.Duration(b%commitParts)/commitParts
}

func (m *commitMeter) note(d time.Duration) {
	b := bucketOf(d)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now[b]++
}

// turn ends a second of measurement.
func (m *commitMeter) turn() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.last = m.percentile(95)
	m.now = [commitBuckets]uint32{}
}

// percentile is 0 when there is nothing; mu is held.
func (m *commitMeter) percentile(p uint32) time.Duration {
	total := uint32(0)
	for _, n := range m.now {
		total += n
	}
	left := total - total*p/100
	for b := commitBuckets - 1; b >= 0 && total > 0; b-- {
		if m.now[b] >= left {
			return bucketStart(b)
		}
		left -= m.now[b]
	}
	return 0
}

// recent is what 95 of 100 values of the last second took at most; 0 if there were none.
func (m *commitMeter) recent() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.last
}

// measured is a log that a master proposes to, with a look at the time.
type measured struct {
	log interface {
		Propose(data []byte, done func(paxos.Instance, error)) error
	}
	meter *commitMeter
}

// Propose queues a value; see relay.Proposer.
func (m measured) Propose(data []byte, done func(paxos.Instance, error)) error {
	began := time.Now()
	return m.log.Propose(data, func(i paxos.Instance, err error) {
		if err == nil {
			m.meter.note(time.Since(began))
		}
		done(i, err)
	})
}

// rest waits for d, or until ctx ends, and returns its error then.
func rest(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
