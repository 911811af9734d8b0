package main

import (
	"context"

	"github.com/phxsql/phxsql/paxos"
	"github.com/phxsql/phxsql/paxos/node"
)

// count is a state machine that only counts.
type count struct{ n uint64 }

func (c *count) Applied() paxos.Instance { return 0 }

func (c *count) Apply(paxos.Instance, []byte) any {
	c.n++
	return nil
}

func startOurs(s seat) (propose, error) { return ours(s, nil) }

func ours(s seat, creds node.Credentials) (propose, error) {
	o := node.Options{
		Dir: s.dir, ID: paxos.NodeID(s.index + 1), Cluster: "bench", Listen: s.addr(s.index, 0),
		Credentials: creds, Insecure: creds == nil,
	}
	for i := range nodes {
		o.Members = append(o.Members, paxos.Member{ID: paxos.NodeID(i + 1), Role: paxos.Voter, Addr: s.addr(i, 0)})
	}
	for g := range s.groups {
		o.Groups = append(o.Groups, node.Group{ID: paxos.Group(g), Machine: &count{}, Never: s.index != 0})
	}
	n, err := node.Open(o)
	if err != nil || s.index != 0 {
		return nil, err
	}
	err = poll(electionLimit, "leadership", func() bool {
		for g := range s.groups {
			if !n.LeaseValid(paxos.Group(g)) {
				return false
			}
		}
		return true
	})
	return func(g int, v []byte) error {
		ctx, cancel := context.WithTimeout(context.Background(), proposeLimit)
		defer cancel()
		_, _, err := n.Propose(ctx, paxos.Group(g), v)
		return err
	}, err
}
