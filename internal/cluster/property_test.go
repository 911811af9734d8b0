package cluster

import (
	"testing"
	"time"

	"github.com/phxsql/phxsql/paxos"
	"pgregory.net/rapid"
)

// pick draws a number below n.
func pick[T ~uint8](t *rapid.T, name string, n int) T {
	return T(rapid.IntRange(0, n-1).Draw(t, name))
}

func yes(t *rapid.T, name string) bool { return rapid.Bool().Draw(t, name) }

func left(t *rapid.T, name string) time.Duration {
	return time.Duration(rapid.IntRange(-1, 2).Draw(t, name)) * time.Second
}

// anyView draws a view without regard to whether it could come about.
func anyView(t *rapid.T) View {
	v := View{
		Self: 1, Member: yes(t, "member"), Role: pick[paxos.Role](t, "role", 3) + 1,
		Lead: Lead{
			Leader: paxos.NodeID(rapid.IntRange(0, 3).Draw(t, "leader")),
			Ready:  yes(t, "ready"), Lease: yes(t, "lease"), Lapsed: left(t, "lapsed"),
			HandingOver: paxos.NodeID(rapid.IntRange(0, 2).Draw(t, "handing")) &^ 1,
		},
		Epoch: Epoch{
			State: pick[EpochState](t, "epoch", 4), Own: uint64(rapid.IntRange(1, 3).Draw(t, "own")),
			Newest: uint64(rapid.IntRange(0, 3).Draw(t, "newest")), Node: paxos.NodeID(rapid.IntRange(1, 2).Draw(t, "node")),
		},
		Engine: Engine{
			State: pick[EngineState](t, "engine", 7), Wait: left(t, "wait"),
			Replica: pick[ReplicaState](t, "replica", 3), ReplicaWait: left(t, "replica-wait"),
			Writable: yes(t, "writable"), Events: yes(t, "events"), Dirty: yes(t, "dirty"),
			Applied: yes(t, "applied"), Behind: uint64(rapid.IntRange(0, 9000).Draw(t, "behind")), Lagging: left(t, "lagging"),
			Stranded: yes(t, "stranded"),
			Errant:   rapid.SampledFrom([]string{"", "", "", "x:1"}).Draw(t, "errant"),
		},
		Tail: pick[Tail](t, "tail", 3), Gate: pick[Gate](t, "gate", 3), Drained: yes(t, "drained"), Reads: yes(t, "reads"),
		Stopping: rapid.IntRange(0, 7).Draw(t, "stopping") == 0, StopLeft: left(t, "stop-left"),
		Restore: Restore{
			Need:  rapid.SampledFrom([]Need{NeedNothing, NeedNothing, NeedPlace, NeedCopy, NeedFresh}).Draw(t, "need"),
			Ready: rapid.IntRange(0, 5).Draw(t, "copied") == 0, Unproved: rapid.IntRange(0, 3).Draw(t, "unproved") == 0,
		},
		Busy: rapid.SampledFrom([]Kind{"", "", KindStartEngine, KindMakeReadOnly, KindAttachTail}).Draw(t, "busy"),
	}
	v.Lead.Self = v.Lead.Leader == v.Self
	if yes(t, "switch") {
		v.Switch = &Switchover{
			Target: paxos.NodeID(rapid.IntRange(0, 4).Draw(t, "target")), Accepted: yes(t, "accepted"),
			Left: left(t, "left"), DrainLeft: left(t, "drain-left"),
		}
	}
	for id := paxos.NodeID(2); id <= 3; id++ {
		v.Peers = append(v.Peers, Peer{
			ID: id, Role: pick[paxos.Role](t, "peer-role", 3) + 1, Alive: yes(t, "alive"), Able: yes(t, "able"),
			Gate: yes(t, "peer-gate"), Applied: yes(t, "peer-applied"), Declined: yes(t, "declined"),
			Current: yes(t, "current"), Near: yes(t, "near"), Behind: uint64(rapid.IntRange(0, 9000).Draw(t, "peer-behind")),
		})
	}
	return v
}

// Whatever a node believes to know, its decisions keep the invariants.
func TestAnyView(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := anyView(t)
		acts := Decide(v)
		if err := Check(v, acts); err != nil {
			t.Fatal(err)
		}
		gate := v.Gate
		for _, a := range acts {
			switch a.(type) {
			case CloseGate:
				gate = GateClosed
			case OpenGate, Drain:
				gate = GateOpen
			}
		}
		reads := v.Reads
		for _, a := range acts {
			switch a.(type) {
			case OpenReads:
				reads = true
			case CloseReads:
				reads = false
			}
		}
		if reads && v.Restore.Unproved && !v.Lead.Self {
			t.Fatalf("a node that does not lead shows data that are not proved: %v", acts)
		}
		if gate != GateClosed && (!v.Lead.Self || !v.Lead.Lease || !v.current()) {
			t.Fatalf("the gate stays open: %v", acts)
		}
	})
}

