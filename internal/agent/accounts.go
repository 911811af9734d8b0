package agent

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/phxsql/phxsql/internal/api"
	"github.com/phxsql/phxsql/internal/cluster"
	"github.com/phxsql/phxsql/internal/entry"
	"github.com/phxsql/phxsql/internal/mysqld"
	"github.com/phxsql/phxsql/internal/relay"
	"github.com/phxsql/phxsql/internal/telemetry"
	"github.com/phxsql/phxsql/paxos"
)

// The passwords of the agents' accounts in their servers are rotated through the log:
// the leader draws a number and puts it there, as the value of a key of the settings.
// Each node makes its own passwords of the number and the cluster's secret, which is
// not in the log. So the log and whoever reads it learn nothing, every node comes to
// know it in order, also one that was down or gets its log's beginning from another
// node's base, and a rotation that is interrupted anywhere is simply due again.

// rotationKey is the key of that number.
const rotationKey = "accounts.rotation"

// callRotate asks the leader for a rotation: api.RotateRequest -> api.RotateResult.
const callRotate = "accounts_rotate"

const (
	accountsEvery = 500 * time.Millisecond // how often it is looked whether one is due
	// oldPasswords is how long the server takes the old passwords beside the new ones:
	// longer than any login lasts that has begun with one.
	oldPasswords  = 5 * time.Second
	accountsLimit = 5 * time.Second  // for one step on a node
	rotateLimit   = 60 * time.Second // for the members that are up to carry one out
)

// accounts is how far this node is with rotations.
type accounts struct {
	done atomic.Uint64
}

// rotated is where the newest rotation stands that this node has carried out.
func (c *accounts) rotated() paxos.Instance { return paxos.Instance(c.done.Load()) }

// followAccounts carries out rotations until ctx ends.
func (a *Agent) followAccounts(ctx context.Context) {
	t := time.NewTicker(accountsEvery)
	defer t.Stop()
	var due relay.Setting
	var forget time.Time
	source, sourceOf := "", paxos.Instance(0) // the next password of replication, and of which rotation it is
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		s, _ := a.journal.Settings()
		v, ok := s.Values[rotationKey]
		if !ok || v.Instance == a.settings.accounts.rotated() {
			continue
		}
		err := error(nil)
		if v.Instance != due.Instance {
			if v.Instance != sourceOf {
				source, sourceOf = rand.Text(), v.Instance
			}
			if err = a.changeAccounts(ctx, func(ctx context.Context) error { return a.rotate(ctx, a.accountSecret(v.Value), source) }); err == nil {
				due, forget = v, time.Now().Add(oldPasswords)
			}
		} else if time.Now().After(forget) {
			if err = a.changeAccounts(ctx, a.db.ForgetOld); err == nil {
				a.source.ForgetOld()
				a.settings.accounts.done.Store(uint64(v.Instance))
				a.log.Info("accounts rotated", telemetry.KeyInstance, uint64(v.Instance))
			}
		}
		switch {
		case err == nil, ctx.Err() != nil:
		case errors.Is(err, mysqld.ErrNotNow):
			a.log.Debug("accounts not rotated yet", telemetry.KeyReason, err.Error())
		default:
			a.log.Warn("accounts not rotated yet", telemetry.KeyError, err, telemetry.KeyHint, "it is tried again by itself")
		}
	}
}

// rotate gives the accounts in the server new passwords, and has replication from this
// agent use a new one. The old ones are still taken.
func (a *Agent) rotate(ctx context.Context, secret, source string) error {
	if err := a.db.Rotate(ctx, secret); err != nil {
		return err
	}
	a.source.SetPassword(source)
	return a.db.renewSource(ctx, source)
}

// accountSecret is this node's own password for a number from the log.
func (a *Agent) accountSecret(number string) string {
	key := a.secret.Derive(fmt.Sprintf("account of node %d, %s", a.cfg.Node.ID, number))
	return hex.EncodeToString(key)[:mysqld.SecretSize]
}

// changeAccounts calls f while the server keeps its role.
func (a *Agent) changeAccounts(ctx context.Context, f func(context.Context) error) error {
	s := a.loop.last.Load()
	if s == nil || s.view.Stopping || s.view.Restore.Need != cluster.NeedNothing || s.view.Restore.Ready {
		return mysqld.ErrNotNow
	}
	if !a.db.role.TryLock() {
		return mysqld.ErrNotNow
	}
	defer a.db.role.Unlock()
	ctx, cancel := context.WithTimeout(ctx, accountsLimit)
	defer cancel()
	return f(ctx)
}

// RotateAccounts rotates the accounts of all members; it may be asked of any member.
func (a *Agent) RotateAccounts(ctx context.Context, req api.RotateRequest) (api.RotateResult, error) {
	var res api.RotateResult
	return res, a.callLeader(ctx, callRotate, req, &res)
}

// onRotate begins a rotation and returns when all members that are up have carried it
// out. The others do when they are back.
func (a *Agent) onRotate(ctx context.Context, _ paxos.NodeID, req api.RotateRequest) (api.RotateResult, error) {
	s, err := a.changeSettings(ctx, func(*relay.Settings) (entry.Change, error) {
		return entry.Change{By: req.By, Set: map[string]string{rotationKey: rand.Text()}}, nil
	})
	if err != nil {
		return api.RotateResult{}, err
	}
	at := s.Values[rotationKey].Instance
	a.log.Info("rotation of accounts begins", telemetry.KeyInstance, uint64(at))
	ctx, cancel := context.WithTimeout(ctx, rotateLimit)
	defer cancel()
	t := time.NewTicker(accountsEvery)
	defer t.Stop()
	for {
		res, pending := a.rotation(at)
		if !pending {
			return res, nil
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return res, nil
		case <-a.loop.done:
			return res, errStopped
		}
	}
}

// rotation tells who has carried a rotation out. Pending reports that a member has not
// that is up.
func (a *Agent) rotation(at paxos.Instance) (res api.RotateResult, pending bool) {
	res = api.RotateResult{At: at, Done: []paxos.NodeID{}, Waiting: []paxos.NodeID{}}
	now := time.Now()
	for _, m := range a.group.Leader().Members.List {
		done, up := a.settings.accounts.rotated(), true
		if m.ID != a.cfg.Node.ID {
			an, age, ok := a.peers.get(m.ID, now)
			done, up = an.Member.AccountsAt, ok && age < aliveFor
		}
		if done >= at {
			res.Done = append(res.Done, m.ID)
			continue
		}
		res.Waiting = append(res.Waiting, m.ID)
		pending = pending || up
	}
	slices.Sort(res.Waiting)
	return res, pending
}
