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
	Rate     int64        `json:"rate"` // bytes per second that it gives at most
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
		o.Rate = int64(a.settled().Copy.Rate)
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
	tried map[paxos.NodeID]tried
	since time.Time // when a donor was first looked for
	last  time.Time // and last
}

// tried is how often a copy of one member failed lately, and when last.
type tried struct {
	times int
	at    time.Time
}

const (
	// triedFor is how long a donor whose copy failed comes after the others.
	triedFor = 2 * time.Minute
	// triedOut is how often a follower's copy may fail before the master has to give one.
	triedOut = 3
	// masterAfter is how long a follower that does not give its data now is waited for
	// before the master has to.
	masterAfter = 30 * time.Second
	// searchOver is how long after the last look another search begins: it is longer than
	// the pause between two looks.
	searchOver = time.Minute
	// donorPatience is how long a donor may be silent before another one is looked for.
	donorPatience = 15 * time.Second
	donorEvery    = 2 * time.Second
)

// failed counts a copy that did not come about; refused one whose rows were wrong: its
// donor gives no other one soon.
func (d *donors) failed(id paxos.NodeID, now time.Time)  { d.count(id, 1, now) }
func (d *donors) refused(id paxos.NodeID, now time.Time) { d.count(id, triedOut, now) }

func (d *donors) count(id paxos.NodeID, times int, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.tried == nil {
		d.tried = map[paxos.NodeID]tried{}
	}
	d.tried[id] = tried{d.lately(id, now) + times, now}
}

// lately is how often a copy of a member failed lately; mu is held.
func (d *donors) lately(id paxos.NodeID, now time.Time) int {
	if t := d.tried[id]; now.Sub(t.at) < triedFor {
		return t.times
	}
	return 0
}

// got ends the search. What failed stays known: a copy that is there may still be refused.
func (d *donors) got() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.since = time.Time{}
}

// looks says how often copies failed lately, and for how long a donor has been looked for.
func (d *donors) looks(now time.Time) (failed map[paxos.NodeID]int, waited time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.since.IsZero() || now.Sub(d.last) > searchOver {
		d.since = now
	}
	d.last = now
	failed = map[paxos.NodeID]int{}
	for id := range d.tried {
		failed[id] = d.lately(id, now)
	}
	return failed, now.Sub(d.since)
}

// findDonor finds a member that gives a copy of its data.
func (a *Agent) findDonor(ctx context.Context) (offer, error) {
	now := time.Now()
	failures, waited := a.donors.looks(now)
	offers, failed := askOthers[offer](ctx, a, callOffer, nothing{})
	o, err := chooseDonor(offers, a.install.Version.Release(), failures)
	if err != nil {
		return o, errors.Join(append([]error{err}, failed...)...)
	}
	if id := a.coming(now, o, failures); o.Master && id != 0 && waited < masterAfter {
		return o, hinted{fmt.Errorf("only the master gives a copy of its data now, and member %d may soon", id), "it is tried again by itself"}
	}
	return o, nil
}

// coming is a follower with data that lives and gave no data, or zero.
func (a *Agent) coming(now time.Time, master offer, failures map[paxos.NodeID]int) paxos.NodeID {
	for _, m := range a.group.Leader().Members.List {
		if m.ID == a.cfg.Node.ID || m.ID == master.Node || m.Role == paxos.Witness || failures[m.ID] >= triedOut {
			continue
		}
		an, age, ok := a.peers.get(m.ID, now)
		if ok && age < aliveFor && an.Member.Copy == nil && series(an.Member.Engine.Version) == series(master.Version) {
			return m.ID
		}
	}
	return 0
}

// chooseDonor prefers a follower, and among those the one whose copies failed least and
// that is least behind. The master gives its data only when no follower does, or those
// that do have failed again and again.
func chooseDonor(offers []offer, version string, failures map[paxos.NodeID]int) (offer, error) {
	var best offer
	var why []string
	for _, o := range offers {
		if o.Refusal == "" && series(o.Version) != series(version) {
			o.Refusal = "it has MySQL " + o.Version + ", this node " + version
		}
		switch {
		case o.Refusal != "":
			why = append(why, fmt.Sprintf("node %d: %s", o.Node, o.Refusal))
		case best.Node == 0 || o.before(best, failures):
			best = o
		}
	}
	if best.Node == 0 {
		return best, hinted{fmt.Errorf("no member gives a copy of its data: %s", strings.Join(why, "; ")), "it is tried again; at least one other member must be well"}
	}
	return best, nil
}

// before reports whether an offer is better than another one.
func (o offer) before(b offer, failures map[paxos.NodeID]int) bool {
	mine, other := failures[o.Node], failures[b.Node]
	switch out := mine >= triedOut; {
	case out != (other >= triedOut):
		return !out
	case o.Master != b.Master:
		return b.Master
	case mine != other:
		return mine < other
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
