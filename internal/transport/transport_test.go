package transport

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/phxsql/phxsql/paxos"
)

func TestMessagesArriveInOrder(t *testing.T) {
	checkLeaks(t)
	one, two := start(t, options(t, 1)), start(t, options(t, 2))
	connect(t, one, two)
	const n = 1000
	want := accepts(1, 2, n, 100)
	for i := range want {
		one.Send(2, 7, want[i:i+1])
	}
	for i, m := range two.rec.messages(t, n) {
		if m.First != want[i].First || !bytes.Equal(m.Entries[0].Data, want[i].Entries[0].Data) {
			t.Fatalf("message %d is %+v", i, m)
		}
	}
	if s := peerStatus(two, 1); s.MessagesIn != n || s.DroppedFalse != 0 {
		t.Errorf("receiver counts %+v", s)
	}
	waitPeer(t, one, 2, func(s PeerStatus) bool { return s.RTT > 0 && s.MessagesOut == n })
}

func TestGroupsAndAnnouncements(t *testing.T) {
	checkLeaks(t)
	one, two := start(t, options(t, 1)), start(t, options(t, 2))
	connect(t, one, two)
	one.Send(2, 1, accepts(1, 2, 2, 0))
	one.Send(2, 2, accepts(1, 2, 3, 10))
	if err := one.SendApp(2, []byte("here I am")); err != nil {
		t.Fatal(err)
	}
	if err := one.SendApp(3, nil); !errors.Is(err, ErrUnknownPeer) {
		t.Errorf("announcement to a stranger: %v", err)
	}
	if err := one.SendApp(2, make([]byte, MaxApp+1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("huge announcement: %v", err)
	}
	count, app := map[paxos.Group]int{}, ""
	eventually(t, "everything", func() bool {
		select {
		case x := <-two.rec.ch:
			count[x.group] += len(x.msgs)
			app += string(x.app)
			if x.from != 1 {
				t.Errorf("from node %d", x.from)
			}
		default:
		}
		return count[1] == 2 && count[2] == 3 && app == "here I am"
	})
}

func TestForgedSenderIsDropped(t *testing.T) {
	checkLeaks(t)
	one, two := start(t, options(t, 1)), start(t, options(t, 2))
	connect(t, one, two)
	one.Send(2, 0, accepts(3, 2, 1, 10)) // says it is node 3
	one.Send(2, 0, accepts(1, 3, 1, 10)) // is for node 3
	one.Send(2, 0, accepts(1, 2, 1, 10))
	if m := two.rec.messages(t, 1)[0]; m.From != 1 || m.To != 2 {
		t.Errorf("got %+v", m)
	}
	if s := peerStatus(two, 1); s.DroppedFalse != 2 {
		t.Errorf("dropped %d, want 2", s.DroppedFalse)
	}
}

func TestLargestMessage(t *testing.T) {
	checkLeaks(t)
	one, two := start(t, options(t, 1)), start(t, options(t, 2))
	connect(t, one, two)
	big := accepts(1, 2, 1, paxos.MaxEntryData)
	one.Send(2, 0, big)
	one.Send(2, 0, accepts(1, 2, 1, 0))
	got := two.rec.messages(t, 2)
	if !bytes.Equal(got[0].Entries[0].Data, big[0].Entries[0].Data) {
		t.Error("other bytes came out")
	}
	two.Send(1, 0, accepts(2, 1, 1, 0)) // the connection back still works
	one.rec.messages(t, 1)
	e := big[0].Entries[0]
	big[0].Entries = []paxos.Entry{e, e, e}
	one.Send(2, 0, big)
	if s := peerStatus(one, 2); s.DroppedFull != 1 {
		t.Errorf("dropped %d, want the one that is too large", s.DroppedFull)
	}
}

func TestCalls(t *testing.T) {
	checkLeaks(t)
	one, two := start(t, options(t, 1)), start(t, options(t, 2))
	two.Handle("echo", func(_ context.Context, from paxos.NodeID, p []byte) ([]byte, error) {
		return fmt.Appendf(nil, "%d:%s", from, p), nil
	})
	two.Handle("fail", func(context.Context, paxos.NodeID, []byte) ([]byte, error) { return nil, errTest })
	two.Handle("size", func(_ context.Context, _ paxos.NodeID, p []byte) ([]byte, error) { return p, nil })
	// Only one knows two, as when a cluster is made of blank nodes, and the call
	// comes before the connection.
	if err := one.SetPeers([]Peer{two.peer()}); err != nil {
		t.Fatal(err)
	}
	got, err := one.Call(callCtx(t), 2, "echo", []byte("hi"))
	if err != nil || string(got) != "1:hi" {
		t.Errorf("echo: %q, %v", got, err)
	}
	var ce *CallError
	if _, err = one.Call(callCtx(t), 2, "fail", nil); !errors.As(err, &ce) || ce.Text != errTest.Error() {
		t.Errorf("fail: %v", err)
	}
	if _, err = one.Call(callCtx(t), 2, "nothing", nil); !errors.As(err, &ce) {
		t.Errorf("unknown method: %v", err)
	}
	if _, err = two.Call(callCtx(t), 1, "echo", nil); !errors.Is(err, ErrUnknownPeer) {
		t.Errorf("unknown peer: %v", err)
	}
	big := make([]byte, MaxCall)
	if got, err = one.Call(callCtx(t), 2, "size", big); err != nil || len(got) != MaxCall {
		t.Errorf("largest call: %d bytes, %v", len(got), err)
	}
	if _, err = one.Call(callCtx(t), 2, "size", append(big, 0)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("too large: %v", err)
	}
}

func TestCallEndsWithItsConnection(t *testing.T) {
	checkLeaks(t)
	one, two := start(t, options(t, 1)), start(t, options(t, 2))
	entered := make(chan struct{})
	var ended atomic.Bool
	two.Handle("hang", func(ctx context.Context, _ paxos.NodeID, _ []byte) ([]byte, error) {
		close(entered)
		<-ctx.Done()
		ended.Store(true)
		return nil, ctx.Err()
	})
	connect(t, one, two)
	errs := make(chan error)
	go func() {
		_, err := one.Call(callCtx(t), 2, "hang", nil)
		errs <- err
	}()
	<-entered
	two.Close()
	if err := <-errs; !errors.Is(err, ErrConnectionLost) {
		t.Errorf("call: %v, want ErrConnectionLost", err)
	}
	if !ended.Load() {
		t.Error("Close returned before the handler")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Millisecond)
	defer cancel()
	if _, err := one.Call(ctx, 2, "hang", nil); !errors.Is(err, ErrNotConnected) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("call without a connection: %v", err)
	}
}

