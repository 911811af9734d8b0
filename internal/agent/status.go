package agent

import (
	"cmp"
	"context"
	"reflect"
	"slices"
	"time"

	"github.com/phxsql/phxsql/internal/api"
	"github.com/phxsql/phxsql/internal/cluster"
	"github.com/phxsql/phxsql/paxos"
)

// snapshot is what the loop publishes after each turn. It is never changed.
type snapshot struct {
	view     cluster.View
	seen     observation
	applied  paxos.Instance
	lag      time.Duration // how old what the server has executed is; see applied.lag
	counted  paxos.Instance
	problems []cluster.Problem
	unproved bool // the server's data are new, and not proved yet
	followed bool // they have followed the log to its end
	data     int  // which data they are
	fresh    bool // they were empty, and the log is what fills them
}

// publish makes the snapshot of this turn visible, and signals a change that
// others should know of.
func (l *loop) publish() {
	s := &snapshot{view: l.view, seen: l.seen, applied: l.applied.through, lag: l.applied.lag(l.now), counted: l.counted, problems: l.problems, unproved: l.restored, followed: l.followed, data: l.data, fresh: l.fresh}
	old := l.last.Swap(s)
	if old == nil || old.news() != s.news() || !reflect.DeepEqual(old.problems, s.problems) {
		select {
		case l.moved <- struct{}{}:
		default: // it is to be sent anyway
		}
	}
}

// news is what others react to.
type news struct {
	gate   cluster.Gate
	able   bool
	leader paxos.NodeID
	epoch  uint64
	state  api.State
	// applied makes the end of a catch-up known at once; zero while it lasts.
	applied paxos.Instance
}

func (s *snapshot) news() news {
	n := news{
		gate: s.view.Gate, able: s.view.Candidacy.Able, leader: s.view.Lead.Leader, epoch: s.view.Epoch.Newest, state: s.state(),
	}
	if s.view.Engine.Behind == 0 {
		n.applied = s.applied
	}
	return n
}

// state says in one word what the node is doing.
func (s *snapshot) state() api.State {
	v := &s.view
	switch {
	case v.Removed:
		return api.StateRemoved
	case v.Engine.Errant != "" || v.Engine.State == cluster.EngineCrashed && v.Engine.Crashes > 1:
		return api.StateFaulty
	case !v.Member && v.Role != 0:
		return api.StateJoining
	case !v.Member:
		return api.StateBlank
	case v.Role == paxos.Witness && v.Engine.State != cluster.EngineRunning:
		return api.StateWitness
	case v.Lead.Self && v.Gate == cluster.GateOpen:
		return api.StateMaster
	case v.Engine.Dirty || v.Tail != cluster.TailOff || v.Engine.State == cluster.EngineStopping:
		if v.Lead.Self && v.Engine.State == cluster.EngineRunning && v.Switch == nil {
			return api.StatePromoting
		}
		return api.StateDemoting
	case v.Lead.Self && v.Engine.State == cluster.EngineRunning:
		return api.StatePromoting
	case v.Engine.Replica == cluster.ReplicaBroken:
		return api.StateFaulty
	case v.Engine.State != cluster.EngineRunning || v.Engine.Replica != cluster.ReplicaRunning:
		return api.StateStarting
	case v.Restore.Unproved && !s.followed:
		return api.StateStarting
	case v.Restore.Unproved:
		return api.StateProving
	}
	return api.StateFollower
}

var engineWords = map[cluster.EngineState]string{
	cluster.EngineAbsent: "none", cluster.EngineInitialising: "initialising", cluster.EngineStopped: "stopped",
	cluster.EngineStarting: "starting", cluster.EngineRunning: "running", cluster.EngineStopping: "stopping",
	cluster.EngineCrashed: "crashed",
}

func apiProblems(ps []cluster.Problem) []api.Problem {
	out := make([]api.Problem, 0, len(ps))
	for _, p := range ps {
		out = append(out, api.Problem{Name: p.Name, Reason: p.Reason, Hint: p.Hint})
	}
	return out
}

var roleWords = map[paxos.Role]string{paxos.Voter: "voter", paxos.Witness: "witness", paxos.Learner: "learner"}

