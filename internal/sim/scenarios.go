package sim

import (
	"time"

	"github.com/phxsql/phxsql/paxos"
)

// Scenarios lists the scripts: three ways in which another library was found to
// choose two values, and two ways to have two leases. Package mutants plants the
// mistake of each.
var Scenarios = []Scenario{
	{Name: "implicit-success", members: voters(5), play: implicitSuccess,
		Why: "a proposal for the next instance is no news that the one before is chosen, not even under the ballot at which it was accepted"},
	{Name: "promise-shrinks", members: voters(3), play: promiseShrinks,
		Why: "a value that is learned carries a ballot, which must not take the place of a higher promise"},
	{Name: "phase1-over-membership", members: paxos.Members{Cluster: "sim", List: []paxos.Member{
		{ID: 1, Role: paxos.Voter}, {ID: 2, Role: paxos.Voter}, {ID: 3, Role: paxos.Voter}, {ID: 4, Role: paxos.Learner}}}, play: phase1OverMembership,
		Why: "promises of the old members say nothing about instances that the new members decide on"},
	{Name: "lease-from-receipt", members: voters(3), play: leaseFromReceipt,
		Why: "a lease runs from when it was asked for; the answer may be late"},
	{Name: "no-restart-wait", members: voters(3), play: noRestartWait,
		Why: "who starts again has forgotten the lease that it granted, and must wait for it to end"},
}

func voters(n int) paxos.Members {
	ms := paxos.Members{Cluster: "sim"}
	for k := range n {
		ms.List = append(ms.List, paxos.Member{ID: paxos.NodeID(k + 1), Role: paxos.Voter})
	}
	return ms
}

type ids = []paxos.NodeID

// implicitSuccess: 1 and 2 accept a value at an instance, cut off from 3, 4 and 5,
// who choose another one. Then the proposal of 1 for the next instance reaches 2.
func implicitSuccess(s *stage) {
	i := s.elect(1) + 1
	s.sides(ids{1, 2}, ids{3, 4, 5})
	s.fate = func(m *paxos.Message) fate {
		if m.Kind == paxos.MsgAccept && m.From == 1 && m.To == 2 && m.First > i {
			return waits // entries and heartbeats behind the instance
		}
		return arrives
	}
	v := s.propose(1)
	s.until("2 has the value on disk", func() bool { return s.node(2).disk.holds(i, v) })
	s.pass(10 * time.Millisecond)
	s.propose(1)
	s.candidates(3)
	s.chooses(3, i)
	s.sides(ids{1, 3, 4, 5}, ids{2})
	s.chooses(1, i)
	s.release()
	s.pass(20 * time.Millisecond)
}

// promiseShrinks: 3 promises the ballot of 2, learns from it a value that was
// chosen under the ballot of 1, and starts again. Then 1, who still believes it
// leads, comes with a value for the next instance.
func promiseShrinks(s *stage) {
	s.elect(1)
	s.sides(ids{1, 2})
	s.propose(1)
	s.until("the value is chosen", func() bool { return len(s.w.judge.values) > 1 && s.w.judge.values[1].told != 0 })
	i := s.w.judge.values[1].told
	s.chooses(2, i)
	s.sides(ids{1}, ids{2, 3})
	s.fate = func(m *paxos.Message) fate {
		switch {
		case m.Kind == paxos.MsgAsk && m.From == 3:
			return vanishes // it learns after it has promised
		case m.Kind == paxos.MsgAccept && m.From == 2 && m.To == 3:
			return waits
		}
		return arrives
	}
	s.candidates(2)
	s.until("2 leads", func() bool { return s.leads(2) })
	s.propose(1)
	s.chooses(3, i)
	s.node(3).sync() // the log is shared with other groups, which sync it too
	s.pass(10 * time.Millisecond)
	s.restart(3)
	s.sides(ids{1, 3}, ids{2})
	s.until("1 gets its value chosen or gives up", func() bool { return s.node(1).declared > i || !s.leads(1) })
	s.sides(ids{1}, ids{2, 3})
	s.release()
	s.chooses(2, i+1)
}

// phase1OverMembership: 1 and 3 choose a membership in which 4 takes the place of
// 3. 1 goes on with 4, while 2, whose promise comes from 3, finds the membership
// and goes on with 4 as well.
func phase1OverMembership(s *stage) {
	i := s.elect(1) + 1
	s.sides(ids{1, 3, 4})
	s.fate = func(m *paxos.Message) fate {
		if m.From == 1 && m.To == 3 && m.Chosen >= i {
			return vanishes // 3 accepts the membership and does not hear that it is chosen
		}
		return arrives
	}
	s.change(1, paxos.Members{Cluster: "sim", List: []paxos.Member{
		{ID: 1, Role: paxos.Voter}, {ID: 2, Role: paxos.Voter}, {ID: 3, Role: paxos.Learner}, {ID: 4, Role: paxos.Voter}}})
	s.chooses(1, i)
	s.sides(ids{1, 4}, ids{2, 3})
	s.propose(1)
	s.chooses(1, i+1)
	s.sides(ids{2, 3})
	s.candidates(2)
	s.chooses(2, i)
	s.sides(ids{2, 3, 4})
	s.chooses(2, i+1)
}

// leaseFromReceipt: the answer of 2 to 1 is late by almost a lease, so that 2 and
// 3 elect a leader soon after.
func leaseFromReceipt(s *stage) {
	s.elect(1)
	s.sides(ids{1, 2})
	s.pass(time.Second)
	s.fate = func(m *paxos.Message) fate {
		switch {
		case m.From != 2:
			return arrives
		case m.Kind == paxos.MsgAccepted && len(s.held) == 0:
			return waits
		}
		return vanishes
	}
	s.until("2 answers", func() bool { return len(s.held) > 0 })
	s.candidates(3)
	late := s.held
	s.sides(ids{1}, ids{2, 3})
	s.fate = nil
	s.pass(800 * time.Millisecond)
	s.held = late
	s.release()
	s.until("3 holds a lease", func() bool { return s.node(3).holdsLease() })
}

// noRestartWait: 2 has granted a lease to 1, starts again, and is asked by 3.
func noRestartWait(s *stage) {
	s.elect(1)
	s.sides(ids{1, 2})
	s.candidates(3)
	s.pass(1200 * time.Millisecond)
	s.restart(2)
	s.sides(ids{1}, ids{2, 3})
	s.until("3 holds a lease", func() bool { return s.node(3).holdsLease() })
}