func TestWrongSecret(t *testing.T) {
	checkLeaks(t)
	one := start(t, options(t, 1))
	opt := options(t, 2)
	opt.Credentials = credentials(t, "x", 2)
	two := start(t, opt)
	one.SetPeers([]Peer{two.peer()})
	waitReason(t, one, 2, "wrong_secret")
	waitRefusal(t, two, "wrong_secret")
	one.SetPeers(nil)
	two.SetPeers([]Peer{one.peer()})
	waitReason(t, two, 1, "wrong_secret")
	waitRefusal(t, one, "wrong_secret")
}

func TestWrongCluster(t *testing.T) {
	checkLeaks(t)
	one := start(t, options(t, 1))
	opt := options(t, 2)
	opt.Self = func() Hello { return Hello{Cluster: "other", Log: "x"} }
	opt.Admit = func(h Hello) error { return nil }
	two := start(t, opt)
	// The one that is asked refuses, and the one that asks.
	two.SetPeers([]Peer{one.peer()})
	waitReason(t, two, 1, "wrong_cluster")
	waitRefusal(t, one, "wrong_cluster")
	two.SetPeers(nil)
	one.SetPeers([]Peer{two.peer()})
	waitReason(t, one, 2, "wrong_cluster")
	waitRefusal(t, two, "wrong_cluster")
}

