package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/phxsql/phxsql/internal/api"
	"github.com/phxsql/phxsql/internal/host"
	"github.com/phxsql/phxsql/internal/telemetry"
	"github.com/phxsql/phxsql/internal/transport"
	"github.com/phxsql/phxsql/paxos"
)

// changeLimit is how long a change of the membership may take.
const changeLimit = 30 * time.Second

// The calls to the leader about members. All may be repeated.
const (
	callAdd     = "member_add"     // api.AddRequest: admit a node that is up and new, as a learner
	callPromote = "member_promote" // promoteRequest: give a member that has caught up its role
	callRemove  = "member_remove"  // removeRequest
	callRole    = "member_role"    // roleRequest: make a learner a voter, or the other way round
	callPing    = "ping"           // nothing: a sign of life
)

type promoteRequest struct {
	ID      paxos.NodeID `json:"id"`
	Role    string       `json:"role"`
	Replace paxos.NodeID `json:"replace,omitempty"` // leaves in the same moment
}

type removeRequest struct {
	ID    paxos.NodeID `json:"id"`
	Force bool         `json:"force"`
}

type roleRequest struct {
	ID   paxos.NodeID `json:"id"`
	Role string       `json:"role"`
}

func (a *Agent) handleChanges() {
	handle(a, callAdd, a.onAdd)
	handle(a, callPromote, a.onPromote)
	handle(a, callRemove, a.onRemove)
	handle(a, callRole, a.onRole)
	handle(a, callPing, func(context.Context, paxos.NodeID, nothing) (nothing, error) { return nothing{}, nil })
	handle(a, callAddToken, a.onAddToken)
	handle(a, callRevokeToken, a.onRevokeToken)
	handle(a, callRedeem, a.onRedeem)
	handle(a, callSettings, a.onSettings)
	handle(a, callRotate, a.onRotate)
	handle(a, callRestart, a.onRestart)
	handle(a, callRestartSelf, a.onRestartSelf)
}

// leaderWait is how long what is asked of the leader waits for one that is ready: about
// an election with room to spare. leaderLook is how often it is looked.
const (
	leaderWait = 5 * time.Second
	leaderLook = 100 * time.Millisecond
)

// These refusals say that nothing was done because nobody was ready to lead.
const noLeader, leaderMoved, noMaster = "no_leader", "leader_moved", "no_master"

// callLeader asks the node that leads; see untilLed.
func (a *Agent) callLeader(ctx context.Context, method string, req, res any) error {
	return untilLed(ctx, func() error { return a.callLeaderNow(ctx, method, req, res) })
}

// untilLed asks for what the leader or the master has to do. In the moments after one has
// died or has won nobody may be ready: it is asked again until somebody is, for leaderWait.
func untilLed(ctx context.Context, ask func() error) error {
	for until := time.Now().Add(leaderWait); ; {
		err := ask()
		var named *api.Error
		if !errors.As(err, &named) || !slices.Contains([]string{noLeader, leaderMoved, noMaster}, named.Name) || !time.Now().Before(until) {
			return err
		}
		if rest(ctx, leaderLook) != nil {
			return err
		}
	}
}

func (a *Agent) callLeaderNow(ctx context.Context, method string, req, res any) error {
	v := a.group.Leader()
	switch {
	case v.Members.Blank():
		return api.Refused("blank", "this node belongs to no cluster", "ask a member")
	case v.Leader == 0:
		return api.Unavailable(noLeader, "no member leads now", "a majority of the members must be up and reach each other")
	case !a.reaches(v.Leader):
		return api.Unavailable(noLeader, fmt.Sprintf("member %d, which led last, cannot be reached", v.Leader), "a majority of the members must be up and reach each other")
	}
	return unanswered(v.Leader, a.call(ctx, v.Leader, method, req, res))
}

