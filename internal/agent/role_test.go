package agent

import (
	"errors"
	"testing"

	"github.com/phxsql/phxsql/internal/api"
	"github.com/phxsql/phxsql/paxos"
)

func TestRolesThatMayBeTaken(t *testing.T) {
	list := []paxos.Member{{ID: 1, Role: paxos.Voter}, {ID: 2, Role: paxos.Voter}, {ID: 3, Role: paxos.Learner}, {ID: 4, Role: paxos.Witness}}
	for _, c := range []struct {
		id         paxos.NodeID
		role, want string
	}{
		{3, "voter", ""}, {2, "learner", ""}, {2, "voter", ""}, {1, "learner", "leads"}, {1, "voter", ""},
		{4, "voter", "no_data"}, {4, "learner", "no_data"}, {5, "voter", "unknown_member"},
	} {
		got, err := withRole(list, roleRequest{c.id, c.role}, 1)
		if name := refusedBy(err).Name; name != c.want {
			t.Errorf("member %d as %s: %v, want %q", c.id, c.role, err, c.want)
		}
		for i, m := range got {
			if want := list[i].Role; m.ID != c.id && m.Role != want || m.ID == c.id && roleWords[m.Role] != c.role {
				t.Errorf("member %d as %s: %+v", c.id, c.role, got)
			}
		}
	}
	if list[2].Role != paxos.Learner {
		t.Error("the present members were changed")
	}
}

func refusedBy(err error) api.Problem {
	var e *api.Error
	if errors.As(err, &e) {
		return e.Problem
	}
	return api.Problem{}
}

// Who is to vote must be up and follow.
func TestWhoMayVote(t *testing.T) {
	good := api.MemberStatus{State: api.StateFollower, LagTransactions: 100_000}
	change := func(f func(*api.MemberStatus)) api.MemberStatus { m := good; f(&m); return m }
	for name, c := range map[string]struct {
		m     api.MemberStatus
		alive bool
		want  string
	}{
		"fit":           {good, true, ""},
		"down":          {good, false, "not_up"},
		"gets its data": {change(func(m *api.MemberStatus) { m.State = api.StateJoining }), true, "not_caught_up"},
	} {
		if got := refusedBy(fitToVote(2, c.m, c.alive)).Name; got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
