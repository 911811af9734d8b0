package agent

import (
	"errors"
	"testing"

	"github.com/phxsql/phxsql/internal/transport"
	"github.com/phxsql/phxsql/paxos"
)

// Who holds the secret is not yet who belongs here.
func TestJudgeHello(t *testing.T) {
	ms := paxos.Members{Cluster: "A", List: []paxos.Member{{ID: 1, Log: "one"}, {ID: 2, Log: "two"}}}
	hello := func(node paxos.NodeID, cluster, log string) transport.Hello {
		return transport.Hello{Node: node, Cluster: cluster, Log: log}
	}
	for name, c := range map[string]struct {
		ms           paxos.Members
		guest, joins bool
		h            transport.Hello
		want         error
	}{
		"a member":                              {ms: ms, h: hello(2, "A", "two")},
		"a member that does not know it yet":    {ms: ms, h: hello(2, "", "two")},
		"a member of another cluster":           {ms: ms, h: hello(2, "B", "two"), want: transport.ErrWrongCluster},
		"a member whose log was wiped":          {ms: ms, h: hello(2, "", "new"), want: transport.ErrWrongLog},
		"a member with another's log":           {ms: ms, h: hello(2, "A", "one"), want: transport.ErrWrongLog},
		"somebody unknown":                      {ms: ms, h: hello(3, "", "three"), want: transport.ErrNotMember},
		"somebody who was removed":              {ms: ms, h: hello(3, "A", "three"), want: transport.ErrNotMember},
		"a guest":                               {ms: ms, guest: true, h: hello(3, "", "three")},
		"a guest of another cluster":            {ms: ms, guest: true, h: hello(3, "B", "three"), want: transport.ErrWrongCluster},
		"anybody, to a blank node":              {h: hello(3, "B", "three")},
		"somebody new, to a node on its way":    {ms: ms, joins: true, h: hello(3, "A", "three")},
		"another cluster, to a node on its way": {ms: ms, joins: true, h: hello(3, "B", "three"), want: transport.ErrWrongCluster},
	} {
		if err := judgeHello(c.ms, c.guest, c.joins, c.h); !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}