// unanswered says that a node was asked and was not heard of any more. What it did answer
// is passed on.
func unanswered(by paxos.NodeID, err error) error {
	var named *api.Error
	var answered *transport.CallError
	if err == nil || errors.As(err, &named) || errors.As(err, &answered) {
		return err
	}
	return api.Unavailable("unknown_outcome", fmt.Sprintf("node %d, which led, did not answer: %s", by, strings.ReplaceAll(err.Error(), "\n", "; ")),
		"whether it was done is not known: look at 'phxsql status', and ask again").Because(err)
}

// reaches reports that there is a connection to a node, or that it is this one.
func (a *Agent) reaches(id paxos.NodeID) bool {
	return id == a.cfg.Node.ID || slices.ContainsFunc(a.transport.Status().Peers, func(p transport.PeerStatus) bool { return p.ID == id && p.Connected })
}

// AddMember admits a node; it may be asked of any member.
func (a *Agent) AddMember(ctx context.Context, req api.AddRequest) (api.MembersResult, error) {
	var res api.MembersResult
	return res, a.callLeader(ctx, callAdd, req, &res)
}

// RemoveMember removes a member; it may be asked of any member. The leader hands over
// before it is removed.
func (a *Agent) RemoveMember(ctx context.Context, who string, force bool) (api.MembersResult, error) {
	var res api.MembersResult
	id, err := a.findMember(who)
	if err != nil {
		return res, err
	}
	if err := a.moveAway(ctx, id); err != nil {
		return res, err
	}
	return res, a.callLeader(ctx, callRemove, removeRequest{id, force}, &res)
}

// moveAway makes another member the master and leader if this one is it.
func (a *Agent) moveAway(ctx context.Context, id paxos.NodeID) error {
	if a.group.Leader().Leader != id {
		return nil
	}
	if a.master() == id && a.reaches(id) {
		if err := a.call(ctx, id, callSwitchover, switchoverRequest{}, nil); err != nil {
			return err
		}
	}
	for {
		changed := a.group.Changed()
		if ld := a.group.Leader().Leader; ld != id && ld != 0 {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return api.Unavailable("still_leads", fmt.Sprintf("member %d still leads", id), "run 'phxsql switchover' first")
		}
	}
}

// onAdd admits a node that is up and new as a learner. It gets the data, and asks for
// its role when it has caught up.
func (a *Agent) onAdd(ctx context.Context, _ paxos.NodeID, req api.AddRequest) (api.MembersResult, error) {
	a.changeMu.Lock()
	defer a.changeMu.Unlock()
	ms := a.group.Leader().Members
	replace, err := a.checkAdd(ms, req)
	if err != nil {
		return api.MembersResult{}, err
	}
	known, again := ms.Find(req.ID)
	ans, err := a.invite(ctx, ms, req, replace)
	if err != nil {
		return api.MembersResult{}, err
	}
	if again && known.Log != ans.Log {
		return api.MembersResult{}, api.Refused("id_taken", fmt.Sprintf("member %d exists already, with another log", req.ID),
			"give the new machine a node.id of its own: ids are never used again; 'phxsql join --replace' takes the old one's place")
	}
	name := req.Name
	if name == "" {
		name = ans.Name
	}
	if again {
		return result(ms), nil
	}
	list := append(slices.Clone(ms.List), paxos.Member{ID: req.ID, Role: paxos.Learner, Log: ans.Log, Addr: req.Peer, Name: name})
	return a.changeMembers(ctx, ms, list)
}

// checkAdd refuses what cannot be right.
func (a *Agent) checkAdd(ms paxos.Members, req api.AddRequest) (replace paxos.NodeID, err error) {
	if roleOf(req.Role) == 0 {
		return 0, api.BadRequest("bad_role", fmt.Sprintf("%q is not a role", req.Role), "use voter, witness or learner")
	}
	if req.Replace != "" {
		if replace, err = a.findMember(req.Replace); err != nil {
			return 0, err
		}
		if replace == req.ID {
			return 0, api.BadRequest("bad_replace", "a member cannot take its own place", "give the new machine a node.id that was never used")
		}
	}
	for _, m := range ms.List {
		if m.ID != req.ID && m.Addr == req.Peer {
			return 0, api.Refused("address_taken", fmt.Sprintf("member %d has the address %s", m.ID, req.Peer), "give the peer address of the new machine")
		}
	}
	if len(ms.List) >= paxos.MaxMembers {
		return 0, api.Refused("too_many_members", fmt.Sprintf("there are %d members, the limit", len(ms.List)), "remove one first")
	}
	return replace, nil
}

