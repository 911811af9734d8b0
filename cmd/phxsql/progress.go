package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/phxsql/phxsql/internal/api"
	"github.com/phxsql/phxsql/paxos"
)

const (
	// progressEvery is how often a node on its way into a cluster is asked how far it is;
	// what has only gone on is said every progressPace.
	progressEvery = time.Second
	progressPace  = 5 * time.Second
)

// progress is how far a node is on its way into a cluster: the step it is at, a line for
// people, and whether it has arrived.
type progress struct {
	step, line string
	done       bool
}

// progressOf reads it from a status, the node's own or that of a member.
func progressOf(st api.Status, id paxos.NodeID, role string) progress {
	m := api.MemberStatus{ID: id, State: api.StateJoining}
	for _, o := range st.Members {
		if o.ID == id {
			m = o
		}
	}
	who := memberName(m)
	for _, p := range m.Problems {
		if p.Name != "joining" && p.Name != "unproved" && p.Name != "rebuilding" && p.Name != "no_leader" {
			who += " (" + p.Name + ": " + p.Reason + ")"
			break
		}
	}
	switch serves := m.State == api.StateFollower || m.State == api.StateMaster || m.State == api.StateWitness; {
	case st.Cluster == "" || m.State == api.StateJoining:
		return progress{"asks", who + ": asks to be taken in", false}
	case m.Copy != nil:
		return progress{m.Copy.Phase, who + ": " + copyLine(*m.Copy) + lagText(m), false}
	case m.Role == role && serves:
		return progress{"done", fmt.Sprintf("%s is a %s of cluster %s now: %s", memberName(m), role, st.Cluster, m.State), true}
	}
	return progress{string(m.State), fmt.Sprintf("%s: %s, %s%s", who, orDash(m.Role), m.State, lagText(m)), false}
}

func lagText(m api.MemberStatus) string {
	if m.LagTransactions == 0 {
		return ""
	}
	return ", lag " + lag(m)
}

// showProgress writes how far a node is until it has arrived or ctx ends.
func showProgress(ctx context.Context, w io.Writer, c *api.Client, id paxos.NodeID, role string) error {
	t := time.NewTicker(progressEvery)
	defer t.Stop()
	var said progress
	var at time.Time
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
		}
		st, err := c.Status(ctx)
		if err != nil {
			continue // it is coming up, or going down
		}
		p := progressOf(st, id, role)
		if p.step != said.step || p.line != said.line && time.Since(at) >= progressPace {
			fmt.Fprintln(w, p.line)
			said, at = p, time.Now()
		}
		if p.done {
			return nil
		}
	}
}
