package proxy

import (
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// fakeMaster is a master's proxy in front of a server that the test plays.
func fakeMaster(t *testing.T, change func(*Options)) (*node, *fakeServer) {
	t.Helper()
	f := newFakeServer(t)
	opt := testOptions(f.socket)
	if change != nil {
		change(&opt)
	}
	n := startNode(t, opt)
	n.SetRoute(Local())
	n.SetLocal(true, "")
	return n, f
}

// TestClosedGateHoldsTheAnswer is the promise of the read-write port: an answer
// that was read from the server after the gate closed does not reach the client.
func TestClosedGateHoldsTheAnswer(t *testing.T) {
	var open atomic.Bool
	open.Store(true)
	n, f := fakeMaster(t, func(o *Options) { o.Gate = open.Load })
	client, server := f.logIn(t, n.rw)
	write(t, client, command(comQuery, "COMMIT"))
	readPacket(t, server)
	open.Store(false)
	write(t, server, okPacket(1, 0))
	seq, p := readPacket(t, client)
	if code := errorOf(t, p); code != codeShutdown || seq != 1 || !strings.Contains(string(p), "outcome is not known") {
		t.Errorf("got seq %d, code %d, %q", seq, code, p)
	}
	readEnd(t, client)
	readEnd(t, server)
	if st := n.Stats().RW; st.Cut != 1 {
		t.Errorf("stats: %+v", st)
	}
}

// TestClosedGateDoesNotTouchTheReadOnlyPort: followers have no lease.
func TestClosedGateDoesNotTouchTheReadOnlyPort(t *testing.T) {
	n, f := fakeMaster(t, func(o *Options) { o.Gate = func() bool { return false } })
	client, server := f.logIn(t, n.ro)
	write(t, client, command(comQuery, "SELECT 1"))
	readPacket(t, server)
	write(t, server, okPacket(1, 0))
	if _, p := readPacket(t, client); p[0] != markOK {
		t.Errorf("got %q", p)
	}
}

// TestCutMidResult: an answer that has begun cannot be replaced by an error.
func TestCutMidResult(t *testing.T) {
	n, f := fakeMaster(t, nil)
	client, server := f.logIn(t, n.rw)
	write(t, client, command(comQuery, "SELECT"))
	readPacket(t, server)
	begin := concat(appendPacket(nil, 1, []byte{1}), columnPacket(2), appendPacket(nil, 3, []byte("\x03one")))
	write(t, server, begin)
	for range 3 {
		readPacket(t, client)
	}
	if got := n.Cut("test"); got != 1 {
		t.Errorf("cut %d sessions", got)
	}
	readEnd(t, client)
}

// TestCutIdle: an idle client gets no packet that it has not asked for.
func TestCutIdle(t *testing.T) {
	n, f := fakeMaster(t, nil)
	client, server := f.logIn(t, n.rw)
	n.Cut("test")
	readEnd(t, client)
	readEnd(t, server)
	eventually(t, "no session is left", func() bool { return n.Stats().RW.Open == 0 })
}

// TestCutSlowReader: a client that does not read does not hold up Cut.
func TestCutSlowReader(t *testing.T) {
	n, f := fakeMaster(t, nil)
	client, server := f.logIn(t, n.rw)
	write(t, client, command(comQuery, "SELECT"))
	readPacket(t, server)
	go func() {
		row := appendPacket(nil, 2, make([]byte, 1<<20))
		for range 64 {
			if _, err := server.Write(row); err != nil {
				return
			}
		}
	}()
	eventually(t, "the proxy is stuck in the write", func() bool { return n.Stats().RW.ToClient > 1<<16 })
	n.Cut("test") // waits for a limited time only
	eventually(t, "the session ends although its client does not read", func() bool { return n.Stats().RW.Open == 0 })
}

// TestWaitForRoute: a failover looks like a slow connect.
func TestWaitForRoute(t *testing.T) {
	f := newFakeServer(t)
	n := startNode(t, testOptions(f.socket))
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.logIn(t, n.rw)
	}()
	eventually(t, "the client waits", func() bool { return n.Stats().RW.Waiting == 1 })
	n.SetRoute(Local())
	<-done
	if st := n.Stats().RW; st.Waiting != 0 || st.Open != 1 {
		t.Errorf("stats: %+v", st)
	}
}

func TestWaitForRouteIsLimited(t *testing.T) {
	f := newFakeServer(t)
	opt := testOptions(f.socket)
	opt.HoldLimit = 20 * time.Millisecond
	n := startNode(t, opt)
	n.SetRoute(None("an election is under way"))
	seq, p := readPacket(t, dial(t, n.rw))
	if errorOf(t, p) != codeTooMany || seq != 0 || !strings.Contains(string(p), "an election is under way") {
		t.Errorf("got %d %q", seq, p)
	}
}

// TestNewMasterWhileConnecting: an attempt to reach a master that hangs ends
// when another one is named.
func TestNewMasterWhileConnecting(t *testing.T) {
	f := newFakeServer(t)
	hung := listen(t, "tcp", "127.0.0.1:0") // never greets
	n := startNode(t, testOptions(f.socket))
	n.SetRoute(Remote(hung.Addr().String()))
	client := dial(t, n.rw)
	c, err := hung.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	n.SetRoute(Local())
	write(t, f.accept(t), greetingPacket(1, capsNew, pluginCaching))
	if _, p := readPacket(t, client); p[0] != 10 {
		t.Errorf("got %q", p)
	}
}

