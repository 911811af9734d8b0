package agent

import (
	"context"
	"math"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/phxsql/phxsql/internal/api"
	"github.com/phxsql/phxsql/paxos"
)

// flowRun is a master and its followers in made-up time.
type flowRun struct {
	f      flow
	limit  time.Duration
	now    time.Time
	demand float64 // bytes per second that clients would write
	value  int     // bytes of one value
	speed  map[paxos.NodeID]float64
	// arriving is how many values there are from one place to the next at which it is known
	// that a member with new data is there.
	arriving map[paxos.NodeID]int
	late     int                        // how many steps old is what the others say
	was      map[paxos.NodeID][]float64 // applied, at each step

	free    time.Time // when the master can propose again
	written float64   // bytes
	due     float64   // demand that was not proposed yet
	count   paxos.Instance
	applied map[paxos.NodeID]float64 // values
	said    map[paxos.NodeID]standing
	turned  time.Time
	longest time.Duration
}

func newFlowRun(limit time.Duration) *flowRun {
	return &flowRun{limit: limit, now: time.Unix(1000, 0), value: 10_000, speed: map[paxos.NodeID]float64{},
		applied: map[paxos.NodeID]float64{}, was: map[paxos.NodeID][]float64{}, said: map[paxos.NodeID]standing{}}
}

const flowStep = 5 * time.Millisecond

// run lets time pass. Followers speak once a second.
func (r *flowRun) run(d time.Duration) {
	for end := r.now.Add(d); r.now.Before(end); r.now = r.now.Add(flowStep) {
		// Clients that wait do not write more meanwhile: at most one value is due.
		r.due = min(r.due, float64(r.value)) + r.demand*flowStep.Seconds()
		for r.due >= float64(r.value) && !r.free.After(r.now) {
			r.due -= float64(r.value)
			wait := r.f.hold(r.value, r.now)
			r.longest = max(r.longest, wait)
			r.free = r.now.Add(wait)
			r.count++
			r.written += float64(r.value)
			r.f.chosen(r.count, r.value)
		}
		for id, s := range r.speed {
			r.applied[id] = min(float64(r.count), r.applied[id]+s*flowStep.Seconds()/float64(r.value))
			r.was[id] = append(r.was[id], r.applied[id])
			if r.now.Sub(r.said[id].at) >= time.Second+time.Duration(id)*7*time.Millisecond {
				at := paxos.Instance(r.applied[id])
				step, arriving := r.arriving[id]
				if !arriving {
					at = paxos.Instance(r.was[id][max(0, len(r.was[id])-1-r.late)])
				} else {
					at -= at % paxos.Instance(step)
				}
				r.said[id] = standing{id: id, applied: at, at: r.now, able: !arriving, arriving: arriving}
			}
		}
		if r.now.Sub(r.turned) >= flowEvery {
			r.turned = r.now
			var list []standing
			for id := range r.speed {
				list = append(list, r.said[id])
			}
			r.f.turn(r.now, r.limit, list)
		}
	}
}

// lag is how long a follower would need for what it lacks.
func (r *flowRun) lag(id paxos.NodeID) time.Duration {
	return time.Duration((float64(r.count) - r.applied[id]) * float64(r.value) / r.speed[id] * float64(time.Second))
}

// rate is what the master writes in a second on the average of d.
func (r *flowRun) rate(d time.Duration) float64 {
	before := r.written
	r.run(d)
	return (r.written - before) / d.Seconds()
}

// A master that could write faster than its follower executes comes down to what the
// follower can, and the follower stays within the limit.
func TestFlowKeepsTheBestFollowerClose(t *testing.T) {
	for _, limit := range []time.Duration{2 * time.Second, 5 * time.Second, 30 * time.Second} {
		for _, times := range []float64{1.2, 3, 20} {
			r := newFlowRun(limit)
			r.speed[2], r.speed[3] = 4e6, 1e6 // the slower one does not matter
			r.demand = times * r.speed[2]
			r.run(2*time.Minute + 10*limit) // what came before the follower was heard of is executed
			most := time.Duration(0)
			before := r.written
			for range 100 {
				r.run(limit / 10)
				most = max(most, r.lag(2))
			}
			got := (r.written - before) / (10 * limit).Seconds()
			if most > limit*5/4 {
				t.Errorf("limit %v, %v times: %v behind", limit, times, most)
			}
			if got < 0.9*r.speed[2] || got > 1.1*r.speed[2] {
				t.Errorf("limit %v, %v times: writes %.0f bytes in a second, the follower executes %.0f", limit, times, got, r.speed[2])
			}
			if r.longest > flowHold {
				t.Errorf("a value waits for %v", r.longest)
			}
		}
	}
}

