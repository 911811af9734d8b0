package transport

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/phxsql/phxsql/internal/identity"
	"github.com/phxsql/phxsql/internal/netlab"
	"github.com/phxsql/phxsql/paxos"
)

// received is what one handler call brought.
type received struct {
	from  paxos.NodeID
	group paxos.Group
	msgs  []paxos.Message
	app   []byte
}

// recorder is a handler that hands everything to a channel.
type recorder struct{ ch chan received }

func newRecorder() *recorder { return &recorder{ch: make(chan received, 1<<16)} }

func (r *recorder) HandleMessages(from paxos.NodeID, group paxos.Group, msgs []paxos.Message) {
	r.ch <- received{from: from, group: group, msgs: slices.Clone(msgs)}
}

func (r *recorder) HandleApp(from paxos.NodeID, payload []byte) {
	r.ch <- received{from: from, app: payload}
}

// messages waits for n consensus messages.
func (r *recorder) messages(t testing.TB, n int) []paxos.Message {
	t.Helper()
	var got []paxos.Message
	limit := time.After(60 * time.Second)
	for len(got) < n {
		select {
		case x := <-r.ch:
			got = append(got, x.msgs...)
		case <-limit:
			t.Fatalf("got %d of %d messages", len(got), n)
		}
	}
	return got
}

// node is one transport under test.
type node struct {
	*Transport
	rec  *recorder
	addr string
}

func (n *node) peer() Peer { return Peer{ID: n.opt.Node, Addr: n.addr} }