// TestRouteChangeEndsSessionsOfTheOldMaster, but a route to nowhere does not.
func TestRouteChangeEndsSessionsOfTheOldMaster(t *testing.T) {
	n, f := fakeMaster(t, nil)
	client, server := f.logIn(t, n.rw)
	n.SetRoute(None("the master is gone"))
	write(t, client, command(comQuery, "SELECT"))
	readPacket(t, server)
	n.SetRoute(Remote("127.0.0.1:1"))
	if _, p := readPacket(t, client); errorOf(t, p) != codeShutdown {
		t.Errorf("got %q", p)
	}
	readEnd(t, client)
}

// TestHopIsNotForwardedAgain: two nodes that take each other for the master do
// not pass a connection back and forth.
func TestHopIsNotForwardedAgain(t *testing.T) {
	f := newFakeServer(t)
	opt := testOptions(f.socket)
	opt.HoldLimit = 200 * time.Millisecond
	a, b := startNode(t, opt), startNode(t, opt)
	a.SetRoute(Remote(b.rw))
	b.SetRoute(Remote(a.rw))
	_, p := readPacket(t, dial(t, a.rw))
	if errorOf(t, p) != codeTooMany {
		t.Errorf("got %q", p)
	}
	// On a busy machine a header can be late, and a session that is about to
	// turn back has been opened already; it never goes on and on.
	if hops := a.Stats().RW.Hops; hops > 10 {
		t.Errorf("%d connections came back", hops)
	}
}

// TestHopWaitsForItsOwnGate: the node that is named master may open a moment
// later.
func TestHopWaitsForItsOwnGate(t *testing.T) {
	master := newFakeServer(t)
	a, b := startNode(t, testOptions("/nowhere")), startNode(t, testOptions(master.socket))
	a.SetRoute(Remote(b.rw))
	b.SetRoute(Remote(a.rw)) // stale
	client := dial(t, a.rw)
	eventually(t, "the hop waits", func() bool { return b.Stats().RW.Waiting == 1 })
	b.SetRoute(Local())
	write(t, master.accept(t), greetingPacket(1, capsNew, pluginCaching))
	if _, p := readPacket(t, client); p[0] != 10 {
		t.Errorf("got %q", p)
	}
}

func TestForgedHopIsRefused(t *testing.T) {
	n, _ := fakeMaster(t, nil)
	n.SetRoute(None("nobody"))
	client := dial(t, n.rw)
	header, err := appendHop(nil, []byte("another secret"), hop{node: 2, sent: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	write(t, client, header)
	if _, p := readPacket(t, client); errorOf(t, p) != codeBadHop {
		t.Errorf("got %q", p)
	}
	readEnd(t, client)
}

// TestHopCarriesTheEnd: when the master's proxy closes a session with an answer,
// the client behind another member has the end with the answer, too.
func TestHopCarriesTheEnd(t *testing.T) {
	f := newFakeServer(t)
	master := startNode(t, testOptions(f.socket))
	master.SetRoute(Local())
	n := startNode(t, testOptions("/nowhere"))
	n.SetRoute(Remote(master.rw))
	client, server := f.logIn(t, n.rw)
	write(t, client, command(comQuery, "SELECT"))
	readPacket(t, server)
	write(t, server, okPacket(1, 0))
	_ = server.Close()
	if _, p := readPacket(t, client); p[0] != markOK {
		t.Errorf("got %q", p)
	}
	readEnd(t, client)
}

func TestMaxSessions(t *testing.T) {
	n, f := fakeMaster(t, func(o *Options) { o.MaxSessions = 1 })
	f.logIn(t, n.rw)
	c := dial(t, n.rw)
	if seq, p := readPacket(t, c); errorOf(t, p) != codeTooMany || seq != 0 {
		t.Errorf("got %d %q", seq, p)
	}
	readEnd(t, c)
}

func TestLoginLimit(t *testing.T) {
	n, f := fakeMaster(t, func(o *Options) { o.LoginLimit = 20 * time.Millisecond })
	client := dial(t, n.rw)
	// On a busy machine the limit may have passed before the client has its greeting.
	_, _ = f.accept(t).Write(greetingPacket(1, capsNew, pluginCaching))
	_ = client.SetReadDeadline(time.Now().Add(testLimit))
	if _, err := io.Copy(io.Discard, client); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("a client that does not log in is not ended")
	}
}

// TestHalfClosedClient: a client that has closed its side gets its answer.
func TestHalfClosedClient(t *testing.T) {
	n, f := fakeMaster(t, nil)
	client, server := f.logIn(t, n.rw)
	write(t, client, command(comQuery, "SELECT"))
	if err := client.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	readPacket(t, server)
	readEnd(t, server)
	write(t, server, okPacket(1, 0))
	if _, p := readPacket(t, client); p[0] != markOK {
		t.Errorf("got %q", p)
	}
	_ = server.Close()
	readEnd(t, client)
}

// TestClientGone: nothing is left of a client that vanished.
func TestClientGone(t *testing.T) {
	n, f := fakeMaster(t, nil)
	client, server := f.logIn(t, n.rw)
	_ = client.(*net.TCPConn).SetLinger(0)
	_ = client.Close()
	readEnd(t, server)
	_ = server.Close()
	eventually(t, "no session is left", func() bool { return n.Stats().RW.Open == 0 })
}

// TestClientLeavesTheQueue: a waiting client that goes away frees its place.
func TestClientLeavesTheQueue(t *testing.T) {
	n := startNode(t, testOptions("/nowhere"))
	client := dial(t, n.rw)
	eventually(t, "the client waits", func() bool { return n.Stats().RW.Waiting == 1 })
	_ = client.Close()
	eventually(t, "nobody waits", func() bool { return n.Stats().RW.Waiting == 0 })
}
