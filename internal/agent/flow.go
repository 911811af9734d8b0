package agent

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/phxsql/phxsql/internal/api"
	"github.com/phxsql/phxsql/internal/cluster"
	"github.com/phxsql/phxsql/internal/relay"
	"github.com/phxsql/phxsql/internal/telemetry"
	"github.com/phxsql/phxsql/paxos"
)

// A master writes with many threads what a follower may be slower to execute. What the
// best follower has not executed yet is what clients wait for after a failover. So the
// master takes in no more, in the long run, than the best follower can execute, once that
// one is flow.max_lag behind: its transactions are held up, each a little, on their way
// into the log. How far a follower is behind is how long it would need to execute what it
// lacks, at the speed that it has shown.
//
// A member with new data has more to catch up with than the others, and nobody waits for
// it as long as it is far away. Under a load that never lulls it would stay there, because
// what is taken in is as much as another one like it can execute, or more. So the master
// takes in a little less than such a member executes, until it is near; not if that would
// be less than half of what the best follower can do.

const (
	flowEvery = 250 * time.Millisecond // how often it is looked how far the followers are
	// flowHold is the longest time for which one value of the log is held up. So commits
	// become slow and never stop: all that wait go on with the next value.
	flowHold = 200 * time.Millisecond
	// flowBurst is how long the master may be ahead of its rate.
	flowBurst = 20 * time.Millisecond
	// flowLeast is the lowest rate, in bytes per second.
	flowLeast = 64 << 10
	// flowAim is what part of the limit the lag comes to when the master could always
	// write more. Below flowFree of the limit nothing is held up.
	flowAim, flowFree = 0.8, 0.1
	// flowSlow and flowFast bound the rate, in parts of what the follower executes.
	flowSlow, flowFast = 0.5, 8
	// arrivingLag is what the lag of a member with new data comes to, times flowAim: it can
	// be compared and get its role, see nearLag. arrivingSlow is flowSlow for it:
	// from L behind it is near after 5 L. arrivingStuck is flowStuck for it, and its rate is
	// measured over arrivingLook: how far one is that is far away is known in steps of a
	// few megabytes.
	arrivingLag   = nearLag / 2
	arrivingSlow  = 0.8
	arrivingStuck = 30 * time.Second
	arrivingLook  = 5 * time.Second
	// flowStuck is how long a follower may execute nothing at all before nobody waits for
	// it: slower commits would not help one that is in a huge transaction.
	flowStuck = 4 * time.Second
	// flowBusy is for how long it is known what a follower can do that is not busy any more.
	flowBusy = 10 * time.Second
	// flowMarks is how many marks there are for each limit's length of time, and flowPast
	// for how many of these lengths they are kept. Who is further behind counts as if it
	// were there.
	flowMarks, flowPast = 32, 12
)

// mark says how far the log was at a moment.
type mark struct {
	at      time.Time
	through paxos.Instance
	bytes   int64 // of all values through it, counted from somewhere
}

// standing is how far a follower was.
type standing struct {
	id       paxos.NodeID
	applied  paxos.Instance
	at       time.Time // when it said so
	able     bool      // it could be the next master
	arriving bool      // it has new data, or waits for its role
}

// follower is what is remembered of one.
type follower struct {
	standing
	moved time.Time // when it last got on, or had nothing to do
	from  standing  // where the present measurement of its rate begins
	rate  float64   // bytes per second that it executes, at least
	// busy is when it last had something to execute all the time: then rate is all that it
	// can do. Of one that keeps up nobody knows what it could do.
	busy time.Time
	lag  time.Duration
	near bool // it was close once since it is known: until then nobody waits for it
}

// known reports that it cannot do more than its rate.
func (m *follower) known() bool { return !m.busy.IsZero() && m.at.Sub(m.busy) < flowBusy }

// flow limits what the master takes in. It is safe for concurrent use.
type flow struct {
	rate atomic.Int64 // bytes per second; 0: no limit

	mu        sync.Mutex
	newest    mark // without its time
	marks     []mark
	dropped   bool // the first marks of the term are gone
	followers map[paxos.NodeID]*follower
	ahead     time.Time     // when what was let through would be through at the rate
	lag       time.Duration // of the best follower
	waits     paxos.NodeID  // the member with new data that the rate is for; 0: the best follower
	held      time.Time     // when it last was for one; zero: never
	waited    time.Duration // in all
}

// chosen counts a value that was chosen.
func (f *flow) chosen(i paxos.Instance, n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.newest.through, f.newest.bytes = i, f.newest.bytes+int64(n)
}