func credentials(t testing.TB, secret string, id paxos.NodeID) *identity.Credentials {
	t.Helper()
	s, err := identity.NewSecret([]byte(strings.Repeat(secret, identity.MinSecret)))
	if err != nil {
		t.Fatal(err)
	}
	c, err := s.Credentials(id)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// options are those of a node of cluster "c" whose log is "log-<id>".
func options(t testing.TB, id paxos.NodeID) Options {
	t.Helper()
	ln, err := net.Listen("tcp", netlab.Loopback()+":0")
	if err != nil {
		t.Fatal(err)
	}
	return Options{
		Node: id, Listener: ln, Credentials: credentials(t, "s", id),
		Self: func() Hello { return Hello{Cluster: "c", Log: fmt.Sprintf("log-%d", id)} },
		Admit: func(h Hello) error {
			if h.Cluster != "" && h.Cluster != "c" {
				return fmt.Errorf("node %d is of cluster %q: %w", h.Node, h.Cluster, ErrWrongCluster)
			}
			return nil
		},
		PingEvery: 20 * time.Millisecond, RetryMin: 5 * time.Millisecond, RetryMax: 50 * time.Millisecond,
	}
}

func start(t testing.TB, opt Options) *node {
	t.Helper()
	tr, err := New(opt)
	if err != nil {
		t.Fatal(err)
	}
	n := &node{Transport: tr, rec: newRecorder(), addr: opt.Listener.Addr().String()}
	t.Cleanup(func() { tr.Close() })
	if err := tr.Start(n.rec); err != nil {
		t.Fatal(err)
	}
	return n
}

// connect makes the nodes each other's peers and waits until all can send.
func connect(t testing.TB, nodes ...*node) {
	t.Helper()
	var peers []Peer
	for _, n := range nodes {
		peers = append(peers, n.peer())
	}
	for _, n := range nodes {
		if err := n.SetPeers(peers); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range nodes {
		for _, p := range peers {
			if p.ID != n.opt.Node {
				waitPeer(t, n, p.ID, func(s PeerStatus) bool { return s.Connected && s.Accepted })
			}
		}
	}
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(60 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

func peerStatus(n *node, id paxos.NodeID) PeerStatus {
	for _, p := range n.Status().Peers {
		if p.ID == id {
			return p
		}
	}
	return PeerStatus{}
}

func waitPeer(t testing.TB, n *node, id paxos.NodeID, ok func(PeerStatus) bool) {
	t.Helper()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("node %d: %+v", n.opt.Node, n.Status())
		}
	})
	eventually(t, fmt.Sprintf("status of node %d at node %d", id, n.opt.Node), func() bool { return ok(peerStatus(n, id)) })
}

func waitReason(t testing.TB, n *node, id paxos.NodeID, reason string) {
	t.Helper()
	waitPeer(t, n, id, func(s PeerStatus) bool { return s.Reason == reason && !s.Connected })
}

func waitRefusal(t testing.TB, n *node, reason string) {
	t.Helper()
	eventually(t, "refusal "+reason, func() bool {
		for _, r := range n.Status().Refused {
			if r.Reason == reason {
				return true
			}
		}
		return false
	})
}

func accepts(from, to paxos.NodeID, n, size int) []paxos.Message {
	msgs := make([]paxos.Message, n)
	for i := range msgs {
		msgs[i] = paxos.Message{Kind: paxos.MsgAccept, From: from, To: to, First: paxos.Instance(i + 1)}
		if size > 0 {
			msgs[i].Entries = []paxos.Entry{{Instance: paxos.Instance(i + 1), Kind: paxos.Normal, Data: bytes.Repeat([]byte{byte(i)}, size)}}
		}
	}
	return msgs
}

// relay is a TCP relay that can be cut (all connections end, new ones are
// refused) and frozen (bytes stop, connections stay: a partition).
type relay struct {
	ln     net.Listener
	target string
	wg     sync.WaitGroup

	mu     sync.Mutex
	thaw   chan struct{} // closed unless frozen
	conns  map[net.Conn]bool
	closed bool
}

func newRelay(t testing.TB, target string) *relay {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{ln: ln, target: target, thaw: make(chan struct{}), conns: map[net.Conn]bool{}}
	close(r.thaw)
	r.wg.Go(r.run)
	t.Cleanup(func() {
		r.mu.Lock()
		r.closed = true
		r.mu.Unlock()
		r.freeze(false)
		ln.Close()
		r.cut()
		r.wg.Wait()
	})
	return r
}

func (r *relay) addr() string { return r.ln.Addr().String() }

func (r *relay) run() {
	for {
		a, err := r.ln.Accept()
		if err != nil {
			return
		}
		b, err := net.Dial("tcp", r.target)
		if err != nil || !r.add(a, b) {
			a.Close()
			continue
		}
		r.wg.Go(func() { r.copy(a, b) })
		r.wg.Go(func() { r.copy(b, a) })
	}
}

func (r *relay) add(conns ...net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range conns {
		r.conns[c] = true
		if r.closed {
			c.Close()
		}
	}
	return !r.closed
}

func (r *relay) copy(dst, src net.Conn) {
	defer dst.Close()
	defer src.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := src.Read(buf)
		r.mu.Lock()
		thaw := r.thaw
		r.mu.Unlock()
		<-thaw
		if _, werr := dst.Write(buf[:n]); err != nil || werr != nil {
			return
		}
	}
}

func (r *relay) freeze(on bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-r.thaw:
		if on {
			r.thaw = make(chan struct{})
		}
	default:
		if !on {
			close(r.thaw)
		}
	}
}

func (r *relay) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for c := range r.conns {
		c.Close()
		delete(r.conns, c)
	}
}

// checkLeaks fails the test if goroutines of this package are alive at its end.
// It must be called first, so that its cleanup runs last.
func checkLeaks(t testing.TB) {
	t.Helper()
	t.Cleanup(func() {
		var stacks string
		eventually(t, "goroutines to end", func() bool {
			buf := make([]byte, 1<<20)
			stacks = string(buf[:runtime.Stack(buf, true)])
			return !strings.Contains(stacks, "transport.(*Transport)") && !strings.Contains(stacks, "transport.(*peer)") &&
				!strings.Contains(stacks, "transport.(*inbound)") && !strings.Contains(stacks, "transport.(*session)")
		})
	})
}

func callCtx(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	t.Cleanup(cancel)
	return ctx
}

var errTest = errors.New("the handler says no")
