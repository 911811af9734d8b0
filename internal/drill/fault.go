package drill

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/phxsql/phxsql/internal/api"
)

// Fault breaks a cluster and mends what does not mend itself.
type Fault struct {
	Name string
	// Break does it. The master is the node that was master before.
	Break func(ctx context.Context, c *Cluster, master *Node) error
	// Mend undoes it after Hold; nil when nothing is to be undone. A killed
	// process is started again: that is a machine's init system, not a person.
	Mend func(ctx context.Context, c *Cluster, master *Node) error
	// Hold is how long the fault lasts.
	Hold time.Duration
	// Outage says that no node can serve until Mend.
	Outage bool
}

// The faults of the drill.
var (
	KillMaster = Fault{
		Name:  "kill the master's agent and mysqld",
		Break: func(_ context.Context, _ *Cluster, m *Node) error { return m.KillAll() },
		Mend:  func(_ context.Context, _ *Cluster, m *Node) error { return m.Start() },
	}
	KillMasterServer = Fault{
		Name:  "kill the master's mysqld",
		Break: func(_ context.Context, _ *Cluster, m *Node) error { return m.KillServer() },
	}
	KillMasterAgent = Fault{
		Name:  "kill the master's agent",
		Break: func(_ context.Context, _ *Cluster, m *Node) error { return m.KillAgent() },
		Mend:  func(_ context.Context, _ *Cluster, m *Node) error { return m.Start() },
	}
	PauseMaster = Fault{
		Name:  "pause the master's agent",
		Break: func(_ context.Context, _ *Cluster, m *Node) error { return m.Pause() },
		Mend:  func(_ context.Context, _ *Cluster, m *Node) error { return m.Resume() },
		Hold:  10 * time.Second,
	}
	// PauseMasterBriefly stops the master's agent for about as long as a lease,
	// again and again, so that answers are on their way at its end.
	PauseMasterBriefly = Fault{
		Name: "pause the master's agent for about a lease, five times",
		Break: func(ctx context.Context, _ *Cluster, m *Node) error {
			for i := range 5 {
				if err := m.Pause(); err != nil {
					return err
				}
				wait(ctx, time.Duration(700+100*i)*time.Millisecond)
				if err := m.Resume(); err != nil {
					return err
				}
				wait(ctx, 200*time.Millisecond)
			}
			return nil
		},
	}
	// PauseMasterServer stops the master's mysqld; its agent lives and must notice.
	PauseMasterServer = Fault{
		Name:  "pause the master's mysqld",
		Break: func(_ context.Context, _ *Cluster, m *Node) error { return m.PauseServer() },
		Mend:  func(_ context.Context, _ *Cluster, m *Node) error { return m.ResumeServer() },
		Hold:  15 * time.Second,
	}
	PauseFollower = Fault{
		Name:  "pause a follower's agent",
		Break: func(_ context.Context, c *Cluster, m *Node) error { return c.other(m).Pause() },
		Mend: func(_ context.Context, c *Cluster, _ *Node) error {
			for _, n := range c.Nodes {
				if n.paused {
					return n.Resume()
				}
			}
			return errors.New("no node is paused")
		},
		Hold: 10 * time.Second,
	}
	KillAll = Fault{
		Name:   "kill all nodes",
		Break:  func(_ context.Context, c *Cluster, _ *Node) error { return c.each((*Node).KillAll) },
		Mend:   func(_ context.Context, c *Cluster, _ *Node) error { return c.each((*Node).Start) },
		Outage: true,
	}
	IsolateMaster = Fault{
		Name:  "cut the master off from its peers",
		Break: func(_ context.Context, _ *Cluster, m *Node) error { return m.Isolate() },
		Mend:  func(_ context.Context, _ *Cluster, m *Node) error { return m.Rejoin() },
		Hold:  6 * time.Second,
	}
	Switchover = Fault{
		Name: "planned switchover",
		Break: func(ctx context.Context, c *Cluster, m *Node) error {
			_, err := c.Run(ctx, "switchover", "--to", fmt.Sprint(c.other(m).ID))
			return err
		},
	}
)

