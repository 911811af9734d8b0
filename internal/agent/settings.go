package agent

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/phxsql/phxsql/internal/api"
	"github.com/phxsql/phxsql/internal/config"
	"github.com/phxsql/phxsql/internal/entry"
	"github.com/phxsql/phxsql/internal/relay"
	"github.com/phxsql/phxsql/internal/telemetry"
	"github.com/phxsql/phxsql/paxos"
)

// callSettings asks the leader for a change: settingsRequest -> api.SettingsResult.
const callSettings = "settings"

// leaseKey is the setting that members must know how to follow.
const leaseKey = "consensus.lease"

// settingsLimit is how long a change may take to be chosen.
const settingsLimit = 30 * time.Second

// settings are what this node works by: its own file, and over it what the log says
// for all members. It is safe for concurrent use.
type settings struct {
	changing sync.Mutex // one change at a time, on the leader
	accounts accounts
	now      atomic.Pointer[settledConfig]
}

// settledConfig is never changed.
type settledConfig struct {
	config.Config
	log *relay.Settings
}

// at is where the newest change stands that this node works by.
func (s *settings) at() paxos.Instance {
	if c := s.now.Load(); c != nil {
		return c.log.At
	}
	return 0
}

// settled is the configuration that this node works by now.
func (a *Agent) settled() *config.Config { return &a.settings.now.Load().Config }

