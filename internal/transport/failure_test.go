package transport

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/phxsql/phxsql/paxos"
)

func TestPeerRestarts(t *testing.T) {
	checkLeaks(t)
	one, two := start(t, options(t, 1)), start(t, options(t, 2))
	connect(t, one, two)
	for range 3 {
		two.Close()
		waitPeer(t, one, 2, func(s PeerStatus) bool { return !s.Connected && !s.Accepted })
		opt := options(t, 2)
		opt.Listener.Close()
		ln, err := net.Listen("tcp", two.addr)
		if err != nil {
			t.Fatal(err)
		}
		opt.Listener = ln
		two = start(t, opt)
		connect(t, one, two)
		one.Send(2, 0, accepts(1, 2, 1, 10))
		two.rec.messages(t, 1)
	}
}

func TestPeerMoves(t *testing.T) {
	checkLeaks(t)
	one, two := start(t, options(t, 1)), start(t, options(t, 2))
	connect(t, one, two)
	r := newRelay(t, two.addr)
	one.SetPeers([]Peer{{ID: 2, Addr: r.addr()}})
	waitPeer(t, one, 2, func(s PeerStatus) bool { return s.Connected && s.Addr == r.addr() })
	one.Send(2, 0, accepts(1, 2, 1, 10))
	two.rec.messages(t, 1)
	one.SetPeers(nil)
	waitPeer(t, two, 1, func(s PeerStatus) bool { return !s.Accepted })
}

func TestPartitionAndHeal(t *testing.T) {
	checkLeaks(t)
	opt1, opt2 := options(t, 1), options(t, 2)
	for _, o := range []*Options{&opt1, &opt2} {
		o.IdleTimeout, o.HandshakeTimeout = time.Second, time.Second
	}
	one, two := start(t, opt1), start(t, opt2)
	r := newRelay(t, two.addr)
	one.SetPeers([]Peer{{ID: 2, Addr: r.addr()}})
	waitPeer(t, one, 2, func(s PeerStatus) bool { return s.Connected })
	for range 2 {
		r.freeze(true)
		waitReason(t, one, 2, "silent")
		waitPeer(t, two, 1, func(s PeerStatus) bool { return !s.Accepted })
		one.Send(2, 0, accepts(1, 2, 3, 10))
		r.freeze(false)
		waitPeer(t, one, 2, func(s PeerStatus) bool { return s.Connected })
		one.Send(2, 0, accepts(1, 2, 1, 20))
		eventually(t, "a message after the partition", func() bool {
			m := two.rec.messages(t, 1)
			return len(m[len(m)-1].Entries[0].Data) == 20
		})
		r.cut()
	}
	if s := peerStatus(one, 2); s.DroppedDown == 0 {
		t.Errorf("nothing was dropped during the partition: %+v", s)
	}
}

// blocker is a handler that takes nothing until it is told to.
type blocker struct {
	*recorder
	gate chan struct{}
}

func (b *blocker) HandleMessages(from paxos.NodeID, group paxos.Group, msgs []paxos.Message) {
	<-b.gate
	b.recorder.HandleMessages(from, group, msgs)
}

func TestSlowReceiverNeverBlocksTheSender(t *testing.T) {
	checkLeaks(t)
	opt := options(t, 1)
	opt.QueueBytes, opt.IdleTimeout = 1<<20, time.Minute
	one := start(t, opt)
	opt = options(t, 2)
	opt.IdleTimeout = time.Minute
	two, err := New(opt)
	if err != nil {
		t.Fatal(err)
	}
	b := &blocker{newRecorder(), make(chan struct{})}
	defer two.Close()
	if err := two.Start(b); err != nil {
		t.Fatal(err)
	}
	one.SetPeers([]Peer{{ID: 2, Addr: two.Addr().String()}})
	waitPeer(t, one, 2, func(s PeerStatus) bool { return s.Connected })
	bulk := accepts(1, 2, 1, 64<<10)
	for peerStatus(one, 2).DroppedFull == 0 {
		one.Send(2, 0, bulk)
	}
	before := peerStatus(one, 2)
	one.Send(2, 0, vote())
	if s := peerStatus(one, 2); s.MessagesOut != before.MessagesOut+1 {
		t.Error("a vote was dropped behind entries")
	}
	close(b.gate)
	b.messages(t, int(before.MessagesOut)+1)
}

