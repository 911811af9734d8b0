package e2e

import (
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/phxsql/phxsql/internal/api"
	"github.com/phxsql/phxsql/internal/drill"
)

// TestFlowHoldsCommitsUp has the servers of both followers run for a twentieth of the
// time: the master's commits become slower, go on, and are let go when the followers
// keep up again.
func TestFlowHoldsCommitsUp(t *testing.T) {
	onlyLong(t)
	c := start(t, drill.Options{Extra: "[flow]\nmax_lag = \"2s\"\n"})
	w := load(t, c)
	ctx := limit(t, 4*time.Minute)
	master, err := c.Master(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, n := range c.Nodes {
		if n == master {
			continue
		}
		pid, err := n.ServerPID()
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		slow(func() []int { return pids }, 25*time.Millisecond, 475*time.Millisecond, end)
	}()
	flow := func(want string, ok func(rate int64, waited time.Duration) bool) {
		t.Helper()
		err := drill.Eventually(ctx, func() error {
			m, err := master.Self(ctx)
			if err != nil || m.Flow == nil {
				return fmt.Errorf("node %d tells no flow: %v", master.ID, err)
			}
			if !ok(m.Flow.Rate, time.Duration(m.Flow.Waited)) {
				return fmt.Errorf("want commits that are %s: %+v", want, *m.Flow)
			}
			t.Logf("%s: %+v", want, *m.Flow)
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	flow("held up", func(rate int64, waited time.Duration) bool { return rate > 0 && waited > 0 })
	if err := w.WaitAck(ctx, time.Now()); err != nil {
		t.Error(err)
	}
	close(end)
	<-ended
	flow("let go", func(rate int64, _ time.Duration) bool { return rate == 0 })
	judge(t, c, w)
}

// slow lets processes run for a part of the time, until end is closed.
func slow(pids func() []int, run, rest time.Duration, end <-chan struct{}) {
	for {
		now := pids()
		signal := func(s syscall.Signal) {
			for _, pid := range now {
				_ = syscall.Kill(pid, s) // one that is gone is started anew
			}
		}
		signal(syscall.SIGSTOP)
		select {
		case <-end:
		case <-time.After(rest):
		}
		signal(syscall.SIGCONT)
		select {
		case <-end:
			return
		case <-time.After(run):
		}
	}
}

// TestFlowLetsANewNodeCatchUp: a node joins under a load that never lulls, more than its
// server can execute, which runs for a part of the time only. It gets its data, they are
// compared, and it gets its vote; all that while commits go on.
func TestFlowLetsANewNodeCatchUp(t *testing.T) {
	onlyLong(t)
	c := start(t, drill.Options{Nodes: 1})
	w := load(t, c)
	first := c.Nodes[0]
	watch := startStopwatch(t, c, first, 64)
	if err := w.WaitAck(limit(t, time.Minute), time.Now().Add(20*time.Second)); err != nil { // there is a log to execute
		t.Fatal(err)
	}
	token, err := c.Run(limit(t, time.Minute), "token", "create")
	if err != nil {
		t.Fatal(err)
	}
	n, err := c.Add(2)
	if err != nil {
		t.Fatal(err)
	}
	_, _, before := watch.lap()
	began := time.Now()
	if err := n.Join(token); err != nil {
		t.Fatal(err)
	}
	end, ended := make(chan struct{}), make(chan struct{})
	var runs atomic.Bool // its server does
	go func() {
		defer close(ended)
		slow(func() []int {
			if pid, err := n.ServerPID(); err == nil && runs.Load() {
				return []int{pid}
			}
			return nil
		}, 60*time.Millisecond, 90*time.Millisecond, end)
	}()
	full := sync.OnceFunc(func() { close(end); <-ended })
	t.Cleanup(full)
	ctx, waited, behind := limit(t, 8*time.Minute), false, uint64(0)
	err = drill.Eventually(ctx, func() error {
		st, err := c.Status(ctx)
		if err != nil {
			return err
		}
		for _, m := range st.Members {
			if m.Flow != nil && m.Flow.For == 2 {
				waited = true
			}
			if m.ID == 2 {
				behind = max(behind, m.LagTransactions)
				runs.Store(m.Engine.State == "running")
				if m.Role == "voter" && m.State == api.StateFollower {
					return nil
				}
				return fmt.Errorf("node 2 is %s %s, %d transactions behind: %+v", m.Role, m.State, m.LagTransactions, m.Problems)
			}
		}
		return fmt.Errorf("node 2 is not known")
	})
	_, p99, during := watch.lap()
	t.Logf("%d commits in 20s before; joined after %v: %d commits meanwhile, p99 %v, at most %d transactions behind; held up for it: %v; longest pause %v",
		before, time.Since(began).Round(time.Second), during, p99, behind, waited, w.Pause(began))
	if err != nil {
		t.Fatalf("%v\n%s", err, n.LogTail())
	}
	if err := w.WaitAck(ctx, time.Now()); err != nil {
		t.Error(err)
	}
	// Under that load, too, it can become the master.
	err = drill.Eventually(limit(t, 2*time.Minute), func() error {
		_, err := c.Run(ctx, "switchover", "--to", "2")
		return err
	})
	if err != nil {
		t.Error(err)
	}
	watch.stop()
	full()
	judge(t, c, w)
}