// disturb lets something happen to the node.
func (m *model) disturb(t *rapid.T) {
	v := &m.v
	switch rapid.IntRange(0, 9).Draw(t, "event") {
	case 0, 1, 2, 3:
		m.done()
	case 4:
		if v.Busy != "" {
			m.fail("no reason")
		}
	case 5:
		if v.Engine.State == EngineRunning || v.Engine.State == EngineStarting {
			_ = m.set("crashed", []string{"1s"})
		}
	case 6:
		v.Epoch.Newest += uint64(rapid.IntRange(0, 1).Draw(t, "newer"))
		_ = m.set("leader", []string{rapid.SampledFrom([]string{"0", "1", "1", "1", "2"}).Draw(t, "leader")})
		v.Engine.Applied = false
	case 7:
		v.Lead.Lease = v.Lead.Self && yes(t, "lease")
	case 8:
		v.Peers = []Peer{{
			ID: 2, Role: paxos.Voter, Alive: yes(t, "alive"), Able: yes(t, "able"), Gate: v.Lead.Leader == 2,
			Applied: yes(t, "peer-applied"), Declined: yes(t, "declined"),
		}}
	case 9:
		if v.Switch == nil {
			v.Switch = &Switchover{Left: time.Second, DrainLeft: time.Second}
		}
		v.Switch.DrainLeft = left(t, "drain-left")
		v.Switch.Left = left(t, "left")
	}
	m.world()
}

// world is what happens by itself.
func (m *model) world() {
	v := &m.v
	if v.Engine.State == EngineStopping {
		v.Engine.State = EngineStopped
	}
	if v.Lead.Self && v.Epoch.State == EpochProposed {
		_ = m.set("chosen", nil)
	}
	if v.current() && v.Engine.Replica == ReplicaRunning {
		v.Engine.Applied = true
	}
	v.Failed.Wait = 0
}

// Through any story the invariants hold, and when all is quiet the only able
// member of the cluster serves.
func TestAnyStory(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &model{v: View{Self: 1, Member: true, Role: paxos.Voter}}
		for range rapid.IntRange(1, 60).Draw(t, "events") {
			if _, err := m.settle(); err != nil {
				t.Fatal(err)
			}
			m.disturb(t)
		}
		m.v.Peers, m.v.Lead.HandingOver, m.v.Engine.Wait = nil, 0, 0
		if !m.v.Lead.Self {
			_ = m.set("leader", []string{"1"})
			m.v.Engine.Applied = false
		}
		m.v.Lead.Lease, m.v.Lead.Lapsed = true, 0
		for range 30 {
			m.v.Engine.Wait = 0
			m.v.Switch = nil
			if _, err := m.settle(); err != nil {
				t.Fatal(err)
			}
			m.done()
			m.world()
		}
		if m.v.Gate != GateOpen {
			t.Fatalf("not serving at the end: %+v", m.v)
		}
	})
}

// However fast each server executes what it lacks, and however late reports of it come,
// leadership goes on to a member that is further a few times at most, and never away from
// a server that lacks nothing.
func TestFurtherSettles(t *testing.T) {
	const tick, most = 250 * time.Millisecond, 100_000
	rapid.Check(t, func(t *rapid.T) {
		lack, told, current := map[paxos.NodeID]uint64{}, map[paxos.NodeID]uint64{}, map[paxos.NodeID]bool{}
		for id := paxos.NodeID(1); id <= 3; id++ {
			lack[id] = uint64(rapid.IntRange(0, most).Draw(t, "lack"))
		}
		leader, lagging, changes := paxos.NodeID(1), time.Duration(0), 0
		for range 60 {
			for id := range lack {
				done := uint64(rapid.SampledFrom([]int{0, 10, 500, 20_000}).Draw(t, "executed"))
				lack[id] -= min(done, lack[id])
				if yes(t, "report") {
					told[id], current[id] = lack[id], true
				}
			}
			v := View{
				Self: leader, Member: true, Role: paxos.Voter, Lead: Lead{Leader: leader, Self: true, Ready: true, Lease: true},
				Epoch:  Epoch{State: EpochChosen, Own: 5, Newest: 5, Node: leader},
				Engine: Engine{State: EngineRunning, Replica: ReplicaRunning, Behind: lack[leader], Applied: lack[leader] == 0, Lagging: lagging},
			}
			for id := range lack {
				if id != leader {
					v.Peers = append(v.Peers, Peer{ID: id, Role: paxos.Voter, Alive: true, Able: true, Behind: told[id], Current: current[id]})
				}
			}
			lagging += tick
			for _, a := range Decide(v) {
				h, ok := a.(HandOver)
				switch {
				case !ok:
				case lack[leader] == 0 || lack[h.To] >= lack[leader]:
					t.Fatalf("from one that lacks %d to one that lacks %d", lack[leader], lack[h.To])
				default:
					leader, lagging, current = h.To, 0, map[paxos.NodeID]bool{}
					changes++
				}
			}
		}
		if changes > 4 { // each time it is a quarter, and 2,000 less
			t.Fatalf("leadership changed %d times", changes)
		}
	})
}
