package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/phxsql/phxsql/paxos"
	"github.com/phxsql/phxsql/wal"
)

// positions are instances by group.
type positions map[paxos.Group]paxos.Instance

// announcement is what nodes tell each other about once a second: through which
// instance of each group the sender's log is durable and known to be chosen.
type announcement struct {
	Durable positions `json:"durable"`
}

const announceEvery = time.Second

// announce tells the others how far this node's log is durable, so that they know
// what they may trim.
func (n *Node) announce() {
	t := time.NewTicker(announceEvery)
	defer t.Stop()
	for {
		select {
		case <-n.ctx.Done():
			return
		case <-t.C:
		}
		d := positions{}
		for _, id := range n.order {
			d[id] = n.groups[id].log.Chosen()
		}
		if _, err := n.log.Sync(); err != nil { // chosen is not yet durable
			if errors.Is(err, wal.ErrFailed) {
				n.fail(err)
			}
			continue
		}
		n.setHeard(n.opt.ID, d)
		b, err := json.Marshal(announcement{Durable: d})
		if err != nil {
			panic(fmt.Sprintf("node: encode announcement: %v", err)) // numbers: cannot fail
		}
		for _, p := range n.net.Status().Peers {
			_ = n.net.SendApp(p.ID, b) // the next one comes in a second
		}
	}
}

// HandleApp implements the transport's handler: it takes announcements.
func (n *Node) HandleApp(from paxos.NodeID, payload []byte) {
	var a announcement
	if err := json.Unmarshal(payload, &a); err != nil {
		n.opt.Logger.Warn("announcement cannot be read", "peer", uint64(from), "error", err)
		return
	}
	n.setHeard(from, a.Durable)
}

func (n *Node) setHeard(id paxos.NodeID, d positions) {
	n.mu.Lock()
	n.heard[id] = d
	n.mu.Unlock()
}

// Trim gives up the values of a group through an instance, and returns the instance
// through which they are gone. That is less than asked for while the local state
// machine has not applied more, or another member, for which Group.Retain keeps
// the log, is not known to have more on its disk. Space comes back in whole segments that no group needs.
//
// The caller's own state must be durable through that instance, or a restart finds a log
// that begins too late.
func (n *Node) Trim(id paxos.Group, through paxos.Instance) (paxos.Instance, error) {
	g, err := n.group(id)
	if err != nil {
		return 0, fmt.Errorf("trim: %w", err)
	}
	return g.trim(through), nil
}

func (g *group) trim(through paxos.Instance) paxos.Instance {
	n := g.node
	through = min(through, paxos.Instance(g.given.Load()))
	ms := g.log.Leader().Members
	held := through // by members that lack it
	n.mu.Lock()
	through = min(through, n.heard[n.opt.ID][g.opt.ID])
	for _, m := range ms.List {
		held = min(held, n.heard[m.ID][g.opt.ID])
	}
	n.mu.Unlock()
	if at, keep := paxos.Instance(g.given.Load()), paxos.Instance(g.opt.Retain); keep > 0 && at > keep {
		held = max(held, at-keep)
	}
	through = min(through, held)
	if through >= g.log.First() {
		n.log.TrimBelow(wal.Group(g.opt.ID), uint64(through)+1)
	}
	return g.log.First() - 1
}

// checkpoint asks the state machine for a checkpoint when it is time, and trims the
// log behind it. It runs between two calls of Apply.
func (g *group) checkpoint() {
	c, ok := g.opt.Machine.(Checkpointer)
	at := g.applied.Load()
	if !ok || g.opt.CheckpointEvery == 0 || at-g.saved.Load() < g.opt.CheckpointEvery {
		return
	}
	if err := c.Checkpoint(); err != nil {
		g.node.opt.Logger.Error("checkpoint failed", "group", uint32(g.opt.ID), "error", err, "hint", "the log is kept; the next attempt comes after as many instances")
		g.saved.Store(at) // not saved, but not to be tried at every instance
		return
	}
	g.saved.Store(at)
	g.trim(paxos.Instance(at))
}
