package agent

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/phxsql/phxsql/internal/api"
	"github.com/phxsql/phxsql/internal/telemetry"
	"github.com/phxsql/phxsql/internal/transport"
	"github.com/phxsql/phxsql/paxos"
)

// joinLimit is how long a node may take to answer that it is ready to join.
const joinLimit = 10 * time.Second

// Init makes a cluster of blank nodes. Every node is asked first; nothing is
// written unless all of them are up, blank and ready.
func (a *Agent) Init(ctx context.Context, req api.InitRequest) (api.InitResult, error) {
	if !a.initMu.TryLock() {
		return api.InitResult{}, api.Refused("busy", "another init is under way", "wait until it is over")
	}
	defer a.initMu.Unlock()
	members := slices.Clone(req.Members)
	slices.SortFunc(members, func(x, y api.InitMember) int {
		if x.ID < y.ID {
			return -1
		}
		return 1
	})
	if ms := a.group.Leader().Members; !ms.Blank() {
		return a.resumeInit(ctx, ms, members, req)
	}
	if err := a.checkInit(members); err != nil {
		return api.InitResult{}, err
	}
	list, err := a.gather(ctx, members)
	if err != nil {
		return api.InitResult{}, err
	}
	ms := paxos.Members{Cluster: newClusterID(), List: list}
	if err := a.group.Bootstrap(ctx, ms); err != nil {
		return api.InitResult{}, fmt.Errorf("write the membership: %w", err)
	}
	a.log.Info("cluster made", telemetry.KeyCluster, ms.Cluster, telemetry.KeyCount, len(list))
	for i := range members {
		members[i].Name = list[i].Name
	}
	return a.finishInit(ctx, ms, members, req)
}

func (a *Agent) finishInit(ctx context.Context, ms paxos.Members, members []api.InitMember, req api.InitRequest) (api.InitResult, error) {
	res := api.InitResult{Cluster: ms.Cluster, Members: members, User: req.User}
	if err := a.waitMaster(ctx); err != nil {
		return res, err
	}
	return a.firstUser(ctx, req, res)
}

// resumeInit goes on with an init that was interrupted after the membership was
// written: without an account for clients nobody could use the cluster. The same
// members must be named; the master refuses if there is any account.
func (a *Agent) resumeInit(ctx context.Context, ms paxos.Members, members []api.InitMember, req api.InitRequest) (api.InitResult, error) {
	same := req.User != "" && len(members) == len(ms.List)
	for i := 0; same && i < len(members); i++ {
		m, ok := ms.Find(members[i].ID)
		same = ok && m.Addr == members[i].Peer
		members[i].Name = m.Name
	}
	if !same {
		return api.InitResult{}, notBlank(ms.Cluster)
	}
	return a.finishInit(ctx, ms, members, req)
}

func notBlank(cluster string) *api.Error {
	return api.Refused("not_blank", "this node belongs to cluster "+cluster+" already", "init is for new clusters only; phxsql status shows this one")
}

// newClusterID draws the identity of a cluster.
func newClusterID() string { return rand.Text()[:16] }

func (a *Agent) checkInit(members []api.InitMember) error {
	self := slices.IndexFunc(members, func(m api.InitMember) bool { return m.ID == a.cfg.Node.ID })
	if self < 0 {
		return api.BadRequest("self_missing", fmt.Sprintf("this node (id %d) is not among the members", a.cfg.Node.ID), "name it too, or ask one of the members")
	}
	if s := a.loop.last.Load(); s != nil && !s.seen.Executed.Empty() {
		return api.Refused("not_empty", "this node's server holds transactions", "init needs blank nodes; remove the data directory if nothing in it is needed")
	}
	return nil
}

// gather connects to all members, and asks each for the identity of its log.
func (a *Agent) gather(ctx context.Context, members []api.InitMember) ([]paxos.Member, error) {
	if err := a.transport.SetPeers(transportPeers(members)); err != nil {
		return nil, err
	}
	var list []paxos.Member
	for _, m := range members {
		ans, err := a.askToJoin(ctx, m, members)
		if err != nil {
			return nil, err
		}
		name := m.Name
		if name == "" {
			name = ans.Name
		}
		list = append(list, paxos.Member{ID: m.ID, Role: paxos.Voter, Log: ans.Log, Addr: m.Peer, Name: name})
	}
	return list, nil
}

// strangerEvery is how often it is looked whether a node that is called can be one of us.
const strangerEvery = 50 * time.Millisecond