// invite connects with a new node, tells it who the members are, and gets the identity
// of its log.
func (a *Agent) invite(ctx context.Context, ms paxos.Members, req api.AddRequest, replace paxos.NodeID) (joinAnswer, error) {
	ctx, cancel := context.WithTimeout(ctx, joinLimit)
	defer cancel()
	a.setGuest(req.ID, req.Peer)
	defer a.setGuest(req.ID, "")
	var ans joinAnswer
	invitation := joinRequest{Cluster: ms.Cluster, Role: req.Role, Replace: replace}
	for _, m := range ms.List {
		invitation.Members = append(invitation.Members, api.InitMember{ID: m.ID, Peer: m.Addr, Name: m.Name})
	}
	if err := a.callNew(ctx, req.ID, invitation, &ans); err != nil {
		var named *api.Error
		if errors.As(err, &named) {
			return ans, err
		}
		return ans, api.Unavailable("member_unreachable", fmt.Sprintf("node %d at %s does not answer: %s", req.ID, req.Peer, strings.ReplaceAll(err.Error(), "\n", "; ")),
			"it must run, with this cluster's secret; check its peer address as the members see it").Because(err)
	}
	if ans.Cluster != "" && ans.Cluster != ms.Cluster {
		return ans, api.Refused("other_cluster", fmt.Sprintf("node %d belongs to cluster %s", req.ID, ans.Cluster), "give it an empty data directory if nothing in it is needed")
	}
	return ans, nil
}

// onPromote gives a member its role. Who asks believes to have caught up.
func (a *Agent) onPromote(ctx context.Context, _ paxos.NodeID, req promoteRequest) (nothing, error) {
	if req.Replace == a.cfg.Node.ID {
		if err := a.loop.requestSwitchover(ctx, 0, switchLimit); err != nil {
			return nothing{}, err
		}
		return nothing{}, api.Unavailable("leader_moves", "the member to be replaced led; another one does now", "it is tried again by itself")
	}
	if roleOf(req.Role) == paxos.Voter {
		if err := a.checkNear(ctx, req.ID); err != nil {
			return nothing{}, err
		}
	}
	a.changeMu.Lock()
	defer a.changeMu.Unlock()
	ms := a.group.Leader().Members
	list := slices.Clone(ms.List)
	k := slices.IndexFunc(list, func(m paxos.Member) bool { return m.ID == req.ID })
	if k < 0 || roleOf(req.Role) == 0 {
		return nothing{}, api.NotFound("unknown_member", fmt.Sprintf("%d is not a member", req.ID), "it was removed meanwhile")
	}
	list[k].Role = roleOf(req.Role)
	list = slices.DeleteFunc(list, func(m paxos.Member) bool { return m.ID == req.Replace })
	if err := a.checkMajority(ctx, list, false); err != nil {
		return nothing{}, err
	}
	a.sayFarewell(ms, req.Replace)
	_, err := a.changeMembers(ctx, ms, list)
	return nothing{}, err
}

func (a *Agent) onRemove(ctx context.Context, _ paxos.NodeID, req removeRequest) (api.MembersResult, error) {
	a.changeMu.Lock()
	defer a.changeMu.Unlock()
	ms := a.group.Leader().Members
	if req.ID == a.cfg.Node.ID {
		return api.MembersResult{}, api.Refused("leads", "the leader does not remove itself", "run 'phxsql switchover' first")
	}
	list := slices.DeleteFunc(slices.Clone(ms.List), func(m paxos.Member) bool { return m.ID == req.ID })
	if err := a.checkMajority(ctx, list, req.Force); err != nil {
		return api.MembersResult{}, err
	}
	a.sayFarewell(ms, req.ID) // it may be the one that asks, and must hear the answer
	return a.changeMembers(ctx, ms, list)
}

