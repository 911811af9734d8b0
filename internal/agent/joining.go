package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/phxsql/phxsql/internal/api"
	"github.com/phxsql/phxsql/internal/cluster"
	"github.com/phxsql/phxsql/internal/config"
	"github.com/phxsql/phxsql/internal/telemetry"
	"github.com/phxsql/phxsql/internal/transport"
	"github.com/phxsql/phxsql/paxos"
)

// Join is the wish of a node to belong to a cluster. It lies in the node's folder until
// it is fulfilled, so that a node which is stopped on its way goes on by itself.
type Join struct {
	Format int `json:"format"` // 1
	// Seeds are admin addresses of members; empty when a member does the asking.
	Seeds []string `json:"seeds,omitempty"`
	// Role is voter, witness or learner.
	Role string `json:"role"`
	// Replace is the member whose place the node takes; 0 is nobody's.
	Replace paxos.NodeID `json:"replace,omitempty"`
	// Cluster and Members are known once a member has said them.
	Cluster string           `json:"cluster,omitempty"`
	Members []api.InitMember `json:"members,omitempty"`
}

const joinFileName = "join.json"

// PrepareJoin writes down that a node shall join. The node must be new.
func PrepareJoin(cfg config.Config, j Join) error {
	if err := claimDir(cfg.Node.DataDir, cfg.Node.ID); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(cfg.Node.DataDir, "log")); err == nil {
		if _, err := os.Stat(filepath.Join(cfg.Node.DataDir, joinFileName)); err != nil {
			return hinted{fmt.Errorf("join: %s holds the log of a node that exists", cfg.Node.DataDir), "set node.data_dir to a new folder, and node.id to an id that was never used"}
		}
	}
	return writeJoin(cfg.Node.DataDir, j)
}

func writeJoin(dir string, j Join) error {
	j.Format = 1
	b, err := json.Marshal(j)
	if err != nil {
		return fmt.Errorf("encode %s: %w", joinFileName, err)
	}
	if err := writeSynced(filepath.Join(dir, joinFileName), append(b, '\n')); err != nil {
		return fmt.Errorf("write %s: %w", joinFileName, err)
	}
	return nil
}

// joining is the wish of this node. It is safe for concurrent use.
type joining struct {
	dir string

	mu      sync.Mutex
	join    *Join // nil: none
	problem api.Problem
}

func (j *joining) load(dir string) error {
	j.dir = dir
	b, err := os.ReadFile(filepath.Join(dir, joinFileName))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", joinFileName, err)
	}
	var join Join
	if err := json.Unmarshal(b, &join); err != nil || join.Format != 1 {
		return hinted{fmt.Errorf("read %s: it is damaged", joinFileName), "run 'phxsql join' again"}
	}
	j.join = &join
	return nil
}

func (j *joining) get() (Join, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.join == nil {
		return Join{}, false
	}
	return *j.join, true
}

// role is the one that is wished for, 0 if none is.
func (j *joining) role() paxos.Role {
	w, ok := j.get()
	if !ok {
		return 0
	}
	return roleOf(w.Role)
}

func roleOf(word string) paxos.Role {
	for r, w := range roleWords {
		if w == word {
			return r
		}
	}
	return 0
}

// put changes the wish, durably.
func (j *joining) put(w Join) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := writeJoin(j.dir, w); err != nil {
		return err
	}
	j.join = &w
	return nil
}

func (j *joining) fulfilled() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.join = nil
	_ = os.Remove(filepath.Join(j.dir, joinFileName)) // one that stays is found fulfilled again
}

func (j *joining) blame(p api.Problem) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.problem = p
}

func (j *joining) blamed() (api.Problem, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.problem, j.join != nil && j.problem.Name != ""
}

// witness reports that the node is on its way to be a witness, which needs no engine.
func (a *Agent) witness() bool {
	return a.joining.load(a.cfg.Node.DataDir) == nil && a.joining.role() == paxos.Witness
}

// joinEvery is how often a node on its way looks what comes next.
const joinEvery = 500 * time.Millisecond

// pursueJoin brings this node into its cluster, and into its role there, until that is
// done or ctx ends. Each step may be repeated.
func (a *Agent) pursueJoin(ctx context.Context) {
	t := time.NewTicker(joinEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		w, ok := a.joining.get()
		if !ok {
			continue
		}
		done, err := a.joinStep(ctx, w)
		switch {
		case err != nil && ctx.Err() == nil:
			p := api.Problem{Name: "join_waits", Reason: err.Error(), Hint: "it is tried again by itself"}
			var named *api.Error
			if errors.As(err, &named) {
				p = named.Problem
			}
			a.joining.blame(p)
		case done:
			a.log.Info("node has joined", telemetry.KeyState, w.Role)
			a.joining.fulfilled()
			a.transport.Recheck() // those who were taken in as long as the members were not known
		default:
			a.joining.blame(api.Problem{})
		}
	}
}

