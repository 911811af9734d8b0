package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/phxsql/phxsql/internal/replica"
	"github.com/phxsql/phxsql/paxos"
	"github.com/phxsql/phxsql/wal"
)

// MaxReference is the largest reference to a snapshot in bytes.
const MaxReference = 1 << 20

// Snapshotter is a Checkpointer whose state another member can take over, when
// the log that it lacks is trimmed. The library brings the reference of one member to
// the other and goes on with the log behind the snapshot; how the bytes of the
// snapshot get there is the application's affair.
type Snapshotter interface {
	Checkpointer
	// Snapshot returns a reference to a copy of the state, of at most MaxReference
	// bytes, and the newest instance whose effects the copy has. It must be quick: what the
	// newest checkpoint wrote will do. A copy that is older than what Applied returned at
	// Open, or than what was trimmed, is of no use.
	Snapshot() (through paxos.Instance, reference []byte, err error)
	// Restore replaces the state by the copy that another member's reference names, and
	// makes it durable, so that Applied then returns through. If it fails, or the process
	// ends before it returns, the old state or the new one must be there, whole. It is
	// tried again with a fresh reference, perhaps of another member.
	Restore(ctx context.Context, through paxos.Instance, reference []byte) error
}

// methodSnapshot asks a member for a reference to a snapshot of a group.
const methodSnapshot = "node.snapshot"

type snapshotRequest struct {
	Group paxos.Group `json:"group"`
}

// offer answers methodSnapshot.
type offer struct {
	Through   paxos.Instance `json:"through"`
	First     paxos.Instance `json:"first"` // the offerer's log begins here
	Members   paxos.Members  `json:"members"`
	Reference []byte         `json:"reference"`
}

// chapter is a membership and the instance from which it was valid.
type chapter struct {
	from    paxos.Instance
	members paxos.Members
}

// maxChapters bounds the memberships that are remembered for snapshots; for an older
// snapshot a new checkpoint is made.
const maxChapters = 16

// begin notes that the state machine stands at an instance, and which membership the log
// knows, which is as of chosen. The applier is not running, or the caller holds applying.
func (g *group) begin(at, chosen paxos.Instance, ms paxos.Members) {
	g.given.Store(uint64(at))
	g.base, g.known, g.unread = at, chosen, chosen+1
	g.chapters = append(g.chapters[:0], chapter{at, ms})
}

// readAhead looks for memberships where the state machine was ahead of the log when
// they began: what the log learned there later is not applied.
func (g *group) readAhead() error {
	for ; g.unread <= g.base; g.unread++ {
		e, err := g.log.Read(g.unread)
		if err != nil {
			return err
		}
		if e.Kind == paxos.Membership && len(g.chapters) > 0 && g.chapters[0].from == g.base {
			ms, err := paxos.DecodeMembers(e.Data)
			if err != nil {
				return err
			}
			g.chapters[0].members = ms
		}
	}
	return nil
}

// turnPage notes a membership that the applier came by. What begin was told was then
// valid from a later instance on than the state machine's.
func (g *group) turnPage(i paxos.Instance, data []byte) {
	ms, err := paxos.DecodeMembers(data)
	if err != nil {
		panic(fmt.Sprintf("node: chosen membership at %d: %v", i, err))
	}
	if i <= g.known && len(g.chapters) > 0 && g.chapters[0].from == g.base {
		g.chapters = g.chapters[:0]
	}
	if len(g.chapters) == maxChapters {
		g.chapters = slices.Delete(g.chapters, 0, 1)
	}
	g.chapters = append(g.chapters, chapter{i, ms})
}

// membersAt is the membership that was valid at an instance, if it is known.
func (g *group) membersAt(i paxos.Instance) (paxos.Members, bool) {
	for k := len(g.chapters) - 1; k >= 0; k-- {
		if c := &g.chapters[k]; c.from <= i {
			return c.members, !c.members.Blank()
		}
	}
	return paxos.Members{}, false
}

func (n *Node) handleSnapshot(_ context.Context, _ paxos.NodeID, payload []byte) ([]byte, error) {
	var r snapshotRequest
	if err := json.Unmarshal(payload, &r); err != nil {
		return nil, fmt.Errorf("read request for a snapshot: %w", err)
	}
	g, err := n.group(r.Group)
	if err != nil {
		return nil, err
	}
	s, ok := g.opt.Machine.(Snapshotter)
	if !ok {
		return nil, fmt.Errorf("group %d has no snapshots on node %d", r.Group, n.opt.ID)
	}
	o, err := g.offer(s)
	if err != nil {
		return nil, fmt.Errorf("offer snapshot of group %d: %w", r.Group, err)
	}
	return json.Marshal(o)
}

// offer asks the state machine for a snapshot and adds what the log must know.
func (g *group) offer(s Snapshotter) (offer, error) {
	g.applying.Lock()
	defer g.applying.Unlock()
	if g.isOver() {
		return offer{}, ErrClosed
	}
	if at := paxos.Instance(g.applied.Load()); at < g.known || at > g.log.Chosen() {
		return offer{}, fmt.Errorf("node %d is itself not at the end of its log yet", g.node.opt.ID)
	}
	if err := g.readAhead(); err != nil {
		return offer{}, err
	}
	o, err := g.ask(s)
	if err == nil {
		return o, nil
	}
	if err := s.Checkpoint(); err != nil {
		return offer{}, fmt.Errorf("make checkpoint: %w", err)
	}
	g.saved.Store(g.applied.Load())
	return g.ask(s)
}

