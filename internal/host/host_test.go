package host

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/phxsql/phxsql/paxos"
	"github.com/phxsql/phxsql/vfs"
	"github.com/phxsql/phxsql/wal"
)

// network connects hosts of one process. A cut member neither sends nor receives.
type network struct {
	mu    sync.Mutex
	hosts map[paxos.NodeID]*Host
	cut   map[paxos.NodeID]bool
	keep  int64         // Config.KeepBytes, 0 for the default
	lease time.Duration // 0 for steady
	links sync.Map      // [2]paxos.NodeID -> *link
}

// link delivers what one member sends to another, in order and, as on a real
// connection, in a goroutine of its own.
type link struct {
	mu      sync.Mutex
	queue   []func()
	running bool
}

func (l *link) add(deliver func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.queue = append(l.queue, deliver)
	if !l.running {
		l.running = true
		go l.drain()
	}
}

func (l *link) drain() {
	for {
		l.mu.Lock()
		queue := l.queue
		l.queue, l.running = nil, len(queue) > 0
		l.mu.Unlock()
		if len(queue) == 0 {
			return
		}
		for _, deliver := range queue {
			deliver()
		}
	}
}

// steady is a length of leases that outlives what a busy machine does to a process, so that what
// a test proposes is not lost with a term; brief one for tests that wait for the end of leases.
const steady, brief = 30 * time.Second, 2 * time.Second

type port struct {
	net  *network
	from paxos.NodeID
}

func (p port) Send(to paxos.NodeID, group paxos.Group, msgs []paxos.Message) {
	p.net.mu.Lock()
	h := p.net.hosts[to]
	cut := p.net.cut[to] || p.net.cut[p.from]
	p.net.mu.Unlock()
	if h != nil && !cut {
		l, _ := p.net.links.LoadOrStore([2]paxos.NodeID{p.from, to}, &link{})
		l.(*link).add(func() { h.HandleMessages(p.from, group, msgs) })
	}
}

type node struct {
	host  *Host
	log   *wal.Log
	group *Group
}

func threeMembers(n int) paxos.Members {
	ms := paxos.Members{Cluster: "test"}
	for id := 1; id <= n; id++ {
		ms.List = append(ms.List, paxos.Member{ID: paxos.NodeID(id), Role: paxos.Voter})
	}
	return ms
}

func startNode(t testing.TB, net *network, id paxos.NodeID, fs vfs.FS, dir string, boot *paxos.Members) *node {
	t.Helper()
	l, err := wal.Open(wal.Options{FS: fs, Dir: dir, SegmentSize: 16 << 20})
	if err != nil {
		t.Fatal(err)
	}
	if boot != nil {
		if err := bootstrap(l, id, *boot); err != nil {
			t.Fatal(err)
		}
	}
	h := New(Options{Log: l, Sender: port{net, id}, Logger: slog.New(slog.DiscardHandler)})
	cfg := paxos.Defaults(id, rand.Int64N)
	cfg.Lease, cfg.Heartbeat, cfg.Spread = steady, 100*time.Millisecond, 100*time.Millisecond
	if net.lease > 0 {
		cfg.Lease = net.lease
	}
	if net.keep > 0 {
		cfg.KeepBytes = net.keep
	}
	g, err := h.Start(0, cfg)
	if err != nil {
		t.Fatal(err)
	}
	net.mu.Lock()
	net.hosts[id] = h
	net.mu.Unlock()
	g.SetCandidacy(true, 0)
	n := &node{h, l, g}
	t.Cleanup(n.close)
	return n
}

func (n *node) close() {
	n.host.Close()
	n.log.Close()
}

func newNetwork(lease time.Duration) *network {
	return &network{hosts: map[paxos.NodeID]*Host{}, cut: map[paxos.NodeID]bool{}, lease: lease}
}

func startThree(t testing.TB, fs func(int) (vfs.FS, string)) (*network, []*node) {
	return startOn(t, newNetwork(steady), fs)
}

