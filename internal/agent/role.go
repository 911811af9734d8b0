package agent

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/phxsql/phxsql/internal/api"
	"github.com/phxsql/phxsql/paxos"
)

// ChangeRole makes a learner a voter, or a voter a learner; it may be asked of any member.
// A leader hands over before it becomes a learner.
func (a *Agent) ChangeRole(ctx context.Context, who, role string) (api.MembersResult, error) {
	var res api.MembersResult
	if r := roleOf(role); r != paxos.Voter && r != paxos.Learner {
		return res, api.BadRequest("bad_role", fmt.Sprintf("%q is not a role that a member with data can take", role), "use voter or learner")
	}
	id, err := a.findMember(who)
	if err != nil {
		return res, err
	}
	if role == roleWords[paxos.Learner] {
		if err := a.moveAway(ctx, id); err != nil {
			return res, err
		}
	}
	return res, a.callLeader(ctx, callRole, roleRequest{id, role}, &res)
}

func (a *Agent) onRole(ctx context.Context, _ paxos.NodeID, req roleRequest) (api.MembersResult, error) {
	a.changeMu.Lock()
	defer a.changeMu.Unlock()
	ms := a.group.Leader().Members
	an, age, known := a.peers.get(req.ID, time.Now())
	list, err := withRole(ms.List, req, a.cfg.Node.ID)
	if err == nil && req.Role == roleWords[paxos.Voter] && !slices.Equal(list, ms.List) {
		if err = fitToVote(req.ID, an.Member, known && age < aliveFor); err == nil {
			err = a.checkNear(ctx, req.ID)
		}
	}
	if err == nil {
		err = a.checkMajority(ctx, list, false)
	}
	if err != nil {
		return api.MembersResult{}, err
	}
	return a.changeMembers(ctx, ms, list)
}

// withRole are the members after a change of role; self is the leader.
func withRole(list []paxos.Member, req roleRequest, self paxos.NodeID) ([]paxos.Member, error) {
	list = slices.Clone(list)
	k := slices.IndexFunc(list, func(m paxos.Member) bool { return m.ID == req.ID })
	want := roleOf(req.Role)
	switch {
	case k < 0:
		return nil, api.NotFound("unknown_member", fmt.Sprintf("%d is not a member", req.ID), "phxsql member list shows them")
	case list[k].Role == paxos.Witness:
		return nil, api.Refused("no_data", fmt.Sprintf("member %d is a witness and has no data", req.ID), "replace it by a node with data: phxsql join --replace")
	case want == paxos.Learner && req.ID == self:
		return nil, api.Refused("leads", "the leader does not give up its own vote", "run 'phxsql switchover' first")
	}
	list[k].Role = want
	return list, nil
}

// fitToVote refuses to count on a member that is not there to follow.
func fitToVote(id paxos.NodeID, m api.MemberStatus, alive bool) error {
	switch {
	case !alive:
		return api.Refused("not_up", fmt.Sprintf("member %d is not up", id), "start it first")
	case m.State != api.StateFollower:
		return api.Refused("not_caught_up", fmt.Sprintf("member %d is no follower now but %s", id, m.State), "wait until it is one: phxsql status")
	}
	return nil
}

// checkNear refuses to count on a member with data that would hold everybody up: it must
// have the log through where it ends now, and execute it, within nearLag. So what it may
// lack grows with what is written, and under full load it is not refused for that.
func (a *Agent) checkNear(ctx context.Context, id paxos.NodeID) error {
	near, cancel := context.WithTimeout(ctx, nearLag)
	defer cancel()
	err := a.awaitApplied(near, id, a.group.Chosen())
	if err == nil || ctx.Err() != nil {
		return err
	}
	return api.Refused("not_caught_up", fmt.Sprintf("member %d has not executed within %v what was chosen when it was asked", id, nearLag),
		"wait until its lag in phxsql status is small, or until less is written").Because(err)
}