// Who keeps up is not waited for, however much is written.
func TestFlowCostsNothingWhileFollowersKeepUp(t *testing.T) {
	r := newFlowRun(5 * time.Second)
	r.speed[2], r.speed[3] = 10e6, 2e6
	r.demand = 9e6
	if got := r.rate(time.Minute); got < 8.9e6 || r.f.waited > 0 {
		t.Errorf("writes %.0f bytes in a second, waited %v", got, r.f.waited)
	}
	r.demand = 0 // nothing for a while, then a burst: what was idle is not late
	r.run(time.Minute)
	r.demand = 9e6
	if r.run(10 * time.Second); r.f.waited > 0 {
		t.Errorf("a burst waited %v", r.f.waited)
	}
}

// The rate follows a follower that becomes slower and faster, and in the end is free.
func TestFlowFollows(t *testing.T) {
	r := newFlowRun(5 * time.Second)
	r.speed[2], r.demand = 8e6, 20e6
	r.run(time.Minute)
	for _, speed := range []float64{2e6, 12e6, 4e6} {
		r.speed[2] = speed
		r.run(time.Minute)
		if got := r.rate(20 * time.Second); math.Abs(got-speed) > 0.15*speed || r.lag(2) > r.limit*5/4 {
			t.Errorf("follower at %.0f: writes %.0f, %v behind", speed, got, r.lag(2))
		}
	}
	r.speed[2] = 30e6
	r.run(30 * time.Second)
	waited := r.f.waited
	if got := r.rate(20 * time.Second); got < 19e6 || r.f.waited > waited {
		t.Errorf("a follower that keeps up again: writes %.0f, waited another %v", got, r.f.waited-waited)
	}
}

// Under a load that never lulls a member with new data comes near, from as far as a copy or
// the whole log leaves it behind, and stays there; commits get at least what is promised.
func TestFlowLetsNewDataCatchUp(t *testing.T) {
	for name, c := range map[string]struct {
		follower, arriving, demand float64 // bytes per second
		behind                     time.Duration
		least                      float64 // what is written at least
	}{
		"like the follower":      {4e6, 4e6, 20e6, time.Minute, 3e6},
		"a little slower":        {4e6, 3e6, 20e6, time.Minute, 2.2e6},
		"beyond all marks":       {4e6, 4e6, 20e6, 3 * time.Minute, 3e6},
		"the first follower":     {0, 3e6, 10e6, time.Minute, 2.2e6},
		"all keep up but for it": {10e6, 5e6, 6e6, time.Minute, 3.6e6},
	} {
		r := newFlowRun(5 * time.Second)
		if r.speed[2] = c.follower; c.follower == 0 {
			delete(r.speed, 2)
		}
		r.demand = c.demand
		r.run(time.Minute)
		r.speed[4], r.arriving = c.arriving, map[paxos.NodeID]int{4: 400}
		r.applied[4] = float64(r.count) - c.behind.Seconds()*c.arriving/float64(r.value)
		before, began := r.written, r.now
		for r.lag(4) > nearLag && r.now.Sub(began) < 8*c.behind {
			r.run(time.Second)
		}
		took := r.now.Sub(began)
		t.Logf("%s: %v behind, near after %v", name, c.behind, took)
		if r.lag(4) > nearLag {
			t.Errorf("%s: still %v behind after %v", name, r.lag(4), took)
		}
		if got := (r.written - before) / took.Seconds(); got < c.least || got > c.arriving {
			t.Errorf("%s: writes %.0f bytes in a second meanwhile", name, got)
		}
		r.arriving[4] = 1
		for range 60 { // its rows are compared, and it gets its role
			if r.run(time.Second); r.lag(4) > nearLag {
				t.Fatalf("%s: %v behind after it was near", name, r.lag(4))
			}
		}
		if r.longest > flowHold {
			t.Errorf("%s: a value waits for %v", name, r.longest)
		}
	}
}

// Commits are not held up for a member with new data that gets on so slowly that they
// would become less than half as fast, nor for one that does not get on at all.
func TestFlowDoesNotWaitForSlowNewData(t *testing.T) {
	r := newFlowRun(5 * time.Second)
	r.speed[2], r.demand = 6e6, 20e6
	r.run(2 * time.Minute)
	for _, speed := range []float64{1e6, 0} {
		r.speed[4], r.arriving = speed, map[paxos.NodeID]int{4: 400}
		r.run(arrivingStuck + 10*time.Second) // it is seen
		if got := r.rate(2 * time.Minute); got < 0.9*r.speed[2] || r.f.waits != 0 {
			t.Errorf("new data at %.0f: writes %.0f bytes in a second, waits for %d", speed, got, r.f.waits)
		}
	}
}

