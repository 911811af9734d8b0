package agent

import (
	"context"
	"crypto/tls"
	"fmt"
	"slices"
	"time"

	"github.com/phxsql/phxsql/internal/api"
	"github.com/phxsql/phxsql/internal/telemetry"
	"github.com/phxsql/phxsql/internal/transport"
	"github.com/phxsql/phxsql/paxos"
)

type tlsConfig = *tls.Config

// hello is what this node says about itself to every other one.
func (a *Agent) hello() transport.Hello {
	return transport.Hello{Cluster: a.group.Leader().Members.Cluster, Log: a.wal.Identity()}
}

// admit judges another node. A blank node takes in everybody who holds the
// cluster's secret: it waits to be named. A member takes in its fellow members
// with the logs that they joined with, and those who wait to learn that they are.
func (a *Agent) admit(h transport.Hello) error {
	_, joins := a.joining.get()
	return judgeHello(a.group.Leader().Members, a.isGuest(h.Node), joins, h)
}

// judgeHello is admit by what a node knows: guest is a node that it has invited, joins
// says that it is on its way into its cluster itself.
func judgeHello(ms paxos.Members, guest, joins bool, h transport.Hello) error {
	if ms.Blank() || guest && (h.Cluster == "" || h.Cluster == ms.Cluster) {
		return nil
	}
	if h.Cluster != "" && h.Cluster != ms.Cluster {
		return fmt.Errorf("node %d belongs to cluster %s, this is %s: %w", h.Node, h.Cluster, ms.Cluster, transport.ErrWrongCluster)
	}
	m, ok := ms.Find(h.Node)
	if !ok && joins {
		return nil // who they are now is further on in the log
	}
	if !ok {
		return fmt.Errorf("cluster %s has no member %d: %w", ms.Cluster, h.Node, transport.ErrNotMember)
	}
	if m.Log != "" && h.Log != m.Log {
		return fmt.Errorf("member %d joined with log %s and comes with %s; its data directory was replaced: %w", h.Node, m.Log, h.Log, transport.ErrWrongLog)
	}
	return nil
}

// followMembers connects to those whom the membership names.
func (a *Agent) followMembers() {
	a.connectKnown()
	a.transport.Recheck()
}

