package e2e

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/phxsql/phxsql/internal/api"
	"github.com/phxsql/phxsql/internal/drill"
)

// pauseLimit is far more than a failover takes, on a machine that does nothing else.
const pauseLimit = time.Minute

// nomads write through the read-write ports of whoever is a member: no node is there
// for the whole life of the cluster.
type nomads struct {
	t    *testing.T
	c    *drill.Cluster
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu    sync.Mutex
	addrs []string
	acked []int64
	last  time.Time
	pause time.Duration // the longest time without an acknowledgement since mark
	worst time.Duration // and of all marks
	errs  map[string]int
}

func startNomads(t *testing.T, c *drill.Cluster) *nomads {
	t.Helper()
	if err := c.Exec(limit(t, time.Minute), "CREATE DATABASE nomads", "CREATE TABLE nomads.t (id BIGINT PRIMARY KEY, v VARCHAR(100))"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	n := &nomads{t: t, c: c, stop: cancel, errs: map[string]int{}, last: time.Now()}
	n.know()
	for k := range int64(4) {
		n.wg.Go(func() { n.write(ctx, k) })
	}
	t.Cleanup(func() { cancel(); n.wg.Wait() })
	return n
}

// know takes in who the nodes are now.
func (n *nomads) know() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.addrs = nil
	for _, o := range n.c.Nodes {
		n.addrs = append(n.addrs, o.RW)
	}
}

func (n *nomads) write(ctx context.Context, k int64) {
	for try := int(k); ctx.Err() == nil; try++ {
		n.mu.Lock()
		addr := n.addrs[try%len(n.addrs)]
		n.mu.Unlock()
		if err := n.stay(ctx, addr, k); err != nil && ctx.Err() == nil {
			n.mu.Lock()
			n.errs[err.Error()]++
			n.mu.Unlock()
			select {
			case <-ctx.Done():
			case <-time.After(10 * time.Millisecond):
			}
		}
	}
}