// Commits get half of what the best follower can do, also when a member with new data gets
// slower and slower, and when what the follower says is so old that it seems to have
// something to execute all the time.
func TestFlowKeepsItsBoundForNewDataThatGetSlower(t *testing.T) {
	for _, late := range []time.Duration{0, 1200 * time.Millisecond} {
		for _, demand := range []float64{5e6, 20e6} {
			r := newFlowRun(5 * time.Second)
			r.speed[2], r.demand, r.late = 6e6, demand, int(late/flowStep)
			r.run(2 * time.Minute)
			r.speed[4], r.arriving = 5e6, map[paxos.NodeID]int{4: 400}
			r.applied[4] = float64(r.count) - 120*r.speed[4]/float64(r.value)
			r.run(40 * time.Second)
			for range 25 {
				r.speed[4] *= 0.8
				if got, want := r.rate(10*time.Second), 0.45*min(r.speed[2], demand); got < want {
					t.Errorf("%v late, demand %.0f, new data at %.0f: writes %.0f bytes in a second, want %.0f", late, demand, r.speed[4], got, want)
				}
			}
			if r.f.held.IsZero() {
				t.Errorf("%v late, demand %.0f: it is not waited for at all", late, demand)
			}
		}
	}
}

// Nobody waits for a follower that slower commits would not help: one that is dead, that
// is stuck, or that comes back from far away. When it is near again, it counts.
func TestFlowDoesNotWaitInVain(t *testing.T) {
	r := newFlowRun(5 * time.Second)
	r.speed[2], r.demand = 4e6, 10e6
	r.run(time.Minute)
	delete(r.speed, 2) // it is dead
	waited := func(d time.Duration) time.Duration {
		before := r.f.waited
		r.run(d)
		return r.f.waited - before
	}
	r.run(flowEvery)
	if d := waited(5 * time.Minute); d > 0 {
		t.Errorf("without any follower commits were held up for %v", d)
	}
	r.speed[2] = 100e6 // it is back, 5 minutes behind, and catches up
	if d := waited(10 * time.Second); d > 0 {
		t.Errorf("for one that is far away commits were held up for %v", d)
	}
	r.run(2 * time.Minute)
	r.speed[2] = 4e6
	r.run(time.Minute)
	if r.f.rate.Load() == 0 {
		t.Error("one that is back is not waited for")
	}
	r.speed[2] = 0 // a huge transaction
	r.run(flowStuck + 2*time.Second)
	if d := waited(time.Minute); d > 0 {
		t.Errorf("for one that is stuck commits were held up for %v", d)
	}
	r.speed[3], r.applied[3] = 20e6, float64(r.count) // another one keeps up
	if d := waited(time.Minute); d > 0 {
		t.Errorf("with one that keeps up commits were held up for %v", d)
	}
}

// A follower that has never had much to do has not shown what it can do. A burst is not
// held up for that.
func TestFlowLetsABurstThrough(t *testing.T) {
	r := newFlowRun(5 * time.Second)
	r.speed[2] = 10e6
	for _, trickle := range []float64{1e3, 1e5, 1e3} {
		r.demand = trickle
		r.run(30 * time.Second)
		waited := r.f.waited
		r.demand = 15e6
		if got := r.rate(2 * time.Second); got < 12e6 {
			t.Errorf("after %.0f bytes in a second, a burst writes %.0f, waited %v, behind %v", trickle, got, r.f.waited-waited, r.lag(2))
		}
	}
}

// In a later term, too, nobody waits for a follower that comes back from far away: what
// this node wrote as a master before does not make it close.
func TestFlowOfALaterTerm(t *testing.T) {
	r := newFlowRun(5 * time.Second)
	r.speed[2], r.demand = 10e6, 2e6
	r.run(time.Minute)
	r.f.reset()
	r.count += 300_000 // by another master, while the follower was down
	r.speed[2], r.demand = 5e6, 0
	r.run(time.Second) // it opens its gate
	r.demand = 20e6
	if r.run(30 * time.Second); r.f.waited > 0 {
		t.Errorf("for one that is far away commits were held up for %v", r.f.waited)
	}
}

// Even while a follower executes next to nothing commits go on.
func TestFlowNeverStops(t *testing.T) {
	r := newFlowRun(2 * time.Second)
	r.value = 8 << 20
	r.speed[2], r.demand = 1e6, 1e9
	r.run(5 * time.Second)
	if got := r.rate(8 * time.Second); r.longest > flowHold || got < float64(r.value)/flowHold.Seconds()/2 {
		t.Errorf("%.0f bytes in a second, a value waits for %v", got, r.longest)
	}
	r.f.reset()
	if d := r.f.hold(1<<30, r.now); d != 0 {
		t.Errorf("after the reset a value waits for %v", d)
	}
}