// callNew asks a new node to join. It does not wait for one that cannot be connected
// with for a reason that does not pass.
func (a *Agent) callNew(ctx context.Context, id paxos.NodeID, req joinRequest, ans *joinAnswer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	began := time.Now()
	go func() {
		t := time.NewTicker(strangerEvery)
		defer t.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-t.C:
			}
			for _, p := range a.transport.Status().Peers {
				if p.ID == id && !p.Connected && p.LastErrorAt.After(began) &&
					(p.Reason == transport.Reason(transport.ErrWrongSecret) || p.Reason == transport.Reason(transport.ErrCertificateExpired)) {
					cancel()
				}
			}
		}
	}()
	return a.call(ctx, id, callJoin, req, ans)
}

func (a *Agent) askToJoin(ctx context.Context, m api.InitMember, members []api.InitMember) (joinAnswer, error) {
	ctx, cancel := context.WithTimeout(ctx, joinLimit)
	defer cancel()
	var ans joinAnswer
	if err := a.callNew(ctx, m.ID, joinRequest{Members: members}, &ans); err != nil {
		return ans, api.Unavailable("member_unreachable", fmt.Sprintf("node %d at %s does not answer: %s", m.ID, m.Peer, strings.ReplaceAll(err.Error(), "\n", "; ")),
			"start it with 'phxsql server', with the same secret file, and check its peer address").Because(err)
	}
	if ans.Cluster != "" {
		return ans, api.Refused("member_not_blank", fmt.Sprintf("node %d belongs to cluster %s already", m.ID, ans.Cluster),
			"init is for new clusters only; give that node an empty data directory if nothing in it is needed")
	}
	return ans, nil
}

// onJoin gets a blank node ready: it connects to those who are to be its peers.
func (a *Agent) onJoin(_ context.Context, _ paxos.NodeID, req joinRequest) (joinAnswer, error) {
	s := a.loop.last.Load()
	ans := joinAnswer{
		Name: a.cfg.DisplayName(), Log: a.wal.Identity(), Cluster: a.group.Leader().Members.Cluster,
		Engine: a.install.Version.Release(), State: string(s.state()),
	}
	if ans.Cluster != "" {
		return ans, nil
	}
	if req.Cluster != "" {
		return ans, a.accept(req, s)
	}
	if !s.seen.Executed.Empty() {
		return ans, api.Refused("not_empty", fmt.Sprintf("the server of node %d holds transactions", a.cfg.Node.ID),
			"init needs blank nodes; remove its data directory if nothing in it is needed")
	}
	return ans, a.transport.SetPeers(transportPeers(req.Members))
}

// accept takes an invitation of a cluster.
func (a *Agent) accept(req joinRequest, s *snapshot) error {
	w, asked := a.joining.get()
	if !asked && !s.seen.Executed.Empty() {
		return api.Refused("not_empty", fmt.Sprintf("the server of node %d holds transactions", a.cfg.Node.ID),
			"a new member must be empty; remove its data directory if nothing in it is needed")
	}
	if w.Cluster != "" && w.Cluster != req.Cluster {
		return api.Refused("other_cluster", fmt.Sprintf("node %d is on its way into cluster %s", a.cfg.Node.ID, w.Cluster), "remove its data directory if nothing in it is needed")
	}
	w.Cluster, w.Members, w.Role, w.Replace = req.Cluster, req.Members, req.Role, req.Replace
	if err := a.joining.put(w); err != nil {
		return err
	}
	if roleOf(w.Role) != paxos.Witness {
		go a.loop.post(a.loop.doubt)
	}
	a.connectKnown()
	return nil
}

func transportPeers(members []api.InitMember) []transport.Peer {
	var ps []transport.Peer
	for _, m := range members {
		ps = append(ps, transport.Peer{ID: m.ID, Addr: m.Peer})
	}
	return ps
}

// waitMaster returns when some member's gate is open.
func (a *Agent) waitMaster(ctx context.Context) error {
	t := time.NewTicker(20 * time.Millisecond)
	defer t.Stop()
	for a.master() == 0 {
		select {
		case <-t.C:
		case <-ctx.Done():
			return api.Unavailable("no_master_yet", "the cluster is made, but no member serves yet", "see the problems in phxsql status")
		case <-a.loop.done:
			return errStopped
		}
	}
	return nil
}

// firstUser makes the first account for clients, through the master and the log.
func (a *Agent) firstUser(ctx context.Context, req api.InitRequest, res api.InitResult) (api.InitResult, error) {
	if req.User == "" {
		return res, nil
	}
	password := req.Password
	if password == "" {
		password = rand.Text()
		res.Password = password
	}
	if err := a.call(ctx, a.master(), callCreateUser, userRequest{req.User, password}, nil); err != nil {
		var refused *api.Error
		if errors.As(err, &refused) {
			return res, err
		}
		return res, fmt.Errorf("make account %s (the cluster itself is made; init can be repeated): %w", req.User, err)
	}
	return res, nil
}