// followSettings works by the settings of the log until ctx ends.
func (a *Agent) followSettings(ctx context.Context) {
	a.wg.Go(func() { a.followAccounts(ctx) })
	for {
		changed := a.settle()
		c := a.settled()
		a.proxy.SetLimits(c.Proxy.MaxConnections, c.Proxy.ConnectTimeout.D())
		a.pacer.limit(int64(c.Copy.Rate))
		if err := a.group.SetLease(c.Consensus.Lease.D()); err != nil {
			a.log.Warn("lease not changed", telemetry.KeyError, err)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// settle takes the present settings over and returns a channel that is closed when
// there are others.
func (a *Agent) settle() <-chan struct{} {
	s, changed := a.journal.Settings()
	c, err := a.cfg.Overlay(sharedValues(s))
	if err != nil {
		a.log.Warn("settings do not fit this node's file", telemetry.KeyError, err)
		c = reconciled(c)
	}
	a.settings.now.Store(&settledConfig{c, s})
	return changed
}

// sharedValues are the values of the keys that this release knows. A newer one may
// have set others.
func sharedValues(s *relay.Settings) map[string]string {
	values := map[string]string{}
	for key, v := range s.Values {
		if config.IsShared(key) {
			values[key] = v.Value
		}
	}
	return values
}

// reconciled makes values fit each other that come partly from the log and partly from
// this node's file.
func reconciled(c config.Config) config.Config {
	c.Log.Keep = min(c.Log.Keep, c.Log.Limit/2)
	c.Switchover.Drain = min(c.Switchover.Drain, c.Switchover.Limit/2)
	c.Consensus.Lease = max(c.Consensus.Lease, config.LeaseBeats*c.Consensus.Heartbeat)
	return c
}

// switchWithin carries a switchover out within the limits that are set.
func (a *Agent) switchWithin(ctx context.Context, to paxos.NodeID) error {
	s := a.settled().Switchover
	return a.loop.requestSwitchoverWithin(ctx, to, s.Limit.D(), s.Drain.D())
}

// Settings returns the settings as this node knows them.
func (a *Agent) Settings(context.Context) (api.SettingsResult, error) {
	now := a.settings.now.Load()
	std := config.Default()
	res := api.SettingsResult{At: now.log.At, Settings: []api.Setting{}, Waiting: a.behindSettings(now.log.At)}
	for _, key := range config.SharedKeys() {
		s := api.Setting{Key: key, Value: now.SharedValue(key), Default: std.SharedValue(key), From: "default"}
		own := a.cfg.SharedValue(key)
		if v, ok := now.log.Values[key]; ok {
			s.From, s.Instance, s.Changed, s.By = "cluster", v.Instance, &v.Time, v.By
			if own != s.Default && own != s.Value {
				s.File = own
			}
		} else if own != s.Default {
			s.From = "file"
		}
		res.Settings = append(res.Settings, s)
	}
	return res, nil
}

// behindSettings are the members that are not known to work by the settings at an
// instance.
func (a *Agent) behindSettings(at paxos.Instance) []paxos.NodeID {
	ids := []paxos.NodeID{}
	for _, m := range a.group.Leader().Members.List {
		if m.ID == a.cfg.Node.ID {
			continue
		}
		an, _, ok := a.peers.get(m.ID, time.Now())
		if at > 0 && (!ok || an.Member.SettingsAt == nil || *an.Member.SettingsAt < at) {
			ids = append(ids, m.ID)
		}
	}
	return ids
}

// SettingsHistory returns the newest changes, oldest first.
func (a *Agent) SettingsHistory(context.Context) (api.SettingsHistory, error) {
	s, _ := a.journal.Settings()
	res := api.SettingsHistory{Changes: []api.SettingsChange{}}
	for _, c := range s.History {
		set := maps.Clone(c.Set)
		for key, v := range set { // what tells nobody anything
			switch {
			case key == rotationKey:
				set[key] = "new"
			case strings.HasPrefix(key, tokenKey):
				set[key] = tokenHistory(v)
			}
		}
		res.Changes = append(res.Changes, api.SettingsChange{Instance: c.Instance, Time: c.Time, By: c.By, Set: set, Unset: c.Unset})
	}
	return res, nil
}

// ChangeSettings changes settings of the whole cluster; it may be asked of any member.
func (a *Agent) ChangeSettings(ctx context.Context, req api.SettingsRequest) (api.SettingsResult, error) {
	var res api.SettingsResult
	return res, a.callLeader(ctx, callSettings, req, &res)
}

// onSettings checks a change, proposes it, and returns when it counts.
func (a *Agent) onSettings(ctx context.Context, _ paxos.NodeID, req api.SettingsRequest) (api.SettingsResult, error) {
	_, err := a.changeSettings(ctx, func(now *relay.Settings) (entry.Change, error) {
		if err := a.checkLeases(req); err != nil {
			return entry.Change{}, err
		}
		return settingsChange(&a.cfg, now, req)
	})
	if err != nil {
		return api.SettingsResult{}, err
	}
	return a.Settings(ctx)
}

// settingsChange is what has to change for a request. Everything that is wrong with it
// is said at once.
func settingsChange(file *config.Config, now *relay.Settings, req api.SettingsRequest) (entry.Change, error) {
	c := entry.Change{By: req.By}
	values := sharedValues(now)
	for key, v := range req.Set {
		values[key] = v
	}
	for _, key := range req.Unset {
		if _, both := req.Set[key]; both {
			return c, api.BadRequest("bad_setting", key+" is to be set and unset", "")
		}
		if !config.IsShared(key) {
			values[key] = "" // refused below
			continue
		}
		delete(values, key)
		if _, set := now.Values[key]; set {
			c.Unset = append(c.Unset, key)
		}
	}
	overlaid, err := file.Overlay(values)
	if err != nil {
		return c, api.BadRequest("bad_setting", err.Error(), "nothing was changed")
	}
	for key := range req.Set {
		v := overlaid.SharedValue(key) // the way it is always written
		if old, set := now.Values[key]; !set || old.Value != v {
			if c.Set == nil {
				c.Set = map[string]string{}
			}
			c.Set[key] = v
		}
	}
	slices.Sort(c.Unset)
	return c, nil
}

// changeSettings proposes a change of the present settings, and returns the settings
// when it counts. A change of nothing is not proposed. Only the leader can.
func (a *Agent) changeSettings(ctx context.Context, change func(now *relay.Settings) (entry.Change, error)) (*relay.Settings, error) {
	a.settings.changing.Lock()
	defer a.settings.changing.Unlock()
	ctx, cancel := context.WithTimeout(ctx, settingsLimit)
	defer cancel()
	if !a.group.Leader().Ready {
		return nil, errLeaderMoved()
	}
	if err := a.journal.WaitThrough(ctx, a.group.Chosen()); err != nil {
		return nil, err
	}
	if err := a.checkReaders(); err != nil {
		return nil, err
	}
	now, _ := a.journal.Settings()
	c, err := change(now)
	if err != nil || len(c.Set)+len(c.Unset) == 0 {
		return now, err
	}
	c.After, c.At = uint64(now.At), time.Now().UTC().Truncate(time.Millisecond)
	at, err := a.proposeChange(ctx, c)
	if err != nil {
		return nil, err
	}
	now, _ = a.journal.Settings()
	if !slices.ContainsFunc(now.History, func(h relay.SettingsChange) bool { return h.Instance == at }) {
		return nil, api.Refused("other_change", "another change of the settings came first", "look at 'phxsql config show' and ask again")
	}
	a.settle() // so that this node answers by it; followSettings does the rest
	return now, nil
}

// proposeChange returns where the change stands in the log, when the journal has
// followed it.
func (a *Agent) proposeChange(ctx context.Context, c entry.Change) (paxos.Instance, error) {
	text, err := c.Encode()
	if err != nil {
		return 0, api.BadRequest("bad_setting", err.Error(), "change fewer settings at a time")
	}
	v := entry.Value{Kind: entry.Settings, Epoch: a.journal.Epoch().Number, Node: uint64(a.cfg.Node.ID), Events: text}
	type outcome struct {
		at  paxos.Instance
		err error
	}
	done := make(chan outcome, 1)
	if err := a.group.Propose(v.Encode(), func(i paxos.Instance, err error) { done <- outcome{i, err} }); err != nil {
		return 0, errLeaderMoved().Because(err)
	}
	var o outcome
	select {
	case o = <-done:
	case <-ctx.Done():
		o.err = ctx.Err()
	}
	if o.err == nil {
		o.err = a.journal.WaitThrough(ctx, o.at)
	}
	if o.err != nil {
		return 0, api.Unavailable("unknown_outcome", "it is not known whether the change was made: "+o.err.Error(), "look at 'phxsql config history'; a majority must be up").Because(o.err)
	}
	return o.at, nil
}

// checkReaders refuses a change that a member could not read: it would stop.
func (a *Agent) checkReaders() error {
	return a.refuseOld("cannot read settings", func(an announcement) bool { return an.Member.SettingsAt != nil })
}

// checkLeases refuses a change of the lease while a member would not follow it: leases
// stay safe then, but would not have the length that the settings say.
func (a *Agent) checkLeases(req api.SettingsRequest) error {
	if _, set := req.Set[leaseKey]; !set && !slices.Contains(req.Unset, leaseKey) {
		return nil
	}
	return a.refuseOld("cannot change leases while it runs", func(an announcement) bool { return an.Leases })
}

// refuseOld refuses what a member that is up cannot do.
func (a *Agent) refuseOld(what string, can func(announcement) bool) error {
	var old []string
	now := time.Now()
	for _, m := range a.group.Leader().Members.List {
		if an, age, ok := a.peers.get(m.ID, now); ok && age < aliveFor && !can(an) {
			old = append(old, fmt.Sprint(m.ID))
		}
	}
	if len(old) > 0 {
		return api.Refused("old_release", "these members run a release that "+what+": "+strings.Join(old, ", "), "upgrade them first")
	}
	return nil
}
