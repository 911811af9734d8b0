package cluster

import (
	"fmt"

	"github.com/phxsql/phxsql/paxos"
)

// report names everything that is not well. The set of problems of a node is
// what its last decision reported.
func (p *plan) report() {
	for _, h := range p.v.Health {
		p.do(Report{Problem: h})
	}
	for _, pr := range p.v.problems() {
		p.do(Report{Problem: pr})
	}
}

func (v *View) problems() []Problem {
	var ps []Problem
	add := func(name, reason, hint string) { ps = append(ps, Problem{Name: name, Reason: reason, Hint: hint}) }
	e := v.Engine
	switch {
	case v.Removed:
		add("removed", "this node was removed from the cluster", "stop it; what it holds may be deleted when the cluster is well. It can come back only as a new node: "+
			"another node.id, an empty data directory, 'phxsql join'")
	case !v.Member && v.Role != 0:
		add("joining", "this node is on its way into the cluster", "it goes on by itself")
	case !v.Member:
		add("blank", "this node belongs to no cluster", "run phxsql init on one node and name all members")
	}
	if e.State == EngineCrashed {
		add("engine_crashed", fmt.Sprintf("the server ended by itself (%d times): %s", e.Crashes, e.Reason), "see the server's error log in the node's directory")
	}
	if e.Errant != "" {
		add("diverged", "the server holds transactions that the log does not: "+e.Errant, "it gets another member's data by itself; its own are moved aside, to data.old")
	}
	if v.Restore.active() && e.Errant == "" {
		add("rebuilding", v.Restore.Reason, "it is done by itself: phxsql status shows how far it is")
	}
	if v.Restore.Unproved && !v.Restore.active() {
		reason, hint := "the server's data are new: they are compared with the master's before they are read", "it is done by itself: phxsql status shows how far it is"
		if v.Restore.Proof != "" {
			reason, hint = "the server's data are new, and cannot be compared with another member's now: "+v.Restore.Proof, "it is tried again by itself; a master must serve, and reach this node"
		}
		add("unproved", reason, hint)
	}
	if e.Replica == ReplicaBroken {
		add("replication_stopped", e.ReplicaError, "it is tried again by itself; see the server's error log")
	}
	if v.Failed.Times > 0 {
		add("step_failing", fmt.Sprintf("%s failed %d times: %s", v.Failed.Action, v.Failed.Times, v.Failed.Reason), "it is tried again by itself")
	}
	if v.Member && !v.Removed && v.Lead.Leader == 0 {
		add("no_leader", "no member leads", "a majority of the members must be up and reach each other")
	}
	if v.Lead.Self && v.Lead.Lapsed > 0 && !v.Lead.Lease {
		add("no_lease", "the majority does not answer the leader in time", "look at the network, the disks, and the load of the other members")
	}
	return append(ps, v.leadProblems()...)
}

// leadProblems explains a leader that does not serve though nothing is under way.
func (v *View) leadProblems() []Problem {
	if !v.Lead.Self || v.Role != paxos.Voter {
		return nil
	}
	if reason := v.unfit(); reason != "" && v.best() == 0 {
		return []Problem{{Name: "nobody_able", Reason: "this leader cannot serve (" + reason + ") and no other member can", Hint: "see the problems of the other members"}}
	}
	return nil
}
