package agent

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/phxsql/phxsql/internal/api"
	"github.com/phxsql/phxsql/internal/cluster"
	"github.com/phxsql/phxsql/paxos"
)

const askLimit = 5 * time.Second // for an answer about copies

// offer is what a node says about giving a copy of its data.
type offer struct {
	Node     paxos.NodeID `json:"node"`
	Refusal  string       `json:"refusal,omitempty"` // why not; the rest is empty then
	Master   bool         `json:"master"`
	Behind   uint64       `json:"behind"`
	Bytes    int64        `json:"bytes"`
	Version  string       `json:"version"`
	Admin    string       `json:"admin"`
	Password string       `json:"password"` // of the account for copies
}

// onOffer answers whether this node gives a copy of its data.
func (a *Agent) onOffer(context.Context, paxos.NodeID, nothing) (offer, error) {
	s := a.loop.last.Load()
	o := offer{Node: a.cfg.Node.ID, Version: a.install.Version.Release(), Admin: a.advertised.Admin}
	switch st := s.state(); {
	case s.view.Restore.Need != cluster.NeedNothing || s.view.Restore.Ready:
		o.Refusal = "its own data are being replaced"
	case st != api.StateFollower && st != api.StateMaster:
		o.Refusal = "it is " + string(st)
	default:
		var err error
		if o.Bytes, err = a.db.DataSize(); err != nil {
			return o, err
		}
		o.Master, o.Behind, o.Password = st == api.StateMaster, s.view.Engine.Behind, a.db.CopyPassword()
	}
	return o, nil
}

// others are the nodes that may be asked for data.
func (a *Agent) others() []paxos.NodeID {
	var ids []paxos.NodeID
	for _, m := range a.knownMembers() {
		if m.ID != a.cfg.Node.ID {
			ids = append(ids, m.ID)
		}
	}
	return ids
}

// askOthers calls a method on all other nodes at once and returns what came back in
// time, with the reasons of those that did not answer.
func askOthers[Res any](ctx context.Context, a *Agent, method string, req any) (got []Res, failed []error) {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	var wg sync.WaitGroup
	var mu sync.Mutex
	for _, id := range a.others() {
		wg.Go(func() {
			var res Res
			err := a.call(ctx, id, method, req, &res)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed = append(failed, err)
				return
			}
			got = append(got, res)
		})
	}
	wg.Wait()
	return got, failed
}

// donors remembers whom a copy was tried from. It is safe for concurrent use.
type donors struct {
	mu    sync.Mutex
	tried map[paxos.NodeID]time.Time // failed, and when
	since time.Time                  // when a donor was first looked for
}

const (
	// triedFor is how long a donor whose copy failed comes after all others.
	triedFor = 2 * time.Minute
	// masterAfter is how long a follower that does not give its data now is waited for
	// before the master has to.
	masterAfter = 30 * time.Second
	// donorPatience is how long a donor may be silent before another one is looked for.
	donorPatience = 15 * time.Second
	donorEvery    = 2 * time.Second
)

func (d *donors) failed(id paxos.NodeID, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.tried == nil {
		d.tried = map[paxos.NodeID]time.Time{}
	}
	d.tried[id] = now
}

func (d *donors) done() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tried, d.since = nil, time.Time{}
}

// looks says whom to try last, and for how long a donor has been looked for.
func (d *donors) looks(now time.Time) (last map[paxos.NodeID]bool, waited time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.since.IsZero() {
		d.since = now
	}
	last = map[paxos.NodeID]bool{}
	for id, at := range d.tried {
		last[id] = now.Sub(at) < triedFor
	}
	return last, now.Sub(d.since)
}

// findDonor finds a member that gives a copy of its data.
func (a *Agent) findDonor(ctx context.Context) (offer, error) {
	now := time.Now()
	last, waited := a.donors.looks(now)
	offers, failed := askOthers[offer](ctx, a, callOffer, nothing{})
	o, err := chooseDonor(offers, a.install.Version.Release(), last)
	if err != nil {
		return o, errors.Join(append([]error{err}, failed...)...)
	}
	if id := a.coming(now, o); o.Master && id != 0 && waited < masterAfter {
		return o, hinted{fmt.Errorf("only the master gives a copy of its data now, and member %d may soon", id), "it is tried again by itself"}
	}
	return o, nil
}

// coming is a follower with data that lives and gave no data, or zero.
func (a *Agent) coming(now time.Time, master offer) paxos.NodeID {
	for _, m := range a.group.Leader().Members.List {
		if m.ID == a.cfg.Node.ID || m.ID == master.Node || m.Role == paxos.Witness {
			continue
		}
		an, age, ok := a.peers.get(m.ID, now)
		if ok && age < aliveFor && an.Member.Copy == nil && series(an.Member.Engine.Version) == series(master.Version) {
			return m.ID
		}
	}
	return 0
}

// chooseDonor prefers a follower, and among those the one that is least behind. The
// master gives its data only when nobody else does; those in last come after all.
func chooseDonor(offers []offer, version string, last map[paxos.NodeID]bool) (offer, error) {
	var best offer
	var why []string
	for _, o := range offers {
		if o.Refusal == "" && series(o.Version) != series(version) {
			o.Refusal = "it has MySQL " + o.Version + ", this node " + version
		}
		switch {
		case o.Refusal != "":
			why = append(why, fmt.Sprintf("node %d: %s", o.Node, o.Refusal))
		case best.Node == 0 || o.before(best, last):
			best = o
		}
	}
	if best.Node == 0 {
		return best, hinted{fmt.Errorf("no member gives a copy of its data: %s", strings.Join(why, "; ")), "it is tried again; at least one other member must be well"}
	}
	return best, nil
}

// before reports whether an offer is better than another one.
func (o offer) before(b offer, last map[paxos.NodeID]bool) bool {
	switch {
	case last[o.Node] != last[b.Node]:
		return last[b.Node]
	case o.Master != b.Master:
		return b.Master
	}
	return o.Behind < b.Behind
}

// watchDonor gives a copy up when its donor is gone: MySQL would try for minutes to go
// on with it. A connection that was cut while the donor lives is left to MySQL.
func (a *Agent) watchDonor(ctx context.Context, id paxos.NodeID, giveUp context.CancelCauseFunc) {
	t := time.NewTicker(donorEvery)
	defer t.Stop()
	for heard := time.Now(); ; {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		ask, cancel := context.WithTimeout(ctx, donorEvery)
		err := a.call(ask, id, callPing, nothing{}, nil)
		cancel()
		if err == nil {
			heard = time.Now()
		} else if time.Since(heard) > donorPatience {
			giveUp(fmt.Errorf("member %d does not answer any more: %w", id, err))
			return
		}
	}
}

// series is the part of a version within which data can be copied.
func series(version string) string {
	parts := strings.SplitN(version, ".", 3)
	return strings.Join(parts[:min(2, len(parts))], ".")
}