func TestBackoff(t *testing.T) {
	least, most := 50*time.Millisecond, time.Second
	for attempt, want := range []int{50, 100, 200, 400, 800, 1000, 1000} {
		w := time.Duration(want) * time.Millisecond
		if got := backoff(attempt, least, most, 0); got != w {
			t.Errorf("attempt %d: %v, want %v", attempt, got, w)
		}
		if got := backoff(attempt, least, most, 0.999); got > w || got < w*3/4 {
			t.Errorf("attempt %d: %v with jitter", attempt, got)
		}
	}
	if got := backoff(1<<30, least, most, 0); got != most {
		t.Errorf("late attempt: %v", got)
	}
}

// pipes is a listener and a dialer of connections in memory, for synctest.
type pipes struct {
	ch     chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newPipes() *pipes { return &pipes{ch: make(chan net.Conn), closed: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.ch:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

func (p *pipes) dial(ctx context.Context, _ string) (net.Conn, error) {
	a, b := net.Pipe()
	select {
	case p.ch <- b:
		return a, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// pipeNode is node 1 with default timing, in memory and without TLS.
func pipeNode(t *testing.T, l *pipes, dial func(context.Context, string) (net.Conn, error)) *node {
	t.Helper()
	opt := Options{
		Node: 1, Listener: l, Insecure: true, Dial: dial,
		Self:  func() Hello { return Hello{Cluster: "c", Log: "l"} },
		Admit: func(Hello) error { return nil },
	}
	return start(t, opt)
}

// farHello plays the other side of the introduction.
func farHello(t *testing.T, c net.Conn, r *frameReader, kind frameKind) {
	t.Helper()
	b, err := appendHello(nil, kind, Hello{Version: Version, Cluster: "c", Node: 2, Boot: "far"})
	if err != nil {
		t.Fatal(err)
	}
	if kind == frameHello {
		c.Write(b)
	}
	if _, err := r.next(); err != nil {
		t.Errorf("introduction: %v", err)
	}
	if kind == frameWelcome {
		c.Write(b)
	}
}

func TestSilentAcceptorIsGivenUp(t *testing.T) {
	for name, reads := range map[string]bool{"reads but never answers": true, "does not read": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				far := newPipes()
				n := pipeNode(t, newPipes(), far.dial)
				n.SetPeers([]Peer{{ID: 2, Addr: "far"}})
				c, _ := far.Accept()
				farHello(t, c, newFrameReader(c), frameWelcome)
				begin := time.Now()
				if reads {
					go io.Copy(io.Discard, c)
				}
				synctest.Wait()
				if !peerStatus(n, 2).Connected {
					t.Fatal("not connected")
				}
				second, _ := far.Accept() // it dials again
				if d := time.Since(begin); d < 3*time.Second || d > 3200*time.Millisecond {
					t.Errorf("given up after %v", d)
				}
				if s := peerStatus(n, 2); s.Connected || s.Reason != "silent" {
					t.Errorf("status %+v", s)
				}
				n.Close()
				c.Close()
				second.Close()
			})
		})
	}
}

func TestSilentDialerIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipes()
		n := pipeNode(t, l, nil)
		c, err := l.dial(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		r := newFrameReader(c)
		farHello(t, c, r, frameHello)
		begin := time.Now()
		if _, err := r.next(); err != io.EOF {
			t.Errorf("read: %v", err)
		}
		if d := time.Since(begin); d != 3*time.Second {
			t.Errorf("given up after %v", d)
		}
		synctest.Wait()
		if peerStatus(n, 2).Accepted {
			t.Error("still accepted")
		}
		n.Close()
	})
}

func TestUnfinishedIntroductionIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipes()
		n := pipeNode(t, l, nil)
		var conns []net.Conn
		for range maxPending {
			c, err := l.dial(t.Context(), "")
			if err != nil {
				t.Fatal(err)
			}
			conns = append(conns, c)
		}
		c, _ := l.dial(t.Context(), "")
		if _, err := c.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("one too many: %v", err)
		}
		begin := time.Now()
		for _, c := range conns {
			if _, err := c.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("read: %v", err)
			}
		}
		if d := time.Since(begin); d != 3*time.Second {
			t.Errorf("given up after %v", d)
		}
		n.Close()
	})
}

