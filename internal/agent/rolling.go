package agent

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/phxsql/phxsql/internal/api"
	"github.com/phxsql/phxsql/internal/cluster"
	"github.com/phxsql/phxsql/internal/telemetry"
	"github.com/phxsql/phxsql/paxos"
)

// ErrRestart is returned by Run when the node has stopped in good order because it was
// asked to restart: the caller starts it again.
var ErrRestart = errors.New("the node is to be started again")

// The calls of a restart.
const (
	callRestart     = "member_restart" // restartRequest: to the leader, who lets one member go at a time
	callRestartSelf = "restart_self"   // nothing -> nothing: to the member
)

type restartRequest struct {
	ID paxos.NodeID `json:"id"`
}

const (
	// restartDelay lets the answer out before the node that gives it goes down.
	restartDelay = 100 * time.Millisecond
	// restartLimit is how long a member that does not come back keeps others from
	// being restarted.
	restartLimit = 2 * time.Minute
)

// rolling is what a node knows of restarts that were asked for.
type rolling struct {
	mu    sync.Mutex
	going chan struct{} // closed when this node is to restart

	letGo sync.Mutex // held while the leader decides
	away  paxos.NodeID
	boot  string // of the process that was let go
	until time.Time
}

func (r *rolling) asked() chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.going == nil {
		r.going = make(chan struct{})
	}
	return r.going
}

func (r *rolling) ask() {
	going := r.asked()
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-going:
	default:
		close(going)
	}
}

// leave takes the node down. The sessions of a node that is not the master are closed
// first, each when its client loses nothing; those of a master go with the switchover.
func (a *Agent) leave() {
	if s := a.loop.last.Load(); s != nil && s.view.Gate != cluster.GateOpen {
		ctx, cancel := context.WithTimeout(context.Background(), a.settled().Switchover.Drain.D())
		a.proxy.DrainAll(ctx, busySessions(a.db.Server))
		cancel()
	}
	a.loop.requestStop(stopLimit)
}

// RestartMember has a member restart; it may be asked of any member.
func (a *Agent) RestartMember(ctx context.Context, who string) error {
	id, err := a.findMember(who)
	if err != nil {
		return err
	}
	return a.callLeader(ctx, callRestart, restartRequest{id}, nil)
}

// onRestart lets a member go, if the others are a majority without it and no other one
// is away already.
func (a *Agent) onRestart(ctx context.Context, _ paxos.NodeID, req restartRequest) (nothing, error) {
	r := &a.rolling
	r.letGo.Lock()
	defer r.letGo.Unlock()
	ms := a.group.Leader().Members
	m, ok := ms.Find(req.ID)
	switch {
	case !ok:
		return nothing{}, api.NotFound("unknown_member", fmt.Sprintf("%d is not a member", req.ID), "phxsql member list shows them")
	case req.ID == a.cfg.Node.ID:
		return nothing{}, api.Refused("leads", fmt.Sprintf("member %d leads", req.ID), "run 'phxsql switchover' first")
	case r.away != 0 && r.away != req.ID && !a.isBack(r.away, r.boot) && time.Now().Before(r.until):
		return nothing{}, api.Refused("other_restart", fmt.Sprintf("member %d restarts now", r.away), "wait until it is back")
	}
	if err := a.checkWithout(ctx, ms, m); err != nil {
		return nothing{}, err
	}
	an, _, _ := a.peers.get(req.ID, time.Now())
	if err := a.call(ctx, req.ID, callRestartSelf, nothing{}, nil); err != nil {
		return nothing{}, err
	}
	r.away, r.boot, r.until = req.ID, an.Boot, time.Now().Add(restartLimit)
	a.log.Info("member restarts", telemetry.KeyMember, uint64(req.ID))
	return nothing{}, nil
}

// isBack reports that a member was heard of that is another process than the one with
// the given boot.
func (a *Agent) isBack(id paxos.NodeID, boot string) bool {
	an, age, ok := a.peers.get(id, time.Now())
	return ok && age < aliveFor && an.Boot != boot
}

// checkWithout refuses to let a voter go without which those that are up are no
// majority.
func (a *Agent) checkWithout(ctx context.Context, ms paxos.Members, away paxos.Member) error {
	if !away.Votes() {
		return nil
	}
	votes, up := 0, 0
	var rest []paxos.Member
	for _, m := range ms.List {
		if !m.Votes() {
			continue
		}
		votes++
		if m.ID != away.ID {
			rest = append(rest, m)
		}
	}
	up = len(a.answering(ctx, rest))
	if up <= votes/2 {
		return api.Refused("would_lose_majority",
			fmt.Sprintf("without member %d only %d of the %d members that vote are up: nothing could be written", away.ID, up, votes),
			"start the others first; a cluster of one or two voters cannot be restarted without a pause: stop and start its nodes by hand")
	}
	return nil
}

// onRestartSelf agrees to restart this node, and does it.
func (a *Agent) onRestartSelf(ctx context.Context, _ paxos.NodeID, _ nothing) (nothing, error) {
	if a.opt.Restart == nil {
		return nothing{}, api.Refused("cannot_restart", "this node cannot start itself again", "restart its service by hand")
	}
	if s := a.loop.last.Load(); s.view.Gate == cluster.GateOpen {
		return nothing{}, api.Refused("is_master", "this node is the master", "run 'phxsql switchover' first")
	}
	if err := a.opt.Restart(ctx); err != nil {
		return nothing{}, api.Refused("restart_would_fail", "this node would not start again: "+err.Error(), "correct its configuration or its program; it goes on as it is").Because(err)
	}
	time.AfterFunc(restartDelay, a.rolling.ask)
	return nothing{}, nil
}
