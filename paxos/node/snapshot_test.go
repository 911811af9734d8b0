package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/phxsql/phxsql/paxos"
)

// shelf is where albums keep their copies: it outlives their nodes.
type shelf struct {
	mu       sync.Mutex
	copies   map[paxos.NodeID]page
	restored int
	refuse   int // so many restores fail
}

type page struct {
	at     paxos.Instance
	values []uint64
}

// album is a tape whose state other members can take over. A reference names the
// member that keeps the copy.
type album struct {
	*tape
	id    paxos.NodeID
	shelf *shelf
}

func (s *shelf) open(id paxos.NodeID, t *tape) StateMachine {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.copies[id]
	t.at, t.values = p.at, slices.Clone(p.values)
	return &album{t, id, s}
}

func (a *album) Checkpoint() error {
	a.shelf.mu.Lock()
	defer a.shelf.mu.Unlock()
	a.shelf.copies[a.id] = page{a.at, a.snapshot()}
	return nil
}

func (a *album) Snapshot() (paxos.Instance, []byte, error) {
	a.shelf.mu.Lock()
	defer a.shelf.mu.Unlock()
	return a.shelf.copies[a.id].at, fmt.Append(nil, uint64(a.id)), nil
}

func (a *album) Restore(_ context.Context, through paxos.Instance, reference []byte) error {
	from, err := strconv.Atoi(string(reference))
	if err != nil {
		return err
	}
	a.shelf.mu.Lock()
	defer a.shelf.mu.Unlock()
	if a.shelf.refuse > 0 {
		a.shelf.refuse--
		return errors.New("the copy cannot be fetched")
	}
	p := a.shelf.copies[paxos.NodeID(from)]
	if p.at != through {
		return fmt.Errorf("the copy goes through %d, not %d", p.at, through)
	}
	a.shelf.restored++
	a.shelf.copies[a.id] = p
	a.mu.Lock()
	defer a.mu.Unlock()
	a.at, a.values = p.at, slices.Clone(p.values)
	return nil
}

func newShelved(t *testing.T) (*trio, *shelf) {
	s := &shelf{copies: map[paxos.NodeID]page{}}
	return newTrio(t, func(c *trio) { c.every, c.retain, c.keep, c.machine = 10, 20, 512, s.open }), s
}

// proposeUntilTrimmed proposes values until no running node has an instance in its log.
func (c *trio) proposeUntilTrimmed(next *uint64, i paxos.Instance) {
	c.t.Helper()
	until(c.t, "trim", func() bool {
		c.propose(0, *next, 10)
		*next += 10
		for _, n := range c.nodes {
			if _, _, err := n.Read(0, i); !errors.Is(err, ErrTrimmed) {
				return false
			}
		}
		return true
	})
}

// TestAMemberThatWasAwayForTooLongComesBackByASnapshot: the others trim what it
// lacks and change the members meanwhile.
func TestAMemberThatWasAwayForTooLongComesBackByASnapshot(t *testing.T) {
	c, shelf := newShelved(t)
	next := uint64(15)
	c.same(0, c.propose(0, 0, next), seq(0, next))
	away := c.leader(0).opt.ID%3 + 1
	chosen := c.nodes[away].groups[0].log.Chosen()
	c.stop(away)
	m, _ := c.leader(0).Members(0).Find(away)
	m.Name = "was away"
	c.must("name a member", func(n *Node) error { return n.AddMember(within(t), 0, m) })
	c.proposeUntilTrimmed(&next, chosen+1)
	shelf.mu.Lock()
	shelf.refuse = 1
	shelf.mu.Unlock()
	n := c.restart(away)
	c.same(0, c.propose(0, next, 3), seq(0, next+3))
	if shelf.restored != 1 || shelf.refuse != 0 {
		t.Fatalf("restored %d times", shelf.restored)
	}
	if m, _ := n.Members(0).Find(away); m.Name != "was away" {
		t.Fatalf("after the snapshot its members are %s", n.Members(0).Encode())
	}
	if st, err := n.Status(within(t), 0); err != nil || st.Lacking != 0 || st.First <= chosen {
		t.Fatalf("after the snapshot: %+v, %v", st, err)
	}
	// It is a full member again, also after a restart.
	c.stop(away)
	c.restart(away)
	c.stop(away%3 + 1)
	c.same(0, c.propose(0, next+3, 30), seq(0, next+33))
}

// TestAMemberThatStoppedAmidARestoreComesBack: its state machine has the snapshot,
// its log does not know.
func TestAMemberThatStoppedAmidARestoreComesBack(t *testing.T) {
	c, shelf := newShelved(t)
	next := uint64(15)
	c.same(0, c.propose(0, 0, next), seq(0, next))
	away := c.leader(0).opt.ID%3 + 1
	chosen := c.nodes[away].groups[0].log.Chosen()
	c.stop(away)
	c.proposeUntilTrimmed(&next, chosen+1)
	shelf.mu.Lock()
	shelf.copies[away] = shelf.copies[c.leader(0).opt.ID]
	shelf.mu.Unlock()
	c.restart(away)
	c.same(0, c.propose(0, next, 3), seq(0, next+3))
}

// TestANewMemberBeginsWithASnapshot: the log that it joins begins late.
func TestANewMemberBeginsWithASnapshot(t *testing.T) {
	c, shelf := newShelved(t)
	next := uint64(0)
	c.proposeUntilTrimmed(&next, 5)
	l := listen(t, "127.0.0.1:0")
	n := c.start(4, l)
	m := paxos.Member{ID: 4, Role: paxos.Learner, Addr: l.Addr().String()}
	c.must("add a learner", func(lead *Node) error { return lead.AddMember(within(t), 0, m) })
	c.same(0, c.propose(0, next, 3), seq(0, next+3))
	if shelf.restored == 0 || n.Members(0).Blank() {
		t.Fatalf("restored %d times, members %s", shelf.restored, n.Members(0).Encode())
	}
}