// member is what this node says about itself.
func (a *Agent) member() api.MemberStatus {
	s := a.loop.last.Load()
	if s == nil {
		s = &snapshot{}
	}
	m := api.MemberStatus{
		ID: a.cfg.Node.ID, Name: a.cfg.DisplayName(), Role: roleWords[s.view.Role], Boot: a.boot, Alive: true,
		State: s.state(), Master: s.view.Gate == cluster.GateOpen, Epoch: s.view.Epoch.Newest,
		Lease:           api.Lease{Holder: s.view.Lead.Leader},
		LagTransactions: s.view.Engine.Behind,
		Engine: api.Engine{
			State: engineWords[s.view.Engine.State], Version: a.install.Version.Release(),
			Reason: s.view.Engine.Reason, PID: a.db.PID(),
		},
		RWAddr: a.advertised.RW, ROAddr: a.advertised.RO, PeerAddr: a.advertised.Peer, AdminAddr: a.advertised.Admin,
		Problems: apiProblems(s.problems),
	}
	if s.view.Engine.Behind > 0 {
		m.LagSeconds = api.Seconds(s.seen.Lag)
	}
	if m.Master {
		m.Commit, m.Flow = api.Seconds(a.commits.recent()), a.flow.status()
	}
	if s.view.Lead.Self {
		m.Lease.Remaining = api.Seconds(a.group.LeaseRemaining())
	}
	m.Problems = slices.Insert(m.Problems, 0, a.strangers()...)
	if s.seen.Executed != nil {
		m.Engine.GTIDExecuted = s.seen.Executed.String()
	}
	m.Log = api.Log{First: a.group.First(), Chosen: a.group.Chosen(), Applied: s.applied, Bytes: a.logBytes(), Held: paxos.Instance(a.retention.held.Load())}
	if m.Engine.GTIDExecuted != "" && a.arriving(s) {
		m.Log.Applied = max(m.Log.Applied, a.journal.Held(s.seen.Executed)) // what it had to execute first is known in one step only
	}
	if ids := a.retention.holders.Load(); ids != nil {
		m.Log.HeldBy = *ids
	}
	m.CertificateExpires = a.creds.Expires().UTC()
	at := a.settings.at()
	m.SettingsAt, m.AccountsAt = &at, a.settings.accounts.rotated()
	if a.retention.full.Load() {
		m.Problems = append(m.Problems, a.logFull(m.Log))
	}
	m.Copy = a.way.status(a.proof.status(a.copying.status()))
	if p, ok := a.joining.blamed(); ok {
		m.Problems = append(m.Problems, p)
	}
	return m
}

// Status returns this node's view of the whole cluster.
func (a *Agent) Status(context.Context) (api.Status, error) {
	now := time.Now()
	members := a.group.Leader().Members
	st := api.Status{Cluster: members.Cluster, Self: a.cfg.Node.ID, Time: now.UTC(), Members: []api.MemberStatus{}, Problems: []api.Problem{}}
	if members.Blank() {
		st.Members = append(st.Members, a.member())
		return st, nil
	}
	master := false
	if _, ok := members.Find(a.cfg.Node.ID); !ok { // removed, or on its way
		st.Members = append(st.Members, a.member())
	}
	for _, m := range members.List {
		ms := a.memberStatus(m, now)
		master = master || ms.Master
		st.Members = append(st.Members, ms)
	}
	slices.SortFunc(st.Members, func(x, y api.MemberStatus) int { return cmp.Compare(x.ID, y.ID) })
	if !master {
		st.Problems = append(st.Problems, api.Problem{
			Name: "no_master", Reason: "no member takes writes now",
			Hint: "see the problems of the members; a majority must be up and reach each other",
		})
	}
	return st, nil
}

// memberStatus is what is known about one member.
func (a *Agent) memberStatus(m paxos.Member, now time.Time) api.MemberStatus {
	if m.ID == a.cfg.Node.ID {
		return a.member()
	}
	an, age, ok := a.peers.get(m.ID, now)
	ms := an.Member
	ms.ID, ms.Role = m.ID, roleWords[m.Role]
	if ms.Name == "" {
		ms.Name = m.Name
	}
	if ms.PeerAddr == "" {
		ms.PeerAddr = m.Addr
	}
	if ms.Problems == nil {
		ms.Problems = []api.Problem{}
	}
	ms.Heard = api.Seconds(age)
	if !ok {
		ms.Heard = -1 * api.Seconds(time.Second)
	}
	ms.Alive = ok && age < aliveFor
	if !ms.Alive {
		ms.State, ms.Master = api.StateUnknown, false
		ms.Problems = append(ms.Problems, a.unreachable(m.ID))
	}
	return ms
}
