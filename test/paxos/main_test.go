// Package paxos tests the consensus library as its users run it: clusters of
// three and five processes of the sample kv in network namespaces, killed, paused and
// cut off under load, and the histories of their clients judged for linearizability.
package paxos

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/phxsql/phxsql/internal/netlab"
)

// program is the sample under test, built once.
var program string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "phxkvbin")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	program = filepath.Join(dir, "kv")
	build := exec.Command("go", "build", "-o", program, "github.com/phxsql/phxsql/samples/kv")
	build.Stdout, build.Stderr = os.Stdout, os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "build kv:", err)
		return 1
	}
	return m.Run()
}

// fault breaks a cluster, whose leader is given, and mends it.
type fault struct {
	name   string
	hurt   func(c *cluster, lead *process)
	mend   func(c *cluster, lead *process)
	hold   time.Duration // between them, at least
	served time.Duration // between an acknowledged change and the mend, at least
	outage bool          // nothing is acknowledged until the mend
}

// longerThanALease is how long a leader must be away to be deposed.
const longerThanALease = 1500 * time.Millisecond

var (
	killLeader = fault{
		name: "kill the leader",
		hurt: func(_ *cluster, lead *process) { lead.kill() },
		mend: func(_ *cluster, lead *process) { lead.start() },
	}
	killFollower = fault{
		name: "kill a follower",
		hurt: func(c *cluster, lead *process) { c.other(lead, 1).kill() },
		mend: func(c *cluster, lead *process) { c.other(lead, 1).start() },
	}
	// Others trim the log that it lacks; it needs a snapshot.
	killFollowerForLong = fault{
		name: "kill a follower for long", hold: 3 * time.Second,
		hurt: killFollower.hurt,
		mend: killFollower.mend,
	}
	killAll = fault{
		name: "kill all", outage: true,
		hurt: func(c *cluster, _ *process) {
			for _, p := range c.nodes {
				p.kill()
			}
		},
		mend: func(c *cluster, _ *process) {
			for _, p := range c.nodes {
				p.start()
			}
		},
	}
	pauseLeader = fault{
		name: "pause the leader", hold: longerThanALease,
		hurt: func(_ *cluster, lead *process) { lead.signal(syscall.SIGSTOP) },
		mend: func(_ *cluster, lead *process) { lead.signal(syscall.SIGCONT) },
	}
	// Around the end of the lease answers are on their way.
	pauseLeaderForALease = fault{
		name: "pause the leader for about a lease", outage: true, hold: 900 * time.Millisecond,
		hurt: func(_ *cluster, lead *process) { lead.signal(syscall.SIGSTOP) },
		mend: func(_ *cluster, lead *process) { lead.signal(syscall.SIGCONT) },
	}
	isolateLeader = fault{
		name: "cut the leader off from its peers, not from its clients", hold: longerThanALease,
		hurt: func(_ *cluster, lead *process) { lead.link(false) },
		mend: func(_ *cluster, lead *process) { lead.link(true) },
	}
	killAndIsolate = fault{
		name: "kill the leader and cut a follower off", hold: longerThanALease,
		hurt: func(c *cluster, lead *process) { lead.kill(); c.other(lead, 2).link(false) },
		mend: func(c *cluster, lead *process) { c.other(lead, 2).link(true); lead.start() },
	}
	isolateTwo = fault{
		name: "cut the leader and a follower off", hold: longerThanALease,
		hurt: func(c *cluster, lead *process) { lead.link(false); c.other(lead, 1).link(false) },
		mend: func(c *cluster, lead *process) { lead.link(true); c.other(lead, 1).link(true) },
	}
	pauseAndKill = fault{
		name: "pause the leader and kill a follower", hold: longerThanALease,
		hurt: func(c *cluster, lead *process) { lead.signal(syscall.SIGSTOP); c.other(lead, 3).kill() },
		mend: func(c *cluster, lead *process) { c.other(lead, 3).start(); lead.signal(syscall.SIGCONT) },
	}
)

// shape makes links slow, thin or lossy, in both directions.
func (p *process) shape(out, in netlab.Shape) {
	if err := p.c.lab.ShapeLink(p.id, out, in); err != nil {
		p.c.t.Error(err)
	}
}

func (c *cluster) shapeAll(s netlab.Shape) {
	for _, p := range c.nodes {
		p.shape(s, s)
	}
}

// shaped is a fault of the leader's link.
func shaped(name string, outage bool, out, in netlab.Shape) fault {
	return fault{
		name: name, outage: outage, hold: longerThanALease,
		hurt: func(_ *cluster, lead *process) { lead.shape(out, in) },
		mend: func(_ *cluster, lead *process) { lead.shape(netlab.Shape{}, netlab.Shape{}) },
	}
}

