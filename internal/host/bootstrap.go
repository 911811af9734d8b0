package host

import (
	"context"
	"errors"
	"fmt"

	"github.com/phxsql/phxsql/internal/replica"
	"github.com/phxsql/phxsql/paxos"
	"github.com/phxsql/phxsql/wal"
)

// ErrNotBlank refuses to make a new group of a member that has one.
var ErrNotBlank = errors.New("this member belongs to a group already")

// Bootstrap writes the first membership into the log of a running, blank member,
// which then campaigns for it. It must be called on one member only; the others
// learn of it. The caller says anew whether this member may lead.
func (g *Group) Bootstrap(ctx context.Context, ms paxos.Members) error {
	done := make(chan error, 1)
	g.inspect(func(*paxos.Core) { done <- g.bootstrap(ms) })
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("bootstrap group %d: %w", g.id, ctx.Err())
	case <-g.host.stop:
		return ErrClosed
	}
}

// Install makes the member go on behind an instance whose effect the application
// has got as a snapshot, when nobody has the log before it any more. The caller
// must have made its copy durable. It says anew whether this member may lead.
func (g *Group) Install(ctx context.Context, through paxos.Instance, ms paxos.Members) error {
	done := make(chan error, 1)
	g.inspect(func(*paxos.Core) { done <- g.install(through, ms) })
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("install snapshot in group %d: %w", g.id, ctx.Err())
	case <-g.host.stop:
		return ErrClosed
	}
}

// install runs during a turn, and holds the group up until the log is synced.
func (g *Group) install(through paxos.Instance, ms paxos.Members) error {
	r, told, err := g.rep.Install(g.host.opt.Log, g.cfg, through, ms, g.host.opt.Clock())
	if err != nil {
		return fmt.Errorf("install snapshot in group %d: %w", g.id, err)
	}
	g.rep = r
	g.recent.reset()
	g.lead(g.view.Load(), &View{Leadership: r.Core().Leadership(), Members: r.Core().Members()})
	g.chosen.Store(uint64(through))
	g.announce()
	for i := range told {
		told[i].Tell()
	}
	return nil
}

// bootstrap runs during a turn. The new replica starts from the log
// like one of a new process; what it appends later is synced behind the
// membership, so no vow can come before it.
func (g *Group) bootstrap(ms paxos.Members) error {
	if c := g.rep.Core(); !c.Members().Blank() || c.Chosen() != 0 {
		return fmt.Errorf("bootstrap group %d: %w", g.id, ErrNotBlank)
	}
	if err := replica.Bootstrap(g.host.opt.Log, wal.Group(g.id), g.cfg.Self, ms); err != nil {
		return err
	}
	now := g.host.opt.Clock()
	r, err := replica.Open(g.host.opt.Log, wal.Group(g.id), g.cfg, now)
	if err != nil {
		return err
	}
	r.Step(now, paxos.Event{Kind: paxos.EventLease, Lease: g.rep.Core().LeaseLength()})
	g.rep.Abandon()
	g.rep = r
	g.host.requestSync()
	return nil
}
