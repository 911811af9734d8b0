package sim

import (
	"slices"
	"time"

	"github.com/phxsql/phxsql/paxos"
)

// Scenario is a script for real replicas: who can talk with whom, which messages
// are late, who proposes, crashes and starts. It waits for what must happen on the
// way, and ends like every schedule: all is healed, and must become well.
type Scenario struct {
	Name string
	Why  string // the story, and the mistake that it punishes

	members paxos.Members
	play    func(s *stage)
}

// FindScenario returns the scenario of a name.
func FindScenario(name string) (Scenario, bool) {
	k := slices.IndexFunc(Scenarios, func(s Scenario) bool { return s.Name == name })
	if k < 0 {
		return Scenario{}, false
	}
	return Scenarios[k], true
}

// Run plays the scenario. When blind, the judges that would see a fault before it
// does harm look away, so that only the harm itself is a violation.
func (sc Scenario) Run(blind, tracing bool) (Stats, *Violation) {
	w := newWorld(1, tracing)
	w.blind = blind
	return w.play(func() {
		w.p = quiet(len(sc.members.List))
		w.calm = true
		w.script = &stage{w: w}
		w.build(sc.members)
		sc.play(w.script)
		w.script = nil
		w.heal()
	})
}

// quiet is a world in which nothing happens by chance.
func quiet(nodes int) profile {
	return profile{
		members: nodes, lease: 900 * time.Millisecond, heartbeat: 100 * time.Millisecond, tick: 10 * time.Millisecond, clockError: 0.01,
		delayMin: time.Millisecond, delayMax: time.Millisecond, ordered: true, syncMin: time.Millisecond, syncMax: time.Millisecond,
		inflight: 1 << 20, message: 64 << 10, segment: 8 << 10,
	}
}

// stage is what a script acts on.
type stage struct {
	w    *world
	fate func(m *paxos.Message) fate // nil: everything arrives
	held []*paxos.Message
}

// fate is what becomes of a message on a link that is not cut.
type fate uint8

const (
	arrives fate = iota
	vanishes
	waits // until release
)

func (s *stage) passes(m *paxos.Message) bool {
	if s.fate == nil {
		return true
	}
	f := s.fate(m)
	if f == waits {
		c := *m
		s.held = append(s.held, &c)
	}
	return f == arrives
}

// release lets what waits arrive, and everything from now on.
func (s *stage) release() {
	held := s.held
	s.fate, s.held = nil, nil
	for _, m := range held {
		s.w.deliver(s.node(m.From), s.node(m.To), m, false)
	}
}

func (s *stage) node(id paxos.NodeID) *node { return s.w.node(id) }

// until goes on until something is true. It must become so.
func (s *stage) until(what string, true func() bool) {
	end := s.w.now + moment(20*time.Second)
	for !true() {
		if s.w.now > end {
			s.w.fail("script", "never: %s; %s", what, s.w.standing())
		}
		s.w.next()
	}
	if s.w.tracing {
		s.w.tracef("-- %s", what)
	}
}

// pass lets a time go by.
func (s *stage) pass(d time.Duration) {
	for end := s.w.now + moment(d); s.w.now < end; {
		s.w.next()
	}
}

// sides cuts the network: nodes of different sides cannot talk, and those that
// are on no side with nobody.
func (s *stage) sides(sides ...[]paxos.NodeID) {
	side := map[paxos.NodeID]int{}
	for k, list := range sides {
		for _, id := range list {
			side[id] = k + 1
		}
	}
	for i, a := range s.w.nodes {
		for j, b := range s.w.nodes {
			s.w.cut[i][j] = i != j && (side[a.id] == 0 || side[a.id] != side[b.id])
		}
	}
}

// candidates says who may lead.
func (s *stage) candidates(ids ...paxos.NodeID) {
	for _, n := range s.w.nodes {
		n.able = slices.Contains(ids, n.id)
		n.command(paxos.Event{Kind: paxos.EventCandidacy, Able: n.able})
	}
}

// elect makes a node the leader and lets all know what is chosen. It returns the
// newest instance.
func (s *stage) elect(id paxos.NodeID) paxos.Instance {
	s.candidates(id)
	s.until("all follow the first leader", func() bool {
		n := s.node(id)
		for _, m := range s.w.judge.members[s.w.judge.current].List {
			if s.node(m.ID).declared != n.declared || s.node(m.ID).lead.Leader != id {
				return false
			}
		}
		return n.lead.Ready && n.holdsLease()
	})
	return s.node(id).declared
}

// propose gives a value to a node and returns its number.
func (s *stage) propose(id paxos.NodeID) uint64 {
	n, b := s.node(id), s.w.judge.value(8)
	sum := sumOf(paxos.Normal, b)
	n.queue = append(n.queue, proposal{sum, b})
	n.wake()
	return sum
}

// change asks a leader for a membership.
func (s *stage) change(id paxos.NodeID, ms paxos.Members) {
	s.w.judge.wanted[sumOf(paxos.Membership, ms.Encode())] = true
	s.node(id).command(paxos.Event{Kind: paxos.EventMembers, Members: &ms})
}

// chooses waits until a node knows that an instance is chosen.
func (s *stage) chooses(id paxos.NodeID, i paxos.Instance) {
	s.until("it is chosen", func() bool { return s.node(id).declared >= i })
}

func (s *stage) leads(id paxos.NodeID) bool { return s.node(id).up && s.node(id).lead.Leader == id }

// restart ends a process and starts it again at once; its machine runs on.
func (s *stage) restart(id paxos.NodeID) {
	s.node(id).stop(false)
	s.w.restart(s.node(id))
}
