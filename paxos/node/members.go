package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/phxsql/phxsql/internal/host"
	"github.com/phxsql/phxsql/internal/transport"
	"github.com/phxsql/phxsql/paxos"
)

// methodIdentity asks a node which log it has.
const methodIdentity = "node.identity"

// identityReply answers methodIdentity.
type identityReply struct {
	Log string `json:"log"`
	// Blank are the groups of the node that know no membership.
	Blank []paxos.Group `json:"blank"`
}

const (
	foundEvery  = 200 * time.Millisecond // between two attempts to found a group
	callTimeout = 2 * time.Second
)

func (n *Node) hello() transport.Hello {
	return transport.Hello{Cluster: n.opt.Cluster, Log: n.log.Identity()}
}

// admit judges another node: it must be of the same cluster, and if it is a member
// of any group it must come with the log that it joined with.
func (n *Node) admit(h transport.Hello) error {
	if h.Cluster != n.opt.Cluster {
		return fmt.Errorf("node %d belongs to cluster %q, this is %q: %w", h.Node, h.Cluster, n.opt.Cluster, transport.ErrWrongCluster)
	}
	known := false
	for _, id := range n.order {
		ms := n.groups[id].log.Leader().Members
		m, ok := ms.Find(h.Node)
		if ok && m.Log != "" && m.Log != h.Log {
			return fmt.Errorf("member %d of group %d joined with log %s and comes with %s (hint: remove it and add it under another id): %w",
				h.Node, id, m.Log, h.Log, transport.ErrWrongLog)
		}
		known = known || ok || ms.Blank()
	}
	n.mu.Lock()
	_, guest := n.guests[h.Node]
	n.mu.Unlock()
	if !known && !guest {
		return fmt.Errorf("node %d is in no group of cluster %q: %w", h.Node, n.opt.Cluster, transport.ErrNotMember)
	}
	return nil
}

// connect names to the transport everybody whom this node must reach.
func (n *Node) connect() {
	addr := map[paxos.NodeID]string{}
	blank := false
	for _, id := range n.order {
		ms := n.groups[id].log.Leader().Members
		blank = blank || ms.Blank()
		for _, m := range ms.List {
			addr[m.ID] = m.Addr
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	add := func(m paxos.Member) {
		if _, known := addr[m.ID]; !known {
			addr[m.ID] = m.Addr
		}
	}
	for _, m := range n.guests {
		add(m)
	}
	if blank {
		for _, m := range n.opt.Members {
			add(m)
		}
	}
	var ps []transport.Peer
	for id, a := range addr {
		ps = append(ps, transport.Peer{ID: id, Addr: a})
	}
	if err := n.net.SetPeers(ps); err != nil && !errors.Is(err, transport.ErrClosed) {
		n.opt.Logger.Warn("peers cannot be connected", "error", err)
	}
}

// follow keeps the connections in step with the membership of a group.
func (n *Node) follow(g *group) {
	known := g.log.Leader().Members
	for {
		changed := g.log.Changed()
		if ms := g.log.Leader().Members; !slices.Equal(ms.List, known.List) {
			known = ms
			if err := g.checkLog(); err != nil {
				n.fail(err)
			}
			n.connect()
			n.net.Recheck()
		}
		select {
		case <-changed:
		case <-n.ctx.Done():
			return
		}
	}
}

func (n *Node) handleIdentity(context.Context, paxos.NodeID, []byte) ([]byte, error) {
	r := identityReply{Log: n.log.Identity()}
	for _, id := range n.order {
		if n.groups[id].log.Leader().Members.Blank() {
			r.Blank = append(r.Blank, id)
		}
	}
	return json.Marshal(r)
}

func (n *Node) identity(ctx context.Context, of paxos.NodeID) (identityReply, error) {
	var r identityReply
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	b, err := n.net.Call(ctx, of, methodIdentity, nil)
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	return r, err
}

// found makes the first membership of a group if that is this node's task: once all
// first members are up, it writes down who they are and which logs they have. A
// member that is blank while others are not waits: it learns the membership from them,
// or they refuse it because they know it with another log.
func (n *Node) found(g *group) {
	list := n.opt.Members
	k := slices.IndexFunc(list, func(m paxos.Member) bool { return m.Votes() })
	if k < 0 || list[k].ID != n.opt.ID {
		return
	}
	for g.log.Leader().Members.Blank() {
		ms, err := n.survey(g.opt.ID)
		if err == nil {
			err = g.log.Bootstrap(n.ctx, ms)
			g.stand()
		}
		if err == nil || errors.Is(err, host.ErrNotBlank) {
			return
		}
		n.opt.Logger.Debug("group not founded yet", "group", uint32(g.opt.ID), "error", err)
		select {
		case <-n.ctx.Done():
			return
		case <-g.log.Changed():
		case <-time.After(foundEvery):
		}
	}
}

// survey asks all first members for their logs.
func (n *Node) survey(id paxos.Group) (paxos.Members, error) {
	ms := n.opt.first()
	ms.List = slices.Clone(ms.List)
	for i := range ms.List {
		m := &ms.List[i]
		if m.ID == n.opt.ID {
			m.Log = n.log.Identity()
			continue
		}
		r, err := n.identity(n.ctx, m.ID)
		if err != nil {
			return ms, fmt.Errorf("ask node %d for its log: %w", m.ID, err)
		}
		if !slices.Contains(r.Blank, id) {
			return ms, fmt.Errorf("node %d does not run group %d or has members already", m.ID, id)
		}
		m.Log = r.Log
	}
	return ms, nil
}

// Members returns the valid membership of a group, blank while there is none.
func (n *Node) Members(id paxos.Group) paxos.Members {
	if g := n.groups[id]; g != nil {
		return g.log.Leader().Members
	}
	return paxos.Members{}
}

// askGuest asks a node that is not a member for its log.
func (n *Node) askGuest(ctx context.Context, m paxos.Member) (string, error) {
	n.mu.Lock()
	n.guests[m.ID] = m
	n.mu.Unlock()
	n.connect()
	r, err := n.identity(ctx, m.ID)
	if err != nil {
		n.dismiss(m.ID)
	}
	return r.Log, err
}

func (n *Node) dismiss(id paxos.NodeID) {
	n.mu.Lock()
	delete(n.guests, id)
	n.mu.Unlock()
	n.connect()
}
