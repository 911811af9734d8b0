package node

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/phxsql/phxsql/internal/netlab"
	"github.com/phxsql/phxsql/paxos"
)

// tape is a state machine that remembers every value.
type tape struct {
	mu     sync.Mutex
	at     paxos.Instance
	values []uint64
	saved  int // checkpoints
}

func (t *tape) Applied() paxos.Instance { return t.at }

func (t *tape) Apply(i paxos.Instance, value []byte) any {
	t.mu.Lock()
	defer t.mu.Unlock()
	if i <= t.at {
		panic("applied backwards")
	}
	t.at = i
	t.values = append(t.values, binary.LittleEndian.Uint64(value))
	return len(t.values)
}

func (t *tape) Checkpoint() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.saved++
	return nil
}

func (t *tape) snapshot() []uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.values)
}

// trio is a cluster whose nodes can be stopped and started again.
type trio struct {
	t       *testing.T
	dir     string
	members []paxos.Member
	nodes   map[paxos.NodeID]*Node
	tapes   map[paxos.NodeID][]*tape
	groups  int
	every   uint64
	retain  uint64
	keep    int
	lease   time.Duration
	segment int64
	machine func(paxos.NodeID, *tape) StateMachine // nil: the tape itself
}

func listen(t *testing.T, addr string) net.Listener {
	t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for {
		l, err := net.Listen("tcp", addr)
		if err == nil {
			return l
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

func newTrio(t *testing.T, edit func(*trio)) *trio {
	c := &trio{t: t, dir: t.TempDir(), nodes: map[paxos.NodeID]*Node{}, tapes: map[paxos.NodeID][]*tape{}, groups: 1, segment: 1 << 20, lease: time.Second}
	if edit != nil {
		edit(c)
	}
	var ls []net.Listener
	for id := paxos.NodeID(1); id <= 3; id++ {
		l := listen(t, netlab.Loopback()+":0")
		ls = append(ls, l)
		c.members = append(c.members, paxos.Member{ID: id, Role: paxos.Voter, Addr: l.Addr().String()})
	}
	for i, m := range c.members {
		c.start(m.ID, ls[i])
	}
	t.Cleanup(func() {
		for id := range c.nodes {
			c.stop(id)
		}
	})
	return c
}

func (c *trio) options(id paxos.NodeID, l net.Listener) Options {
	o := Options{
		Dir: filepath.Join(c.dir, fmt.Sprint(id)), ID: id, Cluster: "test", Listener: l, Members: c.members, Insecure: true,
		Lease: c.lease, Heartbeat: 50 * time.Millisecond, SegmentSize: c.segment, keep: c.keep,
	}
	c.tapes[id] = nil
	for g := range c.groups {
		m := &tape{}
		c.tapes[id] = append(c.tapes[id], m)
		o.Groups = append(o.Groups, Group{ID: paxos.Group(g), Machine: m, CheckpointEvery: c.every, Retain: c.retain})
		if c.machine != nil {
			o.Groups[g].Machine = c.machine(id, m)
		}
	}
	return o
}

func (c *trio) start(id paxos.NodeID, l net.Listener) *Node {
	c.t.Helper()
	n, err := Open(c.options(id, l))
	if err != nil {
		c.t.Fatal(err)
	}
	c.nodes[id] = n
	return n
}

func (c *trio) restart(id paxos.NodeID) *Node {
	return c.start(id, listen(c.t, c.members[id-1].Addr))
}

func (c *trio) stop(id paxos.NodeID) {
	if err := c.nodes[id].Close(); err != nil {
		c.t.Errorf("close node %d: %v", id, err)
	}
	delete(c.nodes, id)
}

// limit bounds every wait of these tests, on a busy machine.
const limit = 3 * time.Minute

// steady is a length of leases that outlives what a busy machine does to a process: for tests
// in which no leader goes without a word.
const steady = 30 * time.Second

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	return ctx
}

// leader waits for a node that leads a group under a lease.
func (c *trio) leader(g paxos.Group) *Node {
	c.t.Helper()
	until(c.t, "a leader", func() bool { return c.leading(g) != nil })
	return c.leading(g)
}

func (c *trio) leading(g paxos.Group) *Node {
	for _, n := range c.nodes {
		if n.LeaseValid(g) {
			return n
		}
	}
	return nil
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(limit)
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for !ok() {
		select {
		case <-poll.C:
		case <-deadline:
			t.Fatalf("no %s within %v", what, limit)
		}
	}
}

// propose has count values chosen, one after the other, and returns an instance at which all
// are.
func (c *trio) propose(g paxos.Group, from, count uint64) paxos.Instance {
	c.t.Helper()
	var last paxos.Instance
	for v := from; v < from+count; v++ {
		last = c.proposeOne(g, v)
	}
	return last
}

// proposeOne has a value chosen once, also on a busy machine, where leaders may change.
func (c *trio) proposeOne(g paxos.Group, v uint64) paxos.Instance {
	c.t.Helper()
	for {
		i, _, err := c.leader(g).Propose(within(c.t), g, binary.LittleEndian.AppendUint64(nil, v))
		switch {
		case err == nil:
			return i
		case errors.Is(err, ErrUnknown): // it is known once somebody leads
			n := c.leader(g)
			if err := n.ReadBarrier(within(c.t), g); err != nil {
				c.t.Fatal(err)
			}
			if got := c.tapes[n.opt.ID][g].snapshot(); len(got) > 0 && got[len(got)-1] == v {
				return n.groups[g].log.Chosen()
			}
		case !errors.Is(err, ErrNotLeader):
			c.t.Fatal(err)
		}
	}
}

func (c *trio) same(g paxos.Group, through paxos.Instance, want []uint64) {
	c.t.Helper()
	for id, n := range c.nodes {
		if err := n.WaitApplied(within(c.t), g, through); err != nil {
			c.t.Fatalf("node %d: %v", id, err)
		}
		if got := c.tapes[id][g].snapshot(); !slices.Equal(got, want) {
			c.t.Fatalf("node %d group %d has %d values, want %d: %v", id, g, len(got), len(want), got)
		}
	}
}

func seq(from, count uint64) (out []uint64) {
	for v := from; v < from+count; v++ {
		out = append(out, v)
	}
	return out
}

func TestValuesAreAppliedOnAllNodesInOrder(t *testing.T) {
	c := newTrio(t, func(c *trio) { c.groups = 3 })
	for g := range paxos.Group(3) {
		c.same(g, c.propose(g, uint64(g)*1000, 50), seq(uint64(g)*1000, 50))
	}
}

func TestProposeReturnsWhatApplyReturned(t *testing.T) {
	c := newTrio(t, func(c *trio) { c.lease = steady })
	n := c.leader(0)
	var wg sync.WaitGroup
	var mu sync.Mutex
	results := map[any]paxos.Instance{}
	for v := range uint64(200) {
		wg.Go(func() {
			i, r, err := n.Propose(within(t), 0, binary.LittleEndian.AppendUint64(nil, v))
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			results[r] = i
			mu.Unlock()
		})
	}
	wg.Wait()
	for k := 1; k <= 200; k++ {
		if results[k] == 0 || k > 1 && results[k] <= results[k-1] {
			t.Fatalf("the %dth applied value was answered with instance %d, the one before with %d", k, results[k], results[k-1])
		}
	}
}

func TestProposalsElsewhereAreRefusedAndNamed(t *testing.T) {
	c := newTrio(t, func(c *trio) { c.lease = steady })
	lead := c.leader(0)
	for _, n := range c.nodes {
		if n == lead {
			continue
		}
		if _, _, err := n.Propose(within(t), 0, make([]byte, 8)); !errors.Is(err, ErrNotLeader) {
			t.Fatalf("a follower answers %v", err)
		}
		until(t, "hint to the leader", func() bool { return n.Leader(0) == lead.opt.ID })
		if err := n.Barrier(within(t), 0); !errors.Is(err, ErrNoLease) && !n.LeaseValid(0) {
			t.Fatalf("barrier on a follower: %v", err)
		}
	}
	if _, _, err := lead.Propose(within(t), 0, make([]byte, MaxValue+1)); !errors.Is(err, ErrTooLarge) {
		t.Fatalf("a value above the limit: %v", err)
	}
	if _, _, err := lead.Propose(within(t), 7, nil); !errors.Is(err, ErrNoGroup) {
		t.Fatalf("an unknown group: %v", err)
	}
	until(t, "barrier on a leader", func() bool { // a lease may lapse on a busy machine
		lead := c.leading(0)
		return lead != nil && lead.Barrier(within(t), 0) == nil
	})
}

func TestAllNodesComeBackAfterAllWereStopped(t *testing.T) {
	c := newTrio(t, nil)
	c.propose(0, 0, 40)
	for id := range paxos.NodeID(3) {
		c.stop(id + 1)
	}
	for id := range paxos.NodeID(3) {
		c.restart(id + 1)
	}
	c.same(0, c.propose(0, 40, 10), seq(0, 50))
}

func TestLeadershipIsTransferred(t *testing.T) {
	c := newTrio(t, nil)
	from := c.leader(0)
	to := from.opt.ID%3 + 1
	until(t, "transfer", func() bool {
		lead := c.leading(0)
		if lead != nil && lead.opt.ID != to {
			_ = lead.Transfer(0, to) // it may come to nothing, and the third node lead instead
		}
		return c.nodes[to].LeaseValid(0)
	})
	if from.LeaseValid(0) {
		t.Fatal("two leases")
	}
	c.same(0, c.propose(0, 0, 5), seq(0, 5))
}

func TestAnotherNodeLeadsAfterTheLeaderStopped(t *testing.T) {
	c := newTrio(t, nil)
	c.propose(0, 0, 20)
	old := c.leader(0).opt.ID
	c.stop(old)
	c.propose(0, 20, 20)
	c.restart(old)
	c.same(0, c.propose(0, 40, 1), seq(0, 41))
}

func TestCheckpointsTrimTheLogOfAllThatAllNodesHave(t *testing.T) {
	c := newTrio(t, func(c *trio) { c.every = 10 })
	next := uint64(0)
	until(t, "trim", func() bool {
		c.propose(0, next, 10)
		next += 10
		for _, n := range c.nodes {
			if _, _, err := n.Read(0, 2); !errors.Is(err, ErrTrimmed) {
				return false
			}
		}
		return true
	})
	lead := c.leader(0)
	down := lead.opt.ID%3 + 1
	c.stop(down)
	st, err := lead.Status(within(t), 0)
	if err != nil {
		t.Fatal(err)
	}
	c.propose(0, next, 30)
	got, err := lead.Trim(0, st.Chosen+25)
	lead.mu.Lock()
	has := lead.heard[down][0] // what it said last may have come only now
	lead.mu.Unlock()
	if err != nil || got > has {
		t.Fatalf("trimmed through %d (%v), the stopped node has %d", got, err, has)
	}
	// A state machine that wants what is gone is refused by name.
	if _, err := Open(c.options(down, listen(t, "127.0.0.1:0"))); !errors.Is(err, ErrTrimmed) {
		t.Fatalf("open with an empty state machine: %v", err)
	}
	o := c.options(down, listen(t, c.members[down-1].Addr))
	c.tapes[down][0].at = has
	n, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	c.nodes[down] = n
	if err := n.WaitApplied(within(t), 0, c.propose(0, next+30, 1)); err != nil {
		t.Fatal(err)
	}
}

func TestANodeWithAReplacedDiskIsRefused(t *testing.T) {
	c := newTrio(t, nil)
	c.propose(0, 0, 5)
	gone := c.leader(0).opt.ID%3 + 1
	c.stop(gone)
	if err := os.RemoveAll(filepath.Join(c.dir, fmt.Sprint(gone))); err != nil {
		t.Fatal(err)
	}
	n := c.restart(gone)
	until(t, "refusal", func() bool {
		for _, p := range n.net.Status().Peers {
			if p.Reason == "wrong_log" {
				return true
			}
		}
		return false
	})
	if !n.Members(0).Blank() || n.Leader(0) != 0 {
		t.Fatal("it takes part although it has forgotten its promises")
	}
	c.propose(0, 5, 5)
}

func TestMembersAreAddedAndRemoved(t *testing.T) {
	c := newTrio(t, nil)
	c.propose(0, 0, 10)
	l := listen(t, "127.0.0.1:0")
	n := c.start(4, l)
	m := paxos.Member{ID: 4, Role: paxos.Learner, Addr: l.Addr().String()}
	c.must("add a learner", func(lead *Node) error { return lead.AddMember(within(t), 0, m) })
	if err := n.WaitApplied(within(t), 0, c.propose(0, 10, 1)); err != nil {
		t.Fatal(err)
	}
	m.Role, m.Log = paxos.Voter, n.LogIdentity()
	c.must("make it a voter", func(lead *Node) error { return lead.AddMember(within(t), 0, m) })
	gone := c.leader(0).opt.ID%3 + 1
	c.must("remove another", func(lead *Node) error { return lead.RemoveMember(within(t), 0, gone) })
	c.stop(gone)
	c.same(0, c.propose(0, 11, 10), seq(0, 21))
}

func TestProposalsWithoutAMajorityHaveAnUnknownOutcome(t *testing.T) {
	c := newTrio(t, nil)
	lead := c.leader(0)
	for id := range paxos.NodeID(3) {
		if id+1 != lead.opt.ID {
			c.stop(id + 1)
		}
	}
	_, _, err := lead.Propose(within(t), 0, make([]byte, 8))
	if !errors.Is(err, ErrUnknown) && !errors.Is(err, ErrNotLeader) {
		t.Fatalf("without a majority: %v", err)
	}
	until(t, "end of the lease", func() bool { return !lead.LeaseValid(0) })
}

func TestOptionsReportAllFaultsAtOnce(t *testing.T) {
	_, err := Open(Options{Groups: []Group{{ID: 1}, {ID: 1}}, Lease: 2 * paxos.MaxLease})
	if !errors.Is(err, ErrLease) {
		t.Fatalf("a lease that no message can tell: %v", err)
	}
	for _, want := range []string{"Dir", "ID", "Cluster", "Listen", "Insecure", "twice", "lease"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not name %s: %v", want, err)
		}
	}
}