// joinStep takes the next step.
func (a *Agent) joinStep(ctx context.Context, w Join) (done bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, changeLimit)
	defer cancel()
	m, member := a.group.Leader().Members.Find(a.cfg.Node.ID)
	want := roleOf(w.Role)
	switch {
	case member && m.Role == want:
		return want == paxos.Witness || a.proven(), nil
	case member:
		if !a.caughtUpToJoin() {
			return false, nil
		}
		return false, a.callLeader(ctx, callPromote, promoteRequest{ID: a.cfg.Node.ID, Role: w.Role, Replace: w.Replace}, nil)
	case len(w.Seeds) > 0 && w.Cluster == "":
		c := api.NewClient(w.Seeds, api.ClientTLS(a.creds))
		defer c.Close()
		_, err := c.AddMember(ctx, api.AddRequest{
			ID: a.cfg.Node.ID, Peer: a.advertised.Peer, Name: a.cfg.DisplayName(), Role: w.Role, Replace: replaceText(w.Replace),
		})
		return false, err
	}
	return false, nil
}

func replaceText(id paxos.NodeID) string {
	if id == 0 {
		return ""
	}
	return fmt.Sprint(id)
}

// caughtUpToJoin reports that this node is as far as the others, as far as it can tell
// itself. The leader makes sure before it counts on it.
func (a *Agent) caughtUpToJoin() bool {
	s := a.loop.last.Load()
	if s == nil || s.view.Restore.Need != cluster.NeedNothing || s.view.Restore.Ready {
		return false
	}
	an, age, ok := a.peers.get(a.group.Leader().Leader, time.Now())
	if !ok || age > aliveFor {
		return false
	}
	if a.joining.role() == paxos.Witness {
		return a.group.Chosen() >= an.Member.Log.Chosen // what was chosen a moment ago
	}
	return s.state() == api.StateFollower && s.lag <= nearLag && !s.unproved
}

// arriving reports that this node follows the log on its way to a place among those that
// can be relied on, with data that are not proved yet or a role that it does not have yet.
// The master lets it catch up: see flow.
func (a *Agent) arriving(s *snapshot) bool {
	w := a.joining.role()
	v := &s.view
	return (s.unproved || w != 0 && w != paxos.Witness) && v.Restore.Need == cluster.NeedNothing && !v.Restore.Ready && v.Engine.Replica == cluster.ReplicaRunning
}

// needsProof reports that this node's data are new: it is on its way into a cluster, or
// was a member and has lost them.
func (a *Agent) needsProof() bool {
	if w, joins := a.joining.get(); joins {
		return roleOf(w.Role) != paxos.Witness
	}
	m, ok := a.group.Leader().Members.Find(a.cfg.Node.ID)
	return ok && m.Role != paxos.Witness && !a.db.Initialized() && a.db.Damaged() == nil
}

// proven reports that this node's data are as good as the other members'.
func (a *Agent) proven() bool {
	s := a.loop.last.Load()
	return s != nil && !s.unproved
}

// knownMembers are those of the membership, and those that a member has named to a
// node on its way.
func (a *Agent) knownMembers() []paxos.Member {
	list := slices.Clone(a.group.Leader().Members.List)
	w, _ := a.joining.get()
	for _, m := range w.Members {
		if !slices.ContainsFunc(list, func(o paxos.Member) bool { return o.ID == m.ID }) {
			list = append(list, paxos.Member{ID: m.ID, Addr: m.Peer, Name: m.Name})
		}
	}
	a.guestMu.Lock()
	defer a.guestMu.Unlock()
	for id, addr := range a.guests {
		if !slices.ContainsFunc(list, func(o paxos.Member) bool { return o.ID == id }) {
			list = append(list, paxos.Member{ID: id, Addr: addr})
		}
	}
	return list
}

// clusterID is the identity of the cluster that this node belongs to or will.
func (a *Agent) clusterID() string {
	if c := a.group.Leader().Members.Cluster; c != "" {
		return c
	}
	w, _ := a.joining.get()
	return w.Cluster
}

func (a *Agent) isGuest(id paxos.NodeID) bool {
	a.guestMu.Lock()
	defer a.guestMu.Unlock()
	_, ok := a.guests[id]
	return ok
}

func (a *Agent) setGuest(id paxos.NodeID, addr string) {
	a.guestMu.Lock()
	if addr == "" {
		delete(a.guests, id)
	} else {
		a.guests[id] = addr
	}
	a.guestMu.Unlock()
	a.connectKnown()
}

// connectKnown names to the transport everybody whom this node must reach.
func (a *Agent) connectKnown() {
	var ps []transport.Peer
	for _, m := range a.knownMembers() {
		ps = append(ps, transport.Peer{ID: m.ID, Addr: m.Addr})
	}
	if len(ps) == 0 {
		return
	}
	if err := a.transport.SetPeers(ps); err != nil {
		a.log.Warn("members cannot be connected", telemetry.KeyError, err)
	}
}