func TestUnreachablePeerIsDialedAtOnceThenSlower(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var at []time.Duration
		begin := time.Now()
		n := pipeNode(t, newPipes(), func(context.Context, string) (net.Conn, error) {
			mu.Lock()
			defer mu.Unlock()
			at = append(at, time.Since(begin))
			return nil, errTest
		})
		n.SetPeers([]Peer{{ID: 2, Addr: "far"}})
		<-time.After(10 * time.Second)
		n.Close()
		if at[0] != 0 || at[1] > 50*time.Millisecond {
			t.Errorf("attempts at %v", at)
		}
		last := at[len(at)-1] - at[len(at)-2]
		if len(at) < 12 || len(at) > 20 || last < 750*time.Millisecond || last > time.Second {
			t.Errorf("%d attempts, the last after %v", len(at), last)
		}
	})
}

// TestMalformedFramesEndTheConnection sends bytes that no peer of ours sends, from one
// that was admitted.
func TestMalformedFramesEndTheConnection(t *testing.T) {
	oversized := appendHeader(nil, frameMessage, 0, MaxMessage+1)
	for name, bad := range map[string][]byte{
		"unknown kind": appendHeader(nil, 200, 0, 0),
		"oversized":    oversized,
		"message":      appendFrame(nil, frameMessage, []byte("not a message")),
		"request":      appendFrame(nil, frameRequest, []byte{1}),
		"ping":         appendFrame(nil, framePing, []byte{1}),
		"second hello": appendFrame(nil, frameHello, []byte("{}")),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newPipes()
				n := pipeNode(t, l, nil)
				c, _ := l.dial(t.Context(), "")
				r := newFrameReader(c)
				farHello(t, c, r, frameHello)
				c.Write(bad)
				if _, err := r.next(); err != io.EOF {
					t.Errorf("read: %v", err)
				}
				waitRefusal(t, n, "malformed")
				n.Close()
			})
		})
	}
}

func TestBadHellosAreRefused(t *testing.T) {
	hello := func(h Hello) []byte {
		b, err := appendHello(nil, frameHello, h)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for reason, first := range map[string][]byte{
		"version":        hello(Hello{Version: Version + 1, Node: 2}),
		"malformed":      hello(Hello{Version: Version}),
		"duplicate_node": hello(Hello{Version: Version, Node: 1}),
	} {
		t.Run(reason, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newPipes()
				n := pipeNode(t, l, nil)
				c, _ := l.dial(t.Context(), "")
				c.Write(first)
				f, err := newFrameReader(c).next()
				if err != nil || f.kind != frameRefuse {
					t.Fatalf("frame %+v, %v", f, err)
				}
				var refused *RefusedError
				if err := parseRefusal(f.payload, 1); !errors.As(err, &refused) || refused.Code != reason {
					t.Errorf("refused with %v", err)
				}
				waitRefusal(t, n, reason)
				c.Close()
				n.Close()
			})
		})
	}
}

func TestRefusalsAreBounded(t *testing.T) {
	var r refusals
	for i := range 3 * keepRefusals {
		if !r.add(Refusal{Remote: fmt.Sprint(i), Last: time.Unix(int64(i), 0)}) {
			t.Errorf("refusal %d is not new", i)
		}
	}
	if r.add(Refusal{Remote: fmt.Sprint(3*keepRefusals - 2), Last: time.Unix(99, 0)}) {
		t.Error("a repeated refusal is new")
	}
	list := r.snapshot()
	last := list[len(list)-1]
	if len(list) != keepRefusals || last.Count != 2 || !last.Last.After(last.First) {
		t.Errorf("%d kept, last %+v", len(list), last)
	}
}

func TestLargeCallsAreAnsweredWhole(t *testing.T) {
	checkLeaks(t)
	one, two := start(t, options(t, 1)), start(t, options(t, 2))
	two.Handle("double", func(_ context.Context, _ paxos.NodeID, p []byte) ([]byte, error) {
		return bytes.Repeat(p, 2), nil
	})
	connect(t, one, two)
	var wg sync.WaitGroup
	for i := range maxHandled {
		wg.Go(func() {
			p := bytes.Repeat([]byte{byte(i)}, 10_000*(i+1))
			got, err := one.Call(callCtx(t), 2, "double", p)
			if err != nil || !bytes.Equal(got, bytes.Repeat(p, 2)) {
				t.Errorf("call %d: %d bytes, %v", i, len(got), err)
			}
		})
	}
	wg.Wait()
}