func startOn(t testing.TB, net *network, fs func(int) (vfs.FS, string)) (*network, []*node) {
	ms := threeMembers(3)
	var nodes []*node
	for id := 1; id <= 3; id++ {
		f, dir := fs(id)
		var boot *paxos.Members
		if id == 1 {
			boot = &ms
		}
		nodes = append(nodes, startNode(t, net, paxos.NodeID(id), f, dir, boot))
	}
	return net, nodes
}

func waitLeader(t testing.TB, nodes ...*node) *node {
	t.Helper()
	deadline := time.After(60 * time.Second)
	for {
		for _, n := range nodes {
			if v := n.group.Leader(); v.Ready && n.group.LeaseValid() {
				return n
			}
		}
		select {
		case <-nodes[0].group.Changed():
		case <-time.After(5 * time.Millisecond):
		case <-deadline:
			t.Fatal("no leader")
		}
	}
}

// propose proposes n values and waits for them; it returns how many were chosen.
func propose(t testing.TB, n *node, from, count int) int {
	t.Helper()
	var wg sync.WaitGroup
	var ok atomic.Int64
	for i := range count {
		wg.Add(1)
		err := n.group.Propose(binary.LittleEndian.AppendUint64(nil, uint64(from+i)), func(_ paxos.Instance, err error) {
			if err == nil {
				ok.Add(1)
			}
			wg.Done()
		})
		if err != nil {
			wg.Done()
		}
	}
	wg.Wait()
	return int(ok.Load())
}

// values reads the application's values through an instance.
func values(t *testing.T, n *node, through paxos.Instance) []uint64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	if err := n.group.WaitChosen(ctx, through); err != nil {
		t.Fatalf("member does not reach instance %d: %v", through, err)
	}
	var out []uint64
	for i := n.group.First(); i <= through; i++ {
		e, err := n.group.Read(i)
		if err != nil {
			t.Fatal(err)
		}
		if e.Kind == paxos.Normal {
			out = append(out, binary.LittleEndian.Uint64(e.Data))
		}
	}
	return out
}

func onDisk(t testing.TB) func(int) (vfs.FS, string) {
	dir := t.TempDir()
	return func(id int) (vfs.FS, string) { return vfs.OS{}, fmt.Sprintf("%s/%d", dir, id) }
}

func TestProposalsAreChosenOnAllMembersInOrder(t *testing.T) {
	_, nodes := startThree(t, onDisk(t))
	lead := waitLeader(t, nodes...)
	const count = 2000
	if got := propose(t, lead, 0, count); got != count {
		t.Fatalf("chosen %d of %d", got, count)
	}
	through := lead.group.Chosen()
	for k, n := range nodes {
		got := values(t, n, through)
		if len(got) != count {
			t.Fatalf("member %d has %d values, want %d", k+1, len(got), count)
		}
		for i, v := range got {
			if v != uint64(i) {
				t.Fatalf("member %d: value %d is %d", k+1, i, v)
			}
		}
	}
}

func TestAnotherMemberLeadsAfterTheLeaderIsCutOff(t *testing.T) {
	net, nodes := startOn(t, newNetwork(brief), onDisk(t))
	old := waitLeader(t, nodes...)
	// On a busy machine a brief lease may end before it should, and values be lost with it.
	for propose(t, old, 0, 1) == 0 {
		old = waitLeader(t, nodes...)
	}
	var rest []*node
	for k, n := range nodes {
		if n == old {
			net.mu.Lock()
			net.cut[paxos.NodeID(k+1)] = true
			net.mu.Unlock()
			continue
		}
		rest = append(rest, n)
	}
	next := waitLeader(t, rest...)
	if old.group.LeaseValid() {
		t.Fatal("two members hold a lease")
	}
	for propose(t, next, 1000, 100) == 0 {
		next = waitLeader(t, rest...)
	}
	net.mu.Lock()
	clear(net.cut)
	net.mu.Unlock()
	through := next.group.Chosen()
	if got, want := values(t, old, through), values(t, next, through); !slices.Equal(got, want) || !slices.Contains(got, 0) {
		t.Fatalf("the old leader has %v, the new one %v", got, want)
	}
}

