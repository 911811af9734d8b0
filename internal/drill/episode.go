package drill

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// episode breaks the cluster by one fault, or by several that overlap, heals it, and
// waits until all is well. False says that it did not come back.
func (r *run) episode(ctx context.Context, planned []Planned) bool {
	first := len(r.verdict.Bouts)
	var open []func() error // mends of faults that last
	mend := func() bool {
		ok := true
		for _, m := range open {
			if err := m(); err != nil {
				r.broken("mend: %v", err)
				ok = false
			}
		}
		for i := first; i < len(r.verdict.Bouts); i++ {
			if b := &r.verdict.Bouts[i]; b.Mended == 0 {
				b.Mended = r.rec.Now()
			}
		}
		open = nil
		return ok
	}
	for i, p := range planned {
		if i > 0 && r.interrupted() {
			break
		}
		f, ok := r.strike(ctx, p, len(planned) > 1, &open)
		if !ok {
			return false
		}
		last := i == len(planned)-1
		if !last && p.Overlap == OnTop {
			r.pass(ctx, min(p.Gap, f.Hold))
			continue
		}
		if !mend() {
			return false
		}
		if !last {
			r.pass(ctx, p.Gap)
		}
	}
	if !mend() { // what an interrupt left
		return false
	}
	return r.recover(ctx, first)
}

// pass lets time pass, unless the drill is interrupted.
func (r *run) pass(ctx context.Context, d time.Duration) {
	select {
	case <-r.interrupt:
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// strike breaks the cluster once and lets the fault last.
func (r *run) strike(ctx context.Context, p Planned, overlaps bool, open *[]func() error) (Fault, bool) {
	f := p.Fault()
	master, err := r.masterNow(ctx, overlaps)
	if err != nil {
		r.broken("before %s: %v", f.Name, err)
		return f, false
	}
	b := Bout{N: len(r.verdict.Bouts) + 1, Kind: p.Kind.Name, Family: p.Kind.Family, Outage: f.Outage, Text: f.Name, Master: master.ID, Overlap: p.Overlap, Broken: r.rec.Now()}
	r.say("fault %d: %s (master is node %d)%s", b.N, f.Name, master.ID, follows(p.Overlap))
	err = f.Break(ctx, r.c, master)
	if errors.Is(err, errRefused) {
		b.Refused = err.Error()
	} else if err != nil {
		r.broken("fault %d: %s: %v", b.N, f.Name, err)
		return f, false
	}
	if f.Mend != nil {
		*open = append(*open, func() error { return f.Mend(ctx, r.c, master) })
	}
	r.verdict.Bouts = append(r.verdict.Bouts, b)
	if p.Overlap == OnTop {
		return f, true
	}
	until := time.Now().Add(f.Hold)
	if !f.Outage && !overlaps {
		if err := r.waitAck(ctx, serveLimit); err != nil {
			r.broken("fault %d: %s: a majority was well, but %v", b.N, f.Name, err)
			return f, false
		}
	}
	r.hold(ctx, until, master, p.Linger())
	return f, true
}

// afterTakeover is how long a fault goes on after another node has taken over.
const afterTakeover = 1500 * time.Millisecond

// hold lets a fault last until a time, or until the drill is interrupted. Unless it
// lingers, it ends a little after another node has become master and a write was
// acknowledged: the cluster has got over it.
func (r *run) hold(ctx context.Context, until time.Time, master *Node, lingers bool) {
	over := lingers
	for time.Now().Before(until) && !r.interrupted() {
		wait(ctx, min(watchEvery, time.Until(until)))
		if over || !r.takenOver(ctx, master) {
			continue
		}
		over = true
		if soon := time.Now().Add(afterTakeover); soon.Before(until) {
			until = soon
		}
	}
}

// takenOver reports that another node is master, and that a write which began after that
// was seen is acknowledged before long.
func (r *run) takenOver(ctx context.Context, old *Node) bool {
	return r.c.MasterBesides(ctx, old) == nil && r.waitAck(ctx, watchEvery) == nil
}

func follows(o Overlap) string {
	if o == Apart {
		return ""
	}
	return ", the next follows " + string(o)
}

// masterNow is the master; while faults overlap there may be none, and any node that
// runs stands for it.
func (r *run) masterNow(ctx context.Context, overlaps bool) (*Node, error) {
	limit := serveLimit
	if overlaps {
		limit = 2 * time.Second
	}
	short, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	m, err := r.c.Master(short)
	if err == nil || !overlaps || ctx.Err() != nil {
		return m, err
	}
	for _, n := range r.c.Nodes {
		if n.Running() {
			return n, nil
		}
	}
	return r.c.Nodes[0], nil
}

// recover waits until the cluster serves and every node is well.
func (r *run) recover(ctx context.Context, first int) bool {
	if err := r.c.Heal(); err != nil {
		r.broken("heal: %v", err)
		return false
	}
	bouts := r.verdict.Bouts
	b := &bouts[len(bouts)-1]
	if err := r.waitAck(ctx, serveLimit); err != nil {
		r.broken("fault %d: %s: after the mend %v", b.N, b.Text, err)
		return false
	}
	well, cancel := context.WithTimeout(ctx, wellLimit)
	defer cancel()
	if err := r.c.waitRoles(well); err != nil {
		r.broken("fault %d: %s: %v", b.N, b.Text, err)
		return false
	}
	b.Well = r.rec.Now()
	for _, n := range r.c.Nodes {
		n.bare = false
	}
	for i := first; i < len(bouts); i++ {
		to := b.Well
		if i+1 < len(bouts) {
			to = bouts[i+1].Broken
		}
		bouts[i].Pause = r.rec.Pause(bouts[i].Broken, to)
	}
	r.say("fault %d: %s without commits, all well %s after the mend", b.N, short(r.rec.Pause(bouts[first].Broken, b.Well)), short(time.Duration(b.Well-b.Mended)))
	return true
}

func short(d time.Duration) string { return fmt.Sprintf("%.2fs", d.Seconds()) }

// judge ends the loads and holds everything that clients were told against every node.
func (r *run) judge(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, judgeLimit)
	defer cancel()
	r.say("judging")
	stopLoads(r.loads)
	if err := r.c.WaitHealthy(ctx); err != nil {
		r.broken("after the load: %v", err)
		return nil
	}
	return r.judgeLoads(ctx, func() error { return r.c.Compare(ctx) })
}

// judgeLoads judges each load, which must have been stopped, and compares the members.
func (r *run) judgeLoads(ctx context.Context, compare func() error) error {
	ok := true
	var errs []error
	for i, l := range r.loads {
		f, err := l.Judge(ctx)
		if err != nil {
			errs = append(errs, fmt.Errorf("judge workload %s: %w", r.plan.Loads[i].Name, err))
			continue
		}
		ok = ok && len(f.Wrong) == 0
		r.verdict.Findings = append(r.verdict.Findings, f)
	}
	if err := compare(); err != nil {
		r.broken("members differ: %v", err)
	}
	r.verdict.OK = ok && len(r.verdict.Broken)+len(errs) == 0
	return errors.Join(errs...)
}