// other returns a node that is not the given one.
func (c *Cluster) other(m *Node) *Node {
	return c.Nodes[m.ID%len(c.Nodes)]
}

// each does something to all nodes at once.
func (c *Cluster) each(f func(*Node) error) error { return c.eachOf(c.Nodes, f) }

// eachOf does something to some nodes at once.
func (c *Cluster) eachOf(nodes []*Node, f func(*Node) error) error {
	var wg sync.WaitGroup
	errs := make([]error, len(nodes))
	for i, n := range nodes {
		wg.Add(1)
		go func() {
			defer wg.Done()
			errs[i] = f(n)
		}()
	}
	wg.Wait()
	return errors.Join(errs...)
}

// promoting is a node besides one that says of itself that it is to be or is master.
func (c *Cluster) promoting(ctx context.Context, but *Node) *Node {
	ctx, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	for _, n := range c.Nodes {
		if n == but || n.paused {
			continue
		}
		if m, err := n.self(ctx); err == nil && (m.State == api.StatePromoting || m.Master) {
			return n
		}
	}
	return nil
}

func nodeName(n *Node) string { return fmt.Sprint(n.ID) }

// errRefused wraps what the cluster refused to do: no failure of the drill.
var errRefused = errors.New("refused")

func refusal(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", errRefused, err)
}

// wait lets time pass: a fault lasts for a time, it has no condition.
func wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// faultLimit bounds one fault with everything around it.
const faultLimit = 90 * time.Second

// Endure breaks the cluster once under the workload's load, and waits until it
// serves and every node is well again.
func (w *Workload) Endure(ctx context.Context, f Fault) (Result, error) {
	ctx, cancel := context.WithTimeout(ctx, faultLimit)
	defer cancel()
	c, ok := w.target.(*Cluster)
	if !ok {
		return Result{}, fmt.Errorf("%s: this is no cluster", f.Name)
	}
	master, err := c.Master(ctx)
	if err != nil {
		return Result{}, fmt.Errorf("%s: %w", f.Name, err)
	}
	c.opt.Say("%s (master is node %d)", f.Name, master.ID)
	start := time.Now()
	if err := f.Break(ctx, c, master); err != nil {
		return Result{}, fmt.Errorf("%s: %w", f.Name, err)
	}
	hold := time.After(f.Hold)
	if !f.Outage {
		if err := w.WaitAck(ctx, time.Now()); err != nil {
			return Result{}, fmt.Errorf("%s: %w\n%s", f.Name, err, c.logTails())
		}
	}
	<-hold
	pause := w.Pause(start)
	mended := time.Now()
	if f.Mend != nil {
		if err := f.Mend(ctx, c, master); err != nil {
			return Result{}, fmt.Errorf("%s: mend: %w", f.Name, err)
		}
	}
	if err := w.WaitAck(ctx, time.Now()); err != nil {
		return Result{}, fmt.Errorf("%s: after the mend: %w\n%s", f.Name, err, c.logTails())
	}
	if f.Outage {
		pause = w.Pause(start)
	}
	if err := c.waitRoles(ctx); err != nil {
		return Result{}, fmt.Errorf("%s: %w", f.Name, err)
	}
	r := Result{Fault: f.Name, Pause: pause, Back: time.Since(mended)}
	c.opt.Say("%s: %v without commits, all well after %v", f.Name, r.Pause.Round(time.Millisecond), r.Back.Round(time.Millisecond))
	return r, nil
}

// waitRoles waits until one node is master and the others follow, however far;
// under load a follower always lacks a little.
// WaitRoles is WaitHealthy under load: followers may lack what is newest.
func (c *Cluster) WaitRoles(ctx context.Context) error { return c.waitRoles(ctx) }

func (c *Cluster) waitRoles(ctx context.Context) error {
	return c.waitFor(ctx, true)
}

func (c *Cluster) logTails() string {
	var b strings.Builder
	for _, n := range c.Nodes {
		fmt.Fprintf(&b, "--- node %d\n%s\n", n.ID, n.LogTail())
	}
	return b.String()
}