// watchMembers follows changes of the membership until ctx ends.
func (a *Agent) watchMembers(ctx context.Context) {
	known := string(a.group.Leader().Members.Encode())
	for {
		changed := a.group.Changed()
		if now := string(a.group.Leader().Members.Encode()); now != known {
			known = now
			a.log.Info("membership changed", telemetry.KeyMembers, now)
			a.followMembers()
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// HandleMessages takes consensus messages from the transport.
func (a *Agent) HandleMessages(from paxos.NodeID, g paxos.Group, msgs []paxos.Message) {
	a.host.HandleMessages(from, g, msgs)
}

// HandleApp takes announcements from the transport.
func (a *Agent) HandleApp(from paxos.NodeID, payload []byte) {
	an, err := decodeAnnouncement(payload)
	if err != nil {
		a.log.Warn("announcement cannot be read", telemetry.KeyMember, uint64(from), telemetry.KeyError, err)
		return
	}
	if an.Cluster != a.clusterID() {
		return // from before an init
	}
	old, _, known := a.peers.get(from, time.Now())
	if a.peers.put(from, an, time.Now()) && (!known || old.Able != an.Able || old.Wary != an.Wary || old.Member.Master != an.Member.Master ||
		old.Member.State != an.Member.State || old.Member.RWAddr != an.Member.RWAddr) {
		go a.loop.post(func() {}) // it may change a decision
	}
}

// announce tells the others about this node, about once a second and at once when
// something has changed.
func (a *Agent) announce(ctx context.Context) {
	t := time.NewTicker(announceEvery)
	defer t.Stop()
	for {
		a.announceOnce()
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		case <-a.loop.moved:
		}
	}
}

func (a *Agent) announceOnce() {
	s := a.loop.last.Load()
	if a.clusterID() == "" || s == nil {
		return
	}
	a.seq++
	an := announcement{
		Boot: a.boot, Seq: a.seq, Able: s.view.Candidacy.Able, Wary: s.wary(), Near: s.lag <= nearLag, Arriving: a.arriving(s), Counted: s.counted, Cluster: a.clusterID(), Notices: true, Leases: true, Log: a.wal.Identity(), Member: a.member(),
	}
	b, err := an.encode()
	if err != nil {
		a.log.Error("announcement cannot be written", telemetry.KeyError, err)
		return
	}
	for _, m := range a.knownMembers() {
		if m.ID != a.cfg.Node.ID {
			_ = a.transport.SendApp(m.ID, b) // a peer that is down hears of it later
		}
	}
}

// rwAddr is where a member's read-write port is.
func (a *Agent) rwAddr(id paxos.NodeID) (string, bool) {
	an, _, ok := a.peers.get(id, time.Now())
	return an.Member.RWAddr, ok && an.Member.RWAddr != ""
}

// unreachable says why a silent member cannot be heard of, as far as the transport
// knows.
func (a *Agent) unreachable(id paxos.NodeID) api.Problem {
	p := api.Problem{
		Name: "unreachable", Reason: "nothing was heard of this member lately",
		Hint: "start its agent, or look at the network between the members",
	}
	for _, s := range a.transport.Status().Peers {
		if s.ID != id || s.Connected || s.LastError == "" {
			continue
		}
		p.Reason += ": " + s.LastError
		if hint, ok := strangerHints[s.Reason]; ok {
			p.Name, p.Hint = s.Reason, hint
		}
	}
	return p
}

// expelled reports that other members refuse this node because it is no member any
// more, and that none tells it anything.
func (a *Agent) expelled() bool {
	now := time.Now()
	for _, m := range a.knownMembers() {
		if _, age, ok := a.peers.get(m.ID, now); ok && age < aliveFor {
			return false
		}
	}
	return slices.ContainsFunc(a.transport.Status().Peers, func(p transport.PeerStatus) bool {
		return p.Reason == transport.Reason(transport.ErrNotMember) && now.Sub(p.LastErrorAt) < refusedFor
	})
}

// lostLogHint is what to do about a member that has lost its log. It must not
// vote with another one: it has forgotten what it promised.
const lostLogHint = "bring its old data directory back, or let a machine with a new node.id take its place: phxsql join --replace"

// strangerHints are the reasons for which nodes refuse each other that do not pass by
// themselves, and what to do about them.
var strangerHints = map[string]string{
	transport.Reason(transport.ErrWrongLog):           lostLogHint,
	transport.Reason(transport.ErrWrongSecret):        "compare cluster.secret_file and the clock on both machines, and stop a node that does not belong here",
	transport.Reason(transport.ErrWrongCluster):       "a machine of another cluster, or of an older one, has an address of this one: check the addresses, or stop it",
	transport.Reason(transport.ErrCertificateExpired): "put the clocks of both machines right",
	transport.Reason(transport.ErrDuplicateNode):      "two machines run with this node.id: stop the one that is a copy, and let it join with an id and a data directory of its own",
}

// refusedFor is how long a refusal counts.
const refusedFor = 30 * time.Second

// strangers says which nodes this one has refused lately, or was refused by, without
// a connection to them of its own that says so.
func (a *Agent) strangers() []api.Problem {
	var ps []api.Problem
	for _, r := range a.transport.Status().Refused {
		hint, ok := strangerHints[r.Reason]
		if !ok || time.Since(r.Last) > refusedFor {
			continue
		}
		who := "a machine"
		if r.Node != 0 {
			who = fmt.Sprintf("node %d", r.Node)
		}
		ps = append(ps, api.Problem{Name: r.Reason, Reason: fmt.Sprintf("%s at %s and this node do not talk: %s", who, r.Remote, r.Error), Hint: hint})
	}
	return ps
}

func (a *Agent) logBytes() int64 { return a.wal.Size() }

var _ api.Node = (*Agent)(nil)