func (g *group) ask(s Snapshotter) (offer, error) {
	through, ref, err := s.Snapshot()
	if err != nil {
		return offer{}, err
	}
	if len(ref) > MaxReference {
		return offer{}, fmt.Errorf("reference of %d bytes: %w", len(ref), ErrTooLarge)
	}
	first := g.log.First()
	if through+1 < max(first, g.base+1) {
		return offer{}, fmt.Errorf("the snapshot goes through %d, the log begins at %d: %w", through, first, ErrTrimmed)
	}
	ms, ok := g.membersAt(through)
	if !ok {
		return offer{}, fmt.Errorf("the membership at %d is forgotten", through)
	}
	return offer{Through: through, First: first, Members: ms, Reference: ref}, nil
}

// rescue brings the group back by a snapshot whenever others no longer have what it
// lacks.
func (n *Node) rescue(g *group, s Snapshotter) {
	t := time.NewTicker(announceEvery)
	defer t.Stop()
	var stuck paxos.Instance // where it was lacking at the last look, plus one
	for {
		select {
		case <-n.ctx.Done():
			return
		case <-t.C:
		}
		st, err := g.log.Status(n.ctx)
		switch {
		case err != nil || st.Lacking == 0:
			stuck = 0
			continue
		case stuck != st.Chosen+1:
			stuck = st.Chosen + 1 // others may still have it
			continue
		}
		if err := g.restoreFromAny(s, st.Leader, st.Chosen); err != nil {
			n.opt.Logger.Warn("snapshot cannot be restored yet", "group", uint32(g.opt.ID), "chosen", uint64(st.Chosen), "lacking", uint64(st.Lacking), "error", err)
		}
	}
}

// restoreFromAny asks the leader first, then the others.
func (g *group) restoreFromAny(s Snapshotter, leader paxos.NodeID, chosen paxos.Instance) error {
	n := g.node
	var who []paxos.NodeID
	for _, p := range n.net.Status().Peers {
		if p.ID == leader {
			who = slices.Insert(who, 0, p.ID)
		} else {
			who = append(who, p.ID)
		}
	}
	var errs []error
	for _, id := range who {
		o, err := n.askSnapshot(id, g.opt.ID)
		if err == nil && o.Through <= chosen {
			err = fmt.Errorf("its snapshot goes through %d only", o.Through)
		}
		if err == nil {
			err = g.restore(s, id, o)
		}
		if err == nil {
			return nil
		}
		errs = append(errs, fmt.Errorf("snapshot of node %d: %w", id, err))
	}
	return errors.Join(errs...)
}

func (n *Node) askSnapshot(of paxos.NodeID, id paxos.Group) (offer, error) {
	var o offer
	ctx, cancel := context.WithTimeout(n.ctx, snapshotTimeout)
	defer cancel()
	b, err := json.Marshal(snapshotRequest{id})
	if err == nil {
		b, err = n.net.Call(ctx, of, methodSnapshot, b)
	}
	if err == nil {
		err = json.Unmarshal(b, &o)
	}
	if err == nil {
		err = o.Members.Check()
	}
	return o, err
}

// snapshotTimeout is the wait for a reference; a checkpoint may be made for it.
const snapshotTimeout = 30 * time.Second

// restore lets the state machine take over a snapshot and the log go on behind it.
// Nothing is applied meanwhile. If the process ends between the two, the state
// machine is ahead of the log, and the next restore goes on from there.
func (g *group) restore(s Snapshotter, from paxos.NodeID, o offer) error {
	g.applying.Lock()
	defer g.applying.Unlock()
	if g.applyWaiting(); g.isOver() {
		return ErrClosed
	}
	if at := paxos.Instance(g.given.Load()); o.Through < at {
		return fmt.Errorf("it goes through %d, the state machine is at %d", o.Through, at)
	}
	n := g.node
	n.opt.Logger.Info("restoring snapshot", "group", uint32(g.opt.ID), "peer", uint64(from), "through", uint64(o.Through))
	if err := s.Restore(n.ctx, o.Through, o.Reference); err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	g.applied.Store(max(g.applied.Load(), uint64(o.Through)))
	g.saved.Store(uint64(o.Through))
	g.begin(o.Through, o.Through, o.Members)
	err := g.log.Install(n.ctx, o.Through, o.Members)
	switch {
	case errors.Is(err, replica.ErrOldSnapshot): // the log came after all
	case errors.Is(err, wal.ErrNoSpace):
		return err // nothing is lost, and it is tried again
	case err != nil:
		if n.ctx.Err() == nil {
			n.fail(err)
		}
		return err
	default:
		g.stand()
		n.opt.Logger.Info("snapshot restored", "group", uint32(g.opt.ID), "through", uint64(o.Through))
	}
	g.moved.send()
	g.raise(g.log.Chosen())
	return nil
}