func TestAnotherNodeAnswers(t *testing.T) {
	checkLeaks(t)
	one, two := start(t, options(t, 1)), start(t, options(t, 2))
	one.SetPeers([]Peer{{ID: 3, Addr: two.addr}, {ID: 4, Addr: one.addr}})
	waitReason(t, one, 3, "wrong_node")
	waitReason(t, one, 4, "wrong_node") // it reached itself
}

func TestNodeIDUsedByTwoMachines(t *testing.T) {
	checkLeaks(t)
	one, two := start(t, options(t, 1)), start(t, options(t, 2))
	connect(t, one, two)
	twin := start(t, options(t, 2))
	twin.SetPeers([]Peer{one.peer()})
	waitReason(t, twin, 1, "duplicate_node")
	waitRefusal(t, one, "duplicate_node")
	if s := peerStatus(one, 2); !s.Accepted {
		t.Error("the first machine lost its place")
	}
	// Once the first is gone, the second is welcome.
	two.Close()
	waitPeer(t, twin, 1, func(s PeerStatus) bool { return s.Connected })

	self := start(t, options(t, 1))
	self.SetPeers([]Peer{{ID: 2, Addr: twin.addr}, one.peer()})
	one.SetPeers([]Peer{self.peer(), {ID: 2, Addr: self.addr}})
	waitReason(t, one, 2, "wrong_node")
}

func TestInsecureNamesItsOwnID(t *testing.T) {
	checkLeaks(t)
	var nodes [2]*node
	for i := range nodes {
		opt := options(t, 1) // both are node 1
		opt.Credentials, opt.Insecure = nil, true
		nodes[i] = start(t, opt)
	}
	nodes[0].SetPeers([]Peer{{ID: 2, Addr: nodes[1].addr}})
	waitReason(t, nodes[0], 2, "duplicate_node")
	waitRefusal(t, nodes[1], "duplicate_node")
}

func TestRecheckEndsWhatIsNoLongerAdmitted(t *testing.T) {
	checkLeaks(t)
	var out atomic.Bool
	opt := options(t, 1)
	opt.Admit = func(h Hello) error {
		if out.Load() {
			return fmt.Errorf("node %d has left: %w", h.Node, ErrNotMember)
		}
		return nil
	}
	one, two := start(t, opt), start(t, options(t, 2))
	connect(t, one, two)
	out.Store(true)
	one.Recheck()
	waitReason(t, two, 1, "not_member")
	out.Store(false)
	waitPeer(t, two, 1, func(s PeerStatus) bool { return s.Connected })
}

func TestOptionsAreChecked(t *testing.T) {
	for name, spoil := range map[string]func(*Options){
		"node":        func(o *Options) { o.Node = 0 },
		"listener":    func(o *Options) { o.Listener = nil },
		"self":        func(o *Options) { o.Self = nil },
		"admit":       func(o *Options) { o.Admit = nil },
		"credentials": func(o *Options) { o.Credentials = nil },
		"both":        func(o *Options) { o.Insecure = true },
	} {
		opt := options(t, 1)
		opt.Listener.Close()
		spoil(&opt)
		if _, err := New(opt); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestCloseIsFinal(t *testing.T) {
	checkLeaks(t)
	one, two := start(t, options(t, 1)), start(t, options(t, 2))
	connect(t, one, two)
	one.Close()
	one.Close()
	one.Send(2, 0, accepts(1, 2, 1, 10))
	if err := one.SetPeers([]Peer{two.peer()}); !errors.Is(err, ErrClosed) {
		t.Errorf("set peers: %v", err)
	}
	if _, err := one.Call(callCtx(t), 2, "x", nil); !errors.Is(err, ErrNotConnected) {
		t.Errorf("call: %v", err)
	}
	if err := one.Start(one.rec); !errors.Is(err, ErrClosed) {
		t.Errorf("start: %v", err)
	}
}