// stay writes through one node until that fails, or for a while.
func (n *nomads) stay(ctx context.Context, addr string, k int64) error {
	db, err := n.c.Open(addr, "nomads")
	if err != nil {
		return err
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	for range 200 {
		id := time.Now().UnixNano()/4*4 + k
		one, cancel := context.WithTimeout(ctx, 20*time.Second)
		_, err := db.ExecContext(one, "INSERT INTO t VALUES (?, REPEAT('x', 80))", id)
		cancel()
		if err != nil {
			return err
		}
		n.mu.Lock()
		n.acked = append(n.acked, id)
		now := time.Now()
		n.pause, n.last = max(n.pause, now.Sub(n.last)), now
		n.mu.Unlock()
	}
	return nil
}

// mark ends a chapter: it waits for an acknowledgement and says what the longest time
// without one was.
func (n *nomads) mark(what string) {
	n.t.Helper()
	began := time.Now()
	err := drill.Eventually(limit(n.t, time.Minute), func() error {
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.last.Before(began) {
			return fmt.Errorf("nothing is acknowledged: %v", n.errs)
		}
		return nil
	})
	if err != nil {
		n.t.Fatalf("%s: %v", what, err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.t.Logf("%s: %v without an acknowledgement at most, %d writes so far", what, n.pause.Round(time.Millisecond), len(n.acked))
	if n.pause > pauseLimit {
		n.t.Errorf("%s: %v without an acknowledgement", what, n.pause)
	}
	n.worst = max(n.worst, n.pause)
	n.pause, n.errs = 0, map[string]int{}
}

// judge holds what was acknowledged against every node.
func (n *nomads) judge() {
	n.t.Helper()
	n.stop()
	n.wg.Wait()
	n.t.Logf("the longest time without an acknowledgement was %v; %d writes", n.worst.Round(time.Millisecond), len(n.acked))
	ctx := limit(n.t, 2*time.Minute)
	if err := n.c.WaitHealthy(ctx); err != nil {
		n.t.Fatal(err)
	}
	for _, o := range n.c.Nodes {
		have := map[string]bool{}
		for _, id := range column(n.t, ctx, n.c, o, "SELECT id FROM nomads.t", 0) {
			have[id] = true
		}
		lost := slices.DeleteFunc(slices.Clone(n.acked), func(id int64) bool { return have[fmt.Sprint(id)] })
		if len(lost) > 0 {
			n.t.Errorf("node %d lacks %d of %d acknowledged rows: %v", o.ID, len(lost), len(n.acked), lost[:min(5, len(lost))])
		}
	}
	if err := n.c.Compare(ctx); err != nil {
		n.t.Error(err)
	}
}

// arrive brings a node in while something else happens.
func arrive(t *testing.T, c *drill.Cluster, id int, want string, trouble func(n *drill.Node), args ...string) *drill.Node {
	t.Helper()
	ctx := limit(t, 3*time.Minute)
	token, err := c.Run(ctx, "token", "create")
	if err != nil {
		t.Fatal(err)
	}
	n, err := c.Add(id)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Join(token, args...); err != nil {
		t.Fatal(err)
	}
	if trouble != nil {
		trouble(n)
	}
	awaitMembers(t, c, want)
	return n
}

func voters(ids ...int) string {
	var list []string
	for _, id := range ids {
		list = append(list, fmt.Sprintf("%d voter", id))
	}
	return strings.Join(list, ", ")
}

// again kills a node and starts it again.
func again(t *testing.T, n *drill.Node) {
	t.Helper()
	if err := n.KillAll(); err != nil {
		t.Fatal(err)
	}
	if err := n.Start(); err != nil {
		t.Fatal(err)
	}
}

// expectRemoved waits until a node says that it was removed.
func expectRemoved(t *testing.T, n *drill.Node) {
	t.Helper()
	err := drill.Eventually(limit(t, time.Minute), func() error {
		m, err := n.Self(context.Background())
		if err == nil && m.State != api.StateRemoved {
			err = fmt.Errorf("node %d was removed and is %s: %+v", n.ID, m.State, m.Problems)
		}
		return err
	})
	if err != nil {
		t.Errorf("%v\n%s", err, n.LogTail())
	}
}

// life is a cluster on its way through it.
type life struct {
	t   *testing.T
	c   *drill.Cluster
	w   *nomads
	ctx context.Context
	ids []int // of the members, ascending
}

func (l *life) leader() *drill.Node {
	l.t.Helper()
	m, err := l.c.Master(l.ctx)
	if err != nil {
		l.t.Fatal(err)
	}
	return m
}

// onItsWay waits until a node is a learner, or gets a copy.
func (l *life) onItsWay(n *drill.Node) {
	l.t.Helper()
	err := drill.Eventually(limit(l.t, time.Minute), func() error {
		m, err := n.Self(l.ctx)
		if err == nil && m.Copy == nil && m.Role != "learner" {
			err = fmt.Errorf("node %d is %s: %+v", n.ID, m.State, m.Problems)
		}
		return err
	})
	if err != nil {
		l.t.Fatalf("%v\n%s", err, n.LogTail())
	}
}

func (l *life) killJoiner(n *drill.Node) {
	l.onItsWay(n)
	again(l.t, n)
}

func (l *life) killDonor(n *drill.Node) { again(l.t, donorOf(l.t, l.c, n)) }

func (l *life) killLeader(n *drill.Node) {
	l.onItsWay(n)
	again(l.t, l.leader())
}

func (l *life) killDonorsServer(n *drill.Node) {
	if err := donorOf(l.t, l.c, n).KillServer(); err != nil {
		l.t.Fatal(err)
	}
}

// grow adds members, with trouble during each join.
func (l *life) grow(troubles map[string]func(*drill.Node), order ...string) {
	l.t.Helper()
	for _, what := range order {
		id := l.ids[len(l.ids)-1] + 1
		l.ids = append(l.ids, id)
		arrive(l.t, l.c, id, voters(l.ids...), troubles[what])
		l.w.know()
		serving(l.t, l.c)
		l.w.mark(fmt.Sprintf("%d joins, killed: %s", id, what))
	}
}

// replace puts a new node in the place of the oldest one, which may be dead before.
func (l *life) replace(id int, dead bool, trouble func(*drill.Node)) {
	l.t.Helper()
	old := l.c.Nodes[0]
	if dead {
		if err := old.KillAll(); err != nil {
			l.t.Fatal(err)
		}
	}
	l.ids = append(slices.DeleteFunc(l.ids, func(i int) bool { return i == old.ID }), id)
	arrive(l.t, l.c, id, voters(l.ids...), trouble, "--replace", fmt.Sprint(old.ID))
	if dead { // it comes back and hears of it
		if err := old.Start(); err != nil {
			l.t.Fatal(err)
		}
	}
	l.part(old, fmt.Sprintf("%d replaced by %d", old.ID, id))
}

// part waits until a node says that it was removed, and removes all of it.
func (l *life) part(old *drill.Node, what string) {
	l.t.Helper()
	expectRemoved(l.t, old)
	if err := l.c.Forget(old); err != nil {
		l.t.Fatal(err)
	}
	if err := os.RemoveAll(old.Dir()); err != nil {
		l.t.Fatal(err)
	}
	l.w.know()
	awaitMembers(l.t, l.c, voters(l.ids...))
	serving(l.t, l.c)
	l.w.mark(what)
}

// shrink removes members until so many are left; the master is among them.
func (l *life) shrink(left int) {
	l.t.Helper()
	for len(l.ids) > left {
		old := l.c.Nodes[len(l.c.Nodes)-1]
		if len(l.ids)%2 == 0 {
			old = l.leader()
		}
		if out, err := l.c.Run(l.ctx, "member", "remove", fmt.Sprint(old.ID)); err != nil {
			l.t.Fatal(out, err)
		}
		l.ids = slices.DeleteFunc(l.ids, func(i int) bool { return i == old.ID })
		l.part(old, fmt.Sprintf("%d removed", old.ID))
	}
}

// TestTheWholeLifeOfACluster: 1 node, 3, 5, each replaced by a new one, 3, 1; with kills
// of the one that joins, of the donor, and of the leader in the middle of joins.
func TestTheWholeLifeOfACluster(t *testing.T) {
	onlyLong(t)
	c := start(t, drill.Options{Nodes: 1, Extra: slowCopy})
	l := &life{t: t, c: c, w: startNomads(t, c), ctx: limit(t, 40*time.Minute), ids: []int{1}}
	fill(t, c, 8)
	again(t, c.Nodes[0]) // the new ones cannot get it from the log, nor from its memory
	l.w.mark("1")
	l.grow(map[string]func(*drill.Node){
		"itself": l.killJoiner, "donor": l.killDonor, "leader": l.killLeader, "donor's server": l.killDonorsServer,
	}, "itself", "donor", "leader", "donor's server")
	l.replace(6, false, nil)
	l.replace(7, true, l.killJoiner)
	l.replace(8, false, l.killLeader)
	l.replace(9, false, l.killDonor)
	l.replace(10, false, nil)
	l.shrink(1)
	l.w.judge()
}

// TestTheLifeOfThree: three, each replaced by a new one, and one in the end.
func TestTheLifeOfThree(t *testing.T) {
	onlyLong(t)
	c := start(t, drill.Options{Nodes: 3, Extra: slowCopy})
	l := &life{t: t, c: c, w: startNomads(t, c), ctx: limit(t, 20*time.Minute), ids: []int{1, 2, 3}}
	fill(t, c, 8)
	for _, n := range c.Nodes { // they have it in memory
		again(t, n)
		serving(t, c)
	}
	l.replace(4, true, l.killJoiner)
	l.replace(5, false, l.killLeader)
	l.replace(6, false, nil)
	l.shrink(1)
	l.w.judge()
}