// shapedAll is a fault of all links.
func shapedAll(name string, outage bool, s netlab.Shape) fault {
	return fault{
		name: name, outage: outage, hold: longerThanALease,
		hurt: func(c *cluster, _ *process) { c.shapeAll(s) },
		mend: func(c *cluster, _ *process) { c.shapeAll(netlab.Shape{}) },
	}
}

// links asks for the test of bad links, which takes most of a minute.
var links = flag.Bool("links", false, "run the test of bad links, which takes most of a minute")

func TestHistoriesOnBadLinksAreLinearizable(t *testing.T) {
	if !*links {
		t.Skip("make life runs it")
	}
	slow, slower := netlab.Shape{Delay: 80 * time.Millisecond}, netlab.Shape{Delay: 1500 * time.Millisecond}
	judged(t, 3,
		shaped("the leader's link is slow", false, slow, slow),
		shaped("the leader is heard late", true, slower, netlab.Shape{}),
		shaped("the leader hears late", true, netlab.Shape{}, slower),
		shaped("the leader's link is thin", true, netlab.Shape{Rate: 32 << 10}, netlab.Shape{Rate: 32 << 10}),
		shapedAll("all links are slow", false, netlab.Shape{Delay: 40 * time.Millisecond}),
		shapedAll("all links lose packets", true, netlab.Shape{Loss: 0.15}),
	)
}

func TestHistoriesOfThreeProcessesAreLinearizable(t *testing.T) {
	judged(t, 3, killLeader, isolateLeader, pauseLeader, pauseLeaderForALease, killFollowerForLong, killAll)
}

func TestHistoriesOfFiveProcessesAreLinearizable(t *testing.T) {
	judged(t, 5, killAndIsolate, isolateTwo, pauseAndKill, killFollowerForLong)
}

// TestStaleReadsAreFound: reads that ask nobody whether they are fresh must be seen
// by the judge, or the judgements above say nothing.
func TestStaleReadsAreFound(t *testing.T) {
	long := isolateLeader
	long.served = longerThanALease // the clients of the old leader read on while others write
	c, l := broken(t, 3, "?stale", long)
	if result := porcupine.CheckOperationsTimeout(model, l.ops, time.Minute); result != porcupine.Illegal {
		t.Fatalf("%d operations with stale reads are judged %v, want %v; the nodes' files are in %s", len(l.ops), result, porcupine.Illegal, c.dir)
	}
}

func judged(t *testing.T, nodes int, faults ...fault) {
	c, l := broken(t, nodes, "", faults...)
	c.judge(l)
}

// broken breaks a cluster in these ways, one after the other, under load.
func broken(t *testing.T, nodes int, query string, faults ...fault) (*cluster, *load) {
	c := newCluster(t, nodes)
	c.leader()
	l := startLoad(c, query)
	c.acked(l, "in the beginning")
	for _, f := range faults {
		lead := c.leader()
		f.hurt(c, lead)
		hold := time.After(f.hold)
		begun := time.Now()
		if !f.outage {
			c.acked(l, f.name)
		}
		served := time.Since(begun)
		<-hold
		time.Sleep(f.served)
		f.mend(c, lead)
		mended := time.Now()
		c.acked(l, f.name+", mended")
		c.whole()
		t.Logf("%s: served after %v, whole %v after the mend", f.name, served.Round(time.Millisecond), time.Since(mended).Round(time.Millisecond))
		for _, p := range c.nodes {
			if s, err := p.status(); err == nil && s.Restored > 0 {
				t.Logf("%s: node %d has restored %d snapshots", f.name, p.id, s.Restored)
			}
		}
	}
	l.stop()
	return c, l
}

// acked waits for a change that begins now and is acknowledged.
func (c *cluster) acked(l *load, when string) {
	c.t.Helper()
	since := l.now()
	c.until("change acknowledged: "+when, func() error {
		if !l.ackedSince(since) {
			return fmt.Errorf("none since %v", time.Duration(since))
		}
		return nil
	})
}

func (c *cluster) judge(l *load) {
	c.t.Helper()
	begun, lasted := time.Now(), time.Duration(l.now())
	result, info := porcupine.CheckOperationsVerbose(model, l.ops, time.Minute)
	c.t.Logf("%d operations, %d of unknown outcome, in %v; judged in %v: %v",
		len(l.ops), l.unknown, lasted.Round(time.Second), time.Since(begun).Round(time.Millisecond), result)
	if result == porcupine.Ok {
		return
	}
	picture := filepath.Join(c.dir, "history.html")
	if err := porcupine.VisualizePath(model, info, picture); err != nil {
		c.t.Error(err)
	}
	c.t.Fatalf("the history is not known to be linearizable (%v), see %s", result, picture)
}