// sayFarewell keeps the connection to a member that is about to leave for a moment, so
// that it hears of it.
func (a *Agent) sayFarewell(ms paxos.Members, id paxos.NodeID) {
	m, ok := ms.Find(id)
	if !ok {
		return
	}
	a.setGuest(m.ID, m.Addr)
	time.AfterFunc(farewell, func() {
		a.setGuest(m.ID, "")
		a.transport.Recheck()
	})
}

// farewell is how long a member that is removed stays connected.
const farewell = 2 * time.Second

// answerLimit is how long a member may take to show that it is up.
const answerLimit = 2 * time.Second

// answering asks members for a sign of life. What they announced last may be from
// before they died.
func (a *Agent) answering(ctx context.Context, list []paxos.Member) []paxos.Member {
	ctx, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	var mu sync.Mutex
	var wg sync.WaitGroup
	var up []paxos.Member
	for _, m := range list {
		wg.Go(func() {
			if a.call(ctx, m.ID, callPing, nothing{}, nil) != nil {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			up = append(up, m)
		})
	}
	wg.Wait()
	return up
}

// checkMajority refuses a membership in which those that are up now are no majority.
func (a *Agent) checkMajority(ctx context.Context, list []paxos.Member, force bool) error {
	votes, up, data := 0, 0, 0
	for _, m := range list {
		if m.Votes() {
			votes++
		}
	}
	for _, m := range a.answering(ctx, list) {
		if m.Votes() {
			up++
		}
		if m.Role == paxos.Voter {
			data++
		}
	}
	switch {
	case data == 0:
		return api.Refused("no_voter", "no voter with data would be left that is up", "add another member first")
	case up <= votes/2 && !force:
		return api.Refused("would_lose_majority", fmt.Sprintf("of the %d members that would vote only %d are up: nothing could be written", votes, up),
			"start the others first, or remove those that are down; --force-lose-majority does it all the same")
	}
	return nil
}

// changeMembers proposes a membership and waits until it is valid.
func (a *Agent) changeMembers(ctx context.Context, was paxos.Members, list []paxos.Member) (api.MembersResult, error) {
	slices.SortFunc(list, func(x, y paxos.Member) int { return cmpInstance(paxos.Instance(x.ID), paxos.Instance(y.ID)) })
	want := paxos.Members{Cluster: was.Cluster, List: list}
	if slices.Equal(want.List, was.List) {
		return result(was), nil
	}
	err := a.group.ProposeMembers(was, want)
	if errors.Is(err, host.ErrNotLeader) {
		return api.MembersResult{}, errLeaderMoved()
	}
	if err != nil {
		return api.MembersResult{}, err
	}
	a.log.Info("membership change asked", telemetry.KeyMembers, string(want.Encode()))
	for {
		changed := a.group.Changed()
		now := a.group.Leader().Members
		switch {
		case slices.Equal(now.List, want.List):
			return result(now), nil
		case !slices.Equal(now.List, was.List):
			return api.MembersResult{}, api.Refused("other_change", "another change of the members came first", "look at 'phxsql member list' and ask again")
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return api.MembersResult{}, api.Unavailable("unknown_outcome", "the change was not decided in time", "look at 'phxsql member list'; a majority must be up")
		}
	}
}

func errLeaderMoved() *api.Error {
	return api.Unavailable(leaderMoved, "leadership has moved", "ask again")
}

func result(ms paxos.Members) api.MembersResult {
	res := api.MembersResult{Cluster: ms.Cluster}
	for _, m := range ms.List {
		res.Members = append(res.Members, api.Member{ID: m.ID, Role: roleWords[m.Role], Peer: m.Addr, Name: m.Name})
	}
	return res
}