// Who could be the next master is waited for: a member whose new data are being compared
// only while there is no other one.
func TestStandings(t *testing.T) {
	now := time.Unix(1000, 0)
	list := []paxos.Member{{ID: 1, Role: paxos.Voter}, {ID: 2, Role: paxos.Voter}, {ID: 3, Role: paxos.Voter}, {ID: 4, Role: paxos.Learner}, {ID: 5, Role: paxos.Witness}}
	says := func(state api.State, able bool) announcement {
		return announcement{Boot: "b", Seq: 1, Able: able, Member: api.MemberStatus{State: state}}
	}
	master, good, proving := says(api.StateMaster, true), says(api.StateFollower, true), says(api.StateProving, false)
	ill := says(api.StateFollower, false)
	copying := says(api.StateStarting, true)
	copying.Member.Copy = &api.Copy{}
	for _, c := range []struct {
		two, three announcement
		age        time.Duration
		want       []paxos.NodeID
	}{
		{good, good, 0, []paxos.NodeID{2, 3}},
		{good, proving, 0, []paxos.NodeID{2}},
		{ill, proving, 0, []paxos.NodeID{3}},
		{copying, proving, 0, []paxos.NodeID{3}},
		{copying, ill, 0, nil},
		{good, proving, aliveFor, nil},
	} {
		p := newPeers()
		for id, an := range map[paxos.NodeID]announcement{1: master, 2: c.two, 3: c.three, 4: good, 5: good} {
			p.put(id, an, now.Add(-c.age))
		}
		var got []paxos.NodeID
		for _, s := range p.standings(list, 1, now) {
			if s.able {
				got = append(got, s.id)
			}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("2 is %s and 3 is %s: waited for %v, want %v", c.two.Member.State, c.three.Member.State, got, c.want)
		}
	}
}

// Who has new data, or waits for its role, counts for itself, whatever its role is.
func TestStandingsOfThoseThatArrive(t *testing.T) {
	now := time.Unix(1000, 0)
	list := []paxos.Member{{ID: 1, Role: paxos.Voter}, {ID: 2, Role: paxos.Voter}, {ID: 3, Role: paxos.Voter}, {ID: 4, Role: paxos.Learner}, {ID: 5, Role: paxos.Learner}}
	p := newPeers()
	for id, an := range map[paxos.NodeID]announcement{
		2: {Able: true, Member: api.MemberStatus{State: api.StateFollower}},
		3: {Arriving: true, Member: api.MemberStatus{State: api.StateProving}},
		4: {Arriving: true, Member: api.MemberStatus{State: api.StateStarting, Copy: &api.Copy{}}},
		5: {Member: api.MemberStatus{State: api.StateFollower}},
	} {
		an.Seq = 1
		p.put(id, an, now)
	}
	want := []standing{{id: 2, at: now, able: true}, {id: 3, at: now, arriving: true}, {id: 4, at: now, arriving: true}}
	if got := p.standings(list, 1, now); !slices.Equal(got, want) {
		t.Errorf("got %+v", got)
	}
	p.put(2, announcement{Seq: 2, Member: api.MemberStatus{State: api.StateFollower}}, now)
	want = []standing{{id: 3, at: now, able: true, arriving: true}, {id: 4, at: now, arriving: true}}
	if got := p.standings(list, 1, now); !slices.Equal(got, want) {
		t.Errorf("nobody has proved data: got %+v", got)
	}
}

// proposals is a log that chooses everything at once.
type proposals struct{ n paxos.Instance }

func (p *proposals) Propose(_ []byte, done func(paxos.Instance, error)) error {
	p.n++
	done(p.n, nil)
	return nil
}

// Values wait on their way into the log, but not when the master gives its role away,
// nor when the node ends.
func TestThrottledProposals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, end := context.WithCancel(t.Context())
		f, open := &flow{}, true
		p := throttled{&proposals{}, f, func() bool { return open }, ctx}
		propose := func() time.Duration {
			began := time.Now()
			if err := p.Propose(make([]byte, 100<<10), func(paxos.Instance, error) {}); err != nil {
				t.Fatal(err)
			}
			return time.Since(began)
		}
		if d := propose(); d != 0 {
			t.Errorf("without a rate a value waits %v", d)
		}
		f.rate.Store(1 << 20)
		total := time.Duration(0)
		for range 100 {
			d := propose()
			if total += d; d > flowHold {
				t.Errorf("a value waits %v", d)
			}
		}
		if total < 9*time.Second || total > 10*time.Second {
			t.Errorf("10 MB at 1 MB/s took %v", total)
		}
		if f.newest != (mark{through: 101, bytes: 101 * 100 << 10}) {
			t.Errorf("counted %+v", f.newest)
		}
		f.rate.Store(flowLeast)
		if d := propose(); d < flowHold/2 {
			t.Errorf("at the lowest rate a value waits %v", d)
		}
		open = false
		if d := propose(); d != 0 {
			t.Errorf("while the master drains a value waits %v", d)
		}
		open = true
		end()
		if d := propose(); d != 0 {
			t.Errorf("at the end a value waits %v", d)
		}
	})
}