func TestLeadershipIsHandedOverWithoutWaitingForTheLease(t *testing.T) {
	_, nodes := startThree(t, onDisk(t))
	lead := waitLeader(t, nodes...)
	to := 0 // index of the heir
	if nodes[to] == lead {
		to = 1
	}
	start := time.Now()
	for lead != nodes[to] { // on a busy machine the third may be faster, once
		if time.Since(start) > time.Minute {
			t.Fatal("leadership does not get there")
		}
		if err := lead.group.Transfer(paxos.NodeID(to + 1)); err != nil && !errors.Is(err, ErrNotLeader) {
			t.Fatal(err)
		}
		for v := lead.group.Leader(); v.Leader == lead.group.cfg.Self; v = lead.group.Leader() {
			<-lead.group.Changed()
		}
		lead = waitLeader(t, nodes...)
	}
	t.Logf("handed over in %v", time.Since(start))
}

func TestAllMembersComeBackAfterAllWereStopped(t *testing.T) {
	place := onDisk(t)
	_, nodes := startOn(t, newNetwork(brief), place) // whose leases are waited for
	lead := waitLeader(t, nodes...)
	answered := propose(t, lead, 0, 500)
	through := lead.group.Chosen()
	for _, n := range nodes {
		n.close()
	}
	net := newNetwork(brief)
	var again []*node
	for id := 1; id <= 3; id++ {
		fs, dir := place(id)
		again = append(again, startNode(t, net, paxos.NodeID(id), fs, dir, nil))
	}
	waitLeader(t, again...)
	for k, n := range again {
		if got := values(t, n, through); len(got) < answered {
			t.Fatalf("member %d has %d values, %d were answered (first %d, through %d, chosen %d)", k+1, len(got), answered, n.group.First(), through, n.group.Chosen())
		}
	}
}

func BenchmarkCommit(b *testing.B) {
	for _, par := range []int{1, 16, 64} {
		b.Run(fmt.Sprintf("proposers=%d", par), func(b *testing.B) {
			_, nodes := startThree(b, onDisk(b))
			lead := waitLeader(b, nodes...)
			data := make([]byte, 1024)
			left := atomic.Int64{}
			left.Store(int64(b.N))
			b.ResetTimer()
			var wg sync.WaitGroup
			for range par {
				wg.Add(1)
				go func() {
					defer wg.Done()
					done := make(chan error, 1)
					for left.Add(-1) >= 0 {
						if err := lead.group.Propose(data, func(_ paxos.Instance, err error) { done <- err }); err != nil {
							b.Error(err)
							return
						}
						if err := <-done; err != nil {
							b.Error(err)
							return
						}
					}
				}()
			}
			wg.Wait()
		})
	}
}

// TestTheLengthOfLeasesChangesWhileTheGroupRuns: one member after the other grants longer
// leases, proposals go on meanwhile, and the leader's lease becomes as long.
func TestTheLengthOfLeasesChangesWhileTheGroupRuns(t *testing.T) {
	_, nodes := startThree(t, onDisk(t))
	lead := waitLeader(t, nodes...)
	for _, d := range []time.Duration{0, 299 * time.Millisecond, -time.Second, paxos.MaxLease + 1} {
		if err := lead.group.SetLease(d); !errors.Is(err, paxos.ErrLease) {
			t.Fatalf("a lease of %v: %v", d, err)
		}
	}
	const long = 10 * time.Minute
	for k, n := range nodes {
		if err := n.group.SetLease(long); err != nil {
			t.Fatal(err)
		}
		if got := propose(t, lead, 100*k, 100); got != 100 {
			t.Fatalf("chosen %d of 100", got)
		}
	}
	poll, deadline := time.NewTicker(5*time.Millisecond), time.After(60*time.Second)
	defer poll.Stop()
	for lead.group.LeaseRemaining() < long/2 {
		select {
		case <-poll.C:
		case <-deadline:
			t.Fatalf("the lease has %v left, all members grant %v", lead.group.LeaseRemaining(), long)
		}
	}
	for k, n := range nodes {
		if got := status(t, n).Length; got != long {
			t.Errorf("member %d grants %v, want %v", k+1, got, long)
		}
	}
}
