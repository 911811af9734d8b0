package transport

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/phxsql/phxsql/paxos"
)

// TestDirectWritesNeverWait fills a connection that nobody reads, and then finds
// everything on the other side, in order.
func TestDirectWritesNeverWait(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	from, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	to, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	d := newDirect(from)
	var want []byte
	var rest [][]byte
	for i := 0; len(rest) == 0; i++ {
		if i == 1000 {
			t.Fatal("64 MB fit into a connection that nobody reads")
		}
		pieces := [][]byte{bytes.Repeat([]byte{byte(i)}, 64<<10), {1, 2, 3}, bytes.Repeat([]byte{byte(i + 1)}, 100)}[:1+2*(i%2)]
		want = append(want, bytes.Join(pieces, nil)...)
		rest = d.write(pieces)
	}
	go func() {
		for _, p := range rest {
			from.Write(p)
		}
		from.Close()
	}()
	got, err := io.ReadAll(to)
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("%d bytes came, want %d, or they differ: %v", len(got), len(want), err)
	}
	closed := [][]byte{{1}}
	if left := d.write(closed); len(left) != 1 {
		t.Error("a closed connection took something")
	}
}

// TestThePenIsLentOnAQuietConnection: not on a busy one, not for much, not while
// somebody has it; and whoever gives it back wakes the writer for what came meanwhile.
func TestThePenIsLentOnAQuietConnection(t *testing.T) {
	o := newOutbox(1<<20, false)
	woken := func() bool {
		select {
		case <-o.wake:
			return true
		default:
			return false
		}
	}
	now := int64(time.Second)
	o.putMessages(0, vote())
	if !o.lend(now) || woken() {
		t.Fatal("the pen is not lent on a quiet connection")
	}
	if o.lend(now) || o.grab() || woken() {
		t.Fatal("two have the pen, or the writer is woken beside who has it")
	}
	for o.take() != nil {
	}
	o.putMessages(0, vote()) // comes too late for take
	if o.release(now); !woken() {
		t.Fatal("what came meanwhile waits for ever")
	}
	if o.lend(now+lendGap-1) || !woken() {
		t.Fatal("the pen is lent on a busy connection, or the writer not woken")
	}
	if now += lendGap; !o.lend(now) {
		t.Fatal("the pen is not lent again")
	}
	o.rest = o.take() // could not be written
	if o.release(now); !woken() || o.lend(now+lendGap) || !woken() {
		t.Fatal("a rest does not keep the pen with the writer")
	}
	if !o.grab() || o.take() == nil || o.take() != nil {
		t.Fatal("the writer does not get the rest")
	}
	o.release(now)
	o.putMessages(0, accepts(1, 2, 1, lendLimit))
	if woken(); o.lend(now+lendGap) || !woken() {
		t.Fatal("much is written by the sender")
	}
}

// busyConn takes everything at once, and meanwhile another sender queues more.
type busyConn struct {
	syscall.RawConn
	sink   *os.File
	out    *outbox
	writes int
}

func (c *busyConn) Write(f func(fd uintptr) bool) error {
	f(c.sink.Fd())
	if c.writes++; c.writes < 10_000 {
		c.out.putMessages(0, accepts(1, 2, 1, 1000))
	}
	return nil
}

// TestASenderWritesLittle: however much others queue, and however fast the connection is,
// whoever has the pen gives it to the writer.
func TestASenderWritesLittle(t *testing.T) {
	sink, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Close()
	busy := &busyConn{sink: sink, out: newOutbox(1<<20, false)}
	d := &direct{raw: busy}
	d.once = d.try
	s := &session{p: &peer{t: &Transport{start: time.Now().Add(-time.Second)}}, c: &conn{direct: d}, out: busy.out}
	s.out.putMessages(0, vote())
	s.hasten()
	if most := lendLimit/1000 + 2; busy.writes == 0 || busy.writes > most {
		t.Errorf("a sender wrote %d times, want %d at most", busy.writes, most)
	}
	select {
	case <-s.out.wake:
	default:
		t.Error("nobody writes the rest")
	}
}

// TestSendersAndTheWriterKeepTheOrder sends small and large messages, now and then with
// pauses in which the connection is quiet, and sees them come in order.
func TestSendersAndTheWriterKeepTheOrder(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	rec := newRecorder()
	var nodes [2]*Transport
	for i := range nodes {
		opt := options(t, paxos.NodeID(i+1))
		opt.Credentials, opt.Insecure = nil, true
		tr, err := New(opt)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { tr.Close() })
		if err := tr.Start(rec); err != nil {
			t.Fatal(err)
		}
		nodes[i] = tr
	}
	one := &node{Transport: nodes[0]}
	one.SetPeers([]Peer{{ID: 2, Addr: nodes[1].Addr().String()}})
	waitPeer(t, one, 2, func(s PeerStatus) bool { return s.Connected })
	next := paxos.Instance(1)
	for range 300 {
		n := 1 + rng.IntN(5)
		for i := range n {
			m := accepts(1, 2, 1, rng.IntN(40<<10))
			m[0].First = next + paxos.Instance(i)
			one.Send(2, 0, m)
		}
		for _, m := range rec.messages(t, n) { // all have come: it is quiet now
			if m.First != next {
				t.Fatalf("message %d came, want %d", m.First, next)
			}
			next++
		}
	}
}
