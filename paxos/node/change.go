package node

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/phxsql/phxsql/paxos"
)

// This file changes the membership of a group: one change at a time, on the leader, and
// none that would leave nobody to decide anything, unless the caller insists.

// maxBehind is how many instances a member may lack and still count for the majority that
// must be left. It makes up for them in a moment.
const maxBehind = 10_000

// AddMember adds a member to a group, or changes role and address of one, and
// waits until that is chosen. It must be called on the leader; a new node must be up.
// Add a voter as a Learner first and change its role when Behind says that it has
// caught up: until then it would count for majorities without being able to vote.
// A change after which those that are up and have caught up would be no majority is
// refused with ErrNoMajority.
func (n *Node) AddMember(ctx context.Context, id paxos.Group, m paxos.Member) error {
	return n.addMember(ctx, id, m, false)
}

// AddMemberEvenIfNoMajorityIsLeft is AddMember without the refusal: afterwards the group may
// choose nothing, not even the change back, until a majority of the voters is up.
func (n *Node) AddMemberEvenIfNoMajorityIsLeft(ctx context.Context, id paxos.Group, m paxos.Member) error {
	return n.addMember(ctx, id, m, true)
}

func (n *Node) addMember(ctx context.Context, id paxos.Group, m paxos.Member, force bool) error {
	g, err := n.group(id)
	if err != nil {
		return fmt.Errorf("add member %d: %w", m.ID, err)
	}
	if m.Log == "" {
		if m.Log, err = n.askGuest(ctx, m); err != nil {
			return fmt.Errorf("add member %d: ask it for its log: %w", m.ID, err)
		}
		defer n.dismiss(m.ID)
	}
	err = g.change(ctx, force, func(ms *paxos.Members) error { return put(ms, m) })
	if err != nil {
		return fmt.Errorf("add member %d: %w", m.ID, err)
	}
	return nil
}

// put makes a member part of a membership, or gives it other properties.
func put(ms *paxos.Members, m paxos.Member) error {
	k := slices.IndexFunc(ms.List, func(o paxos.Member) bool { return o.ID >= m.ID })
	switch {
	case k < 0:
		ms.List = append(ms.List, m)
	case ms.List[k].ID != m.ID:
		ms.List = slices.Insert(ms.List, k, m)
	case ms.List[k].Log != m.Log:
		return fmt.Errorf("it has log %s and is a member with log %s: %w", m.Log, ms.List[k].Log, ErrWrongLog)
	default:
		ms.List[k] = m
	}
	return nil
}

// RemoveMember removes a member from a group and waits until that is chosen. It must be
// called on the leader. Asked to remove the leader itself it hands leadership over and
// fails with ErrNotLeader: ask the new leader. A change after which those that are up and
// have caught up would be no majority is refused with ErrNoMajority; removing one that is
// down never is the cause of that.
func (n *Node) RemoveMember(ctx context.Context, id paxos.Group, who paxos.NodeID) error {
	return n.removeMember(ctx, id, who, false)
}

// RemoveMemberEvenIfNoMajorityIsLeft is RemoveMember without the refusal: afterwards the
// group may choose nothing, not even the change back, until a majority of the voters is up.
func (n *Node) RemoveMemberEvenIfNoMajorityIsLeft(ctx context.Context, id paxos.Group, who paxos.NodeID) error {
	return n.removeMember(ctx, id, who, true)
}

func (n *Node) removeMember(ctx context.Context, id paxos.Group, who paxos.NodeID, force bool) error {
	g, err := n.group(id)
	if err == nil {
		err = g.change(ctx, force, func(ms *paxos.Members) error {
			ms.List = slices.DeleteFunc(ms.List, func(m paxos.Member) bool { return m.ID == who })
			return nil
		})
	}
	if err != nil {
		return fmt.Errorf("remove member %d: %w", who, err)
	}
	return nil
}

// ReplaceMember lets one member take the place of another, in one change: heir gets the
// role of old, which leaves. The heir must be a member that has caught up, so add it as a
// Learner first. Else it is as RemoveMember.
func (n *Node) ReplaceMember(ctx context.Context, id paxos.Group, old, heir paxos.NodeID) error {
	return n.replaceMember(ctx, id, old, heir, false)
}

// ReplaceMemberEvenIfNoMajorityIsLeft is ReplaceMember without the refusal: afterwards the
// group may choose nothing, not even the change back, until a majority of the voters is up.
func (n *Node) ReplaceMemberEvenIfNoMajorityIsLeft(ctx context.Context, id paxos.Group, old, heir paxos.NodeID) error {
	return n.replaceMember(ctx, id, old, heir, true)
}

func (n *Node) replaceMember(ctx context.Context, id paxos.Group, old, heir paxos.NodeID, force bool) error {
	g, err := n.group(id)
	if err == nil {
		err = g.change(ctx, force, func(ms *paxos.Members) error { return inherit(ms, old, heir) })
	}
	if err != nil {
		return fmt.Errorf("replace member %d by %d: %w", old, heir, err)
	}
	return nil
}

func inherit(ms *paxos.Members, old, heir paxos.NodeID) error {
	was, ok := ms.Find(old)
	k := slices.IndexFunc(ms.List, func(m paxos.Member) bool { return m.ID == heir })
	switch {
	case !ok && k >= 0 && ms.List[k].Votes():
		return nil // it has happened already
	case !ok:
		return fmt.Errorf("%d is no member: %w", old, ErrChange)
	case k < 0:
		return fmt.Errorf("%d is no member (hint: add it as a learner first): %w", heir, ErrChange)
	case old == heir:
		return fmt.Errorf("nobody replaces itself: %w", ErrChange)
	}
	ms.List[k].Role = was.Role
	ms.List = slices.DeleteFunc(ms.List, func(m paxos.Member) bool { return m.ID == old })
	return nil
}