// hold returns for how long a value of n bytes has to wait, and counts it.
func (f *flow) hold(n int, now time.Time) time.Duration {
	rate := f.rate.Load()
	if rate == 0 {
		return 0
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if early := now.Add(-flowBurst); f.ahead.Before(early) {
		f.ahead = early
	}
	f.ahead = f.ahead.Add(time.Duration(float64(n) / float64(rate) * float64(time.Second)))
	if most := now.Add(flowHold); f.ahead.After(most) {
		f.ahead = most
	}
	d := max(0, f.ahead.Sub(now))
	f.waited += d
	return d
}

// reset forgets everything that belongs to one term of a master.
func (f *flow) reset() {
	f.rate.Store(0)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.newest, f.marks, f.dropped, f.followers, f.lag, f.waits, f.held, f.ahead = mark{}, nil, false, nil, 0, 0, time.Time{}, time.Time{}
}

// turn looks how far the followers are and sets the rate.
func (f *flow) turn(now time.Time, limit time.Duration, list []standing) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.note(now, limit)
	f.hear(limit, list)
	best := f.least(func(m *follower) bool { return m.able && m.near && m.at.Sub(m.moved) <= flowStuck })
	next := f.least(func(m *follower) bool { return m.arriving && m.at.Sub(m.moved) <= arrivingStuck })
	f.lag, f.waits = 0, 0
	rate, least := int64(0), int64(0)
	if best != nil {
		f.lag, rate, least = best.lag, best.allows(limit, flowSlow), int64(flowSlow*best.rate)
	}
	if next != nil {
		if r := next.allows(arrivingLag, arrivingSlow); r > least && (rate == 0 || r < rate) {
			rate, f.waits, f.held = r, next.id, now
		}
	}
	f.rate.Store(rate)
}

// allows is the rate at which a follower's lag comes to flowAim of a limit: at least slow
// times what it executes. 0: any.
func (m *follower) allows(limit time.Duration, slow float64) int64 {
	part := float64(m.lag) / float64(limit)
	if part < flowFree || !m.known() {
		return 0
	}
	return max(flowLeast, int64(m.rate*min(flowFast, max(slow, flowAim/part))))
}

// note sets a mark when it is time for one, and drops those that nobody needs; mu is held.
func (f *flow) note(now time.Time, limit time.Duration) {
	last := len(f.marks) - 1
	m := mark{now, f.newest.through, f.newest.bytes}
	switch {
	case m.through == 0: // nothing was chosen yet
	case last >= 0 && f.marks[last].through == m.through:
		f.marks[last].at = now // nothing came: what comes is younger
	case last < 0 || now.Sub(f.marks[last].at) >= limit/flowMarks:
		f.marks = append(f.marks, m)
	}
	old := now.Add(-flowPast * limit)
	if k := slices.IndexFunc(f.marks, func(m mark) bool { return !m.at.Before(old) }); k > 0 {
		f.marks, f.dropped = slices.Delete(f.marks, 0, k), true
	}
}

// hear takes in what the followers say, and forgets those that say nothing; mu is held.
func (f *flow) hear(limit time.Duration, list []standing) {
	known := map[paxos.NodeID]*follower{}
	for _, s := range list {
		m := f.followers[s.id]
		if m == nil {
			m = &follower{standing: s, moved: s.at, from: s}
		}
		f.judge(m, s, limit)
		known[s.id] = m
	}
	f.followers = known
}

// least is the follower that is least behind of those that suit, nil if there is none; mu
// is held.
func (f *flow) least(suits func(*follower) bool) *follower {
	var best *follower
	for _, m := range f.followers {
		if suits(m) && (best == nil || m.lag < best.lag || m.lag == best.lag && m.id < best.id) {
			best = m
		}
	}
	return best
}

// judge takes in what a follower says; mu is held.
func (f *flow) judge(m *follower, s standing, limit time.Duration) {
	if len(f.marks) == 0 {
		m.standing, m.from, m.moved = s, s, s.at
		return
	}
	look := time.Duration(1)
	if s.arriving {
		look = arrivingLook
	}
	done := f.bytesAt(s.applied)
	lacks := f.bytesBy(s.at) - done
	if passed := s.at.Sub(m.from.at); passed >= look && s.applied > m.applied {
		rate, began := (done-f.bytesAt(m.from.applied))/passed.Seconds(), m.from.at
		m.from = s
		known := m.known()
		if done <= f.bytesBy(m.at) {
			m.busy = s.at
		}
		switch {
		case !s.arriving && !began.After(f.held) && m.lag < time.Duration(flowAim*float64(limit)):
			m.rate = max(m.rate, rate) // it was given no more, for another one's sake
		case m.busy.Equal(s.at) && known:
			m.rate += (rate - m.rate) / 2
		case m.busy.Equal(s.at), rate > m.rate:
			m.rate = rate
		}
	}
	if s.applied > m.applied || lacks <= 0 {
		m.moved = s.at
	}
	if lacks <= 0 {
		m.from = s
	}
	m.standing, m.lag = s, 0
	switch {
	case lacks > 0 && m.known():
		m.lag = time.Duration(min(lacks/m.rate, float64(flowPast*limit)/float64(time.Second)) * float64(time.Second))
	case lacks > 0: // as if it executed as fast as it came
		m.lag = max(0, s.at.Sub(f.timeAt(s.applied)))
	}
	// In a term's first time, all that it has executed of the term makes it close.
	m.near = m.near || s.applied >= f.marks[0].through && (!f.dropped || m.lag <= limit)
}

// bytesAt is how many bytes there are through an instance; mu is held, there is a mark.
// Before the first mark all instances count as large as those behind it.
func (f *flow) bytesAt(i paxos.Instance) float64 {
	if first, last := f.marks[0], f.marks[len(f.marks)-1]; i < first.through && first.through < last.through {
		each := float64(last.bytes-first.bytes) / float64(last.through-first.through)
		return float64(first.bytes) - each*float64(first.through-i)
	}
	k, _ := slices.BinarySearchFunc(f.marks, i, func(m mark, i paxos.Instance) int { return cmpInstance(m.through, i) })
	a, b := f.around(k)
	if i <= a.through || b.through == a.through {
		return float64(a.bytes)
	}
	return within(a, b, float64(i-a.through)/float64(b.through-a.through))
}

// timeAt is when the log came to an instance; mu is held, there is a mark.
func (f *flow) timeAt(i paxos.Instance) time.Time {
	k, _ := slices.BinarySearchFunc(f.marks, i, func(m mark, i paxos.Instance) int { return cmpInstance(m.through, i) })
	a, b := f.around(k)
	if i <= a.through || b.through == a.through {
		return a.at
	}
	return a.at.Add(time.Duration(min(1, float64(i-a.through)/float64(b.through-a.through)) * float64(b.at.Sub(a.at))))
}

// bytesBy is how many bytes there were at a moment; mu is held, there is a mark.
func (f *flow) bytesBy(at time.Time) float64 {
	k, _ := slices.BinarySearchFunc(f.marks, at, func(m mark, at time.Time) int { return m.at.Compare(at) })
	a, b := f.around(k)
	if !at.After(a.at) || !b.at.After(a.at) {
		return float64(a.bytes)
	}
	return within(a, b, at.Sub(a.at).Seconds()/b.at.Sub(a.at).Seconds())
}

// around are the marks before and at a place, those at the ends beyond them.
func (f *flow) around(k int) (a, b mark) {
	last := len(f.marks) - 1
	return f.marks[min(max(k-1, 0), last)], f.marks[min(k, last)]
}

func within(a, b mark, part float64) float64 {
	return float64(a.bytes) + min(1, part)*float64(b.bytes-a.bytes)
}

// status is what the flow does now; nil if nothing is held up and nothing ever was.
func (f *flow) status() *api.Flow {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.waited == 0 && f.lag == 0 {
		return nil
	}
	return &api.Flow{Lag: api.Seconds(f.lag), Rate: f.rate.Load(), For: f.waits, Waited: api.Seconds(f.waited)}
}

// watchFlow keeps the flow informed until ctx ends.
func (a *Agent) watchFlow(ctx context.Context) {
	t := time.NewTicker(flowEvery)
	defer t.Stop()
	limited := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		limit := a.settled().Flow.MaxLag.D()
		if limit == 0 || !a.takesIn() {
			a.flow.reset()
		} else {
			now := time.Now()
			a.flow.turn(now, limit, a.standings(now))
		}
		if now := a.flow.rate.Load() != 0; now != limited {
			limited = now
			a.log.Debug("flow limit changed", telemetry.KeyState, limited)
		}
	}
}

// takesIn reports that this node is the master and clients may write.
func (a *Agent) takesIn() bool {
	s := a.loop.last.Load()
	return s != nil && s.view.Gate == cluster.GateOpen
}

// standings are those of the followers that may be waited for.
func (a *Agent) standings(now time.Time) []standing {
	return a.peers.standings(a.group.Leader().Members.List, a.cfg.Node.ID, now)
}

// standings are those of the members but self that could be the next master, with proved
// data if there is one, else those that would lead rather than nobody; and of those that
// have new data.
func (p *peers) standings(list []paxos.Member, self paxos.NodeID, now time.Time) []standing {
	var out []standing
	var proving []int // of them
	proved := false
	for _, m := range list {
		an, age, ok := p.get(m.ID, now)
		if m.ID == self || !ok || age >= aliveFor {
			continue
		}
		s := standing{id: m.ID, applied: an.Member.Log.Applied, at: now.Add(-age), arriving: an.Arriving}
		switch voter := m.Role == paxos.Voter; {
		case voter && an.Member.State == api.StateProving:
			proving = append(proving, len(out))
		case voter && an.Able && an.Member.Copy == nil:
			s.able, proved = true, true
		case !s.arriving:
			continue
		}
		out = append(out, s)
	}
	for _, k := range proving {
		out[k].able = !proved
	}
	return out
}

// throttled is a log that a master proposes to, no faster than the flow allows. What is
// under way when the master gives its role away is not held up.
type throttled struct {
	log     relay.Proposer
	flow    *flow
	takesIn func() bool
	end     context.Context
}

// Propose queues a value; see relay.Proposer.
func (p throttled) Propose(data []byte, done func(paxos.Instance, error)) error {
	if p.flow.rate.Load() != 0 && p.takesIn() {
		t := time.NewTimer(p.flow.hold(len(data), time.Now()))
		select {
		case <-t.C:
		case <-p.end.Done():
			t.Stop()
		}
	}
	return p.log.Propose(data, func(i paxos.Instance, err error) {
		if err == nil {
			p.flow.chosen(i, len(data))
		}
		done(i, err)
	})
}