// Behind is how many chosen instances a member lacks on its disk, as far as the leader
// knows, which alone can tell. A learner whose number is small can become a voter.
func (n *Node) Behind(ctx context.Context, id paxos.Group, who paxos.NodeID) (uint64, error) {
	g, err := n.group(id)
	if err != nil {
		return 0, fmt.Errorf("see how far member %d is: %w", who, err)
	}
	known, err := g.behind(ctx)
	if err != nil {
		return 0, fmt.Errorf("see how far member %d is: %w", who, err)
	}
	b, ok := known[who]
	if !ok {
		return 0, fmt.Errorf("see how far member %d is: it is no member, or has not answered the leader: %w", who, ErrChange)
	}
	return b, nil
}

// behind is how many instances each member lacks that the leader has heard of lately.
func (g *group) behind(ctx context.Context) (map[paxos.NodeID]uint64, error) {
	s, err := g.log.Status(ctx)
	if err != nil {
		return nil, err
	}
	if !s.Ready {
		return nil, ErrNotLeader
	}
	known := map[paxos.NodeID]uint64{g.node.opt.ID: 0}
	for _, p := range s.Progress {
		if !p.Probing {
			known[p.ID] = uint64(s.Chosen - min(p.Match, s.Chosen))
		}
	}
	return known, nil
}

// change proposes a changed membership and waits until it is valid.
func (g *group) change(ctx context.Context, force bool, edit func(*paxos.Members) error) error {
	v := g.log.Leader()
	if !v.Ready {
		return ErrNotLeader
	}
	want := paxos.Members{Cluster: v.Members.Cluster, List: slices.Clone(v.Members.List)}
	if err := edit(&want); err != nil {
		return err
	}
	if slices.Equal(want.List, v.Members.List) {
		return nil
	}
	if err := g.allow(ctx, v.Members, want, force); err != nil {
		return err
	}
	if err := g.log.ProposeMembers(v.Members, want); err != nil {
		return err
	}
	for {
		changed := g.log.Changed()
		now := g.log.Leader()
		if slices.Equal(now.Members.List, want.List) {
			return nil
		}
		if now.Term != v.Term {
			return fmt.Errorf("%w: leadership was lost", ErrUnknown)
		}
		if !slices.Equal(now.Members.List, v.Members.List) {
			return fmt.Errorf("another change came first (look at the members and try again): %w", ErrChange)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ErrUnknown, ctx.Err())
		case <-g.node.ctx.Done():
			return fmt.Errorf("%w: %w", ErrUnknown, ErrClosed)
		}
	}
}

// allow refuses changes that would stop the group, and lets another member lead before the
// leader loses its place.
func (g *group) allow(ctx context.Context, was, want paxos.Members, force bool) error {
	if err := want.Check(); err != nil {
		return fmt.Errorf("%w: %w", ErrChange, err)
	}
	if !slices.Equal(voters(was), voters(want)) && !force {
		if err := g.majorityLives(ctx, want); err != nil {
			return err
		}
	}
	self := g.node.opt.ID
	if me, ok := want.Find(self); ok && me.Role == paxos.Voter {
		return nil
	}
	if err := g.log.Transfer(0); err != nil {
		return err
	}
	return fmt.Errorf("it led, and has handed leadership over (ask the new leader): %w", ErrNotLeader)
}

func voters(ms paxos.Members) []paxos.NodeID {
	var ids []paxos.NodeID
	for _, m := range ms.List {
		if m.Votes() {
			ids = append(ids, m.ID)
		}
	}
	return ids
}

// majorityLives refuses a membership of whose voters no majority answers now and has what
// was chosen. A leader that has just won has not heard from all of them yet: those that
// answer are given hearLimit to be heard.
func (g *group) majorityLives(ctx context.Context, want paxos.Members) error {
	c, err := awaitCensus(ctx, want.Quorum(), func() (census, error) { return g.count(ctx, voters(want)) })
	if err != nil {
		return err
	}
	if c.ready < want.Quorum() {
		return fmt.Errorf("of the %d members that would vote %d are up and have caught up (hint: start the others, or let learners catch up first): %w: %w",
			len(voters(want)), c.ready, ErrNoMajority, ErrChange)
	}
	return nil
}

// hearLimit is how long members that are up may take to be heard by a new leader, which is
// a few of its heartbeats; hearLook is how often it is looked.
const (
	hearLimit = 2 * time.Second
	hearLook  = 50 * time.Millisecond
)

// census counts members: those that are up and have caught up, and those that are up and
// were not heard by the leader yet, of which it is not known.
type census struct{ ready, unheard int }

// awaitCensus counts again while that could still make a quorum, for hearLimit at most.
func awaitCensus(ctx context.Context, quorum int, count func() (census, error)) (census, error) {
	for until := time.Now().Add(hearLimit); ; {
		c, err := count()
		if err != nil || c.ready >= quorum || c.ready+c.unheard < quorum || !time.Now().Before(until) {
			return c, err
		}
		t := time.NewTimer(hearLook)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return c, nil
		}
	}
}

// count asks members for a sign of life.
func (g *group) count(ctx context.Context, ids []paxos.NodeID) (census, error) {
	known, err := g.behind(ctx)
	if err != nil {
		return census{}, err
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	var c census
	for _, id := range ids {
		wg.Go(func() {
			b, heard := known[id]
			if heard && b > maxBehind {
				return
			}
			if id != g.node.opt.ID {
				if _, err := g.node.identity(ctx, id); err != nil {
					return
				}
			}
			mu.Lock()
			defer mu.Unlock()
			if heard {
				c.ready++
			} else {
				c.unheard++
			}
		})
	}
	wg.Wait()
	return c, nil
}
