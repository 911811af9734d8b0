package netlab

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// peers are two nodes that send each other datagrams.
type peers struct {
	lab   *Lab
	conns [3]net.PacketConn // by number
	addrs [3]net.Addr
	asked int // calls of reaches
}

func newPeers(t *testing.T) *peers {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	lab, err := New(2)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(lab.Close)
	p := &peers{lab: lab}
	for i := 1; i <= 2; i++ {
		err := lab.Within(i, func() (err error) {
			p.conns[i], err = net.ListenPacket("udp4", lab.PeerAddr(i)+":0")
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { p.conns[i].Close() })
		p.addrs[i] = p.conns[i].LocalAddr()
	}
	return p
}

// reaches reports whether a datagram arrives, if it is sent again and again for a time. What
// was sent before, and is still on its way, does not count.
func (p *peers) reaches(t *testing.T, from, to int, patience time.Duration) bool {
	t.Helper()
	p.asked++
	mark := fmt.Appendf(nil, "%08d", p.asked)
	buf := make([]byte, len(mark))
	for end := time.Now().Add(patience); time.Now().Before(end); {
		if _, err := p.conns[from].WriteTo(mark, p.addrs[to]); err != nil {
			t.Logf("send: %v", err) // as after a failed look-up of the address; it is tried again
		}
		if err := p.conns[to].SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		for {
			n, _, err := p.conns[to].ReadFrom(buf)
			if err != nil {
				break
			}
			if bytes.Equal(buf[:n], mark) {
				return true
			}
		}
	}
	return false
}

// never is how long nothing must arrive, ever as long as something may take to arrive.
const never, ever = 300 * time.Millisecond, 30 * time.Second

func TestAWayIsCutInOneDirectionOnly(t *testing.T) {
	p := newPeers(t)
	both := func(when string) {
		if !p.reaches(t, 1, 2, ever) || !p.reaches(t, 2, 1, ever) {
			t.Fatalf("%s: not everything arrives", when)
		}
	}
	both("at first")
	if err := p.lab.SetPath(1, 2, false); err != nil {
		t.Fatal(err)
	}
	if p.reaches(t, 1, 2, never) {
		t.Error("something arrives on the way that is cut")
	}
	if !p.reaches(t, 2, 1, ever) {
		t.Error("nothing arrives on the way back, that is not cut")
	}
	if err := p.lab.SetPath(1, 2, true); err != nil {
		t.Fatal(err)
	}
	both("after the way was restored")
	if err := p.lab.SetPath(1, 2, true); err != nil {
		t.Errorf("to restore what is not cut: %v", err)
	}
	if err := p.lab.SetPeerLink(1, false); err != nil {
		t.Fatal(err)
	}
	if err := p.lab.SetPath(2, 1, false); err != nil {
		t.Fatal(err)
	}
	if err := p.lab.Heal(); err != nil {
		t.Fatal(err)
	}
	both("after all was healed")
}

func TestLabsLiveBesideEachOther(t *testing.T) {
	a, b := newPeers(t), newPeers(t)
	if a.lab.PeerAddr(1) == b.lab.PeerAddr(1) || a.lab.ClientAddr(1) == b.lab.ClientAddr(1) {
		t.Error("two labs have one address")
	}
	if err := a.lab.SetPeerLink(1, false); err != nil {
		t.Fatal(err)
	}
	if !b.reaches(t, 1, 2, ever) || !b.reaches(t, 2, 1, ever) {
		t.Error("a lab is broken by what happens to another")
	}
}

func TestWhatAKilledProcessLeftIsRemoved(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	dead, err := New(3)
	if err != nil {
		t.Fatal(err)
	}
	dead.place.Close() // as the kernel does; all else stays
	next, err := New(2)
	if err != nil {
		dead.Close()
		t.Fatal(err)
	}
	t.Cleanup(next.Close)
	if next.tag != dead.tag {
		t.Fatalf("the place %s was not taken again, but %s", dead.tag, next.tag)
	}
	if err := next.Within(2, func() error { return nil }); err != nil {
		t.Error(err)
	}
	if err := dead.Within(3, func() error { return nil }); err != nil {
		t.Error(err) // its handle is open still
	}
	if _, err := os.Stat("/run/netns/" + next.name(3)); !os.IsNotExist(err) {
		t.Errorf("the third namespace of the dead is still there: %v", err)
	}
}

func TestAShapedLaneKeepsItsWord(t *testing.T) {
	begin := time.Unix(100, 0)
	ms := time.Millisecond
	for _, c := range []struct {
		name  string
		shape Shape
		sizes []int
		want  []time.Duration // 0: lost
	}{
		{"slow", Shape{Delay: 50 * ms}, []int{100, 100}, []time.Duration{50 * ms, 50 * ms}},
		{"thin", Shape{Rate: 1000}, []int{100, 200}, []time.Duration{100 * ms, 300 * ms}},
		{"both", Shape{Delay: 50 * ms, Rate: 1000}, []int{100, 200}, []time.Duration{150 * ms, 350 * ms}},
		{"too thin", Shape{Rate: 100}, []int{250, 10}, []time.Duration{2500 * ms, 0}},
		{"lossy", Shape{Loss: 0.6}, []int{1}, []time.Duration{0}},
		{"hardly lossy", Shape{Loss: 0.4}, []int{1}, []time.Duration{1}},
	} {
		var l lane
		for i, size := range c.sizes {
			due, ok := l.due(c.shape, size, begin, 0.5)
			if got := due.Sub(begin); ok != (c.want[i] > 0) || ok && c.want[i] > 1 && got != c.want[i] {
				t.Errorf("%s: frame %d is due after %v (%v), want %v", c.name, i, got, ok, c.want[i])
			}
		}
	}
	var l lane
	first, _ := l.due(Shape{Delay: time.Second}, 1, begin, 0.5)
	if next, _ := l.due(Shape{}, 1, begin.Add(ms), 0.5); next.Before(first) {
		t.Error("a frame overtakes one that came before, when the link becomes fast")
	}
}

func TestASlowLink(t *testing.T) {
	p := newPeers(t)
	if !p.reaches(t, 1, 2, ever) || !p.reaches(t, 2, 1, ever) {
		t.Fatal("at first: not everything arrives")
	}
	const delay = 400 * time.Millisecond
	if err := p.lab.ShapeLink(1, Shape{Delay: delay}, Shape{}); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	if !p.reaches(t, 1, 2, ever) {
		t.Fatal("nothing arrives on the slow way")
	}
	if took := time.Since(begin); took < delay {
		t.Errorf("a packet took %v on a way of %v", took, delay)
	}
	// TCP gives the card segments to cut and sums to add, where there are such cards.
	p.stream(t, 1, 2)
	p.stream(t, 2, 1)
	if err := p.lab.ShapeLink(1, Shape{Loss: 1}, Shape{}); err != nil {
		t.Fatal(err)
	}
	if p.reaches(t, 1, 2, never) {
		t.Error("something arrives on a way that loses all")
	}
	if err := p.lab.Heal(); err != nil {
		t.Fatal(err)
	}
	if !p.reaches(t, 1, 2, ever) || !p.reaches(t, 2, 1, ever) {
		t.Error("after all was healed: not everything arrives")
	}
	p.stream(t, 1, 2)
}

// stream sends much over TCP and checks that it arrives.
func (p *peers) stream(t *testing.T, from, to int) {
	t.Helper()
	var l net.Listener
	if err := p.lab.Within(to, func() (err error) {
		l, err = net.Listen("tcp", p.lab.PeerAddr(to)+":0")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	sent := make([]byte, 2<<20)
	rand.Read(sent)
	failed := make(chan error, 1)
	go func() {
		failed <- p.lab.Within(from, func() error {
			c, err := net.DialTimeout("tcp", l.Addr().String(), ever)
			if err != nil {
				return err
			}
			defer c.Close()
			_, err = c.Write(sent)
			return err
		})
	}()
	l.(*net.TCPListener).SetDeadline(time.Now().Add(ever))
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(ever))
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("from %d to %d: %d of %d bytes arrived: %v", from, to, len(got), len(sent), err)
	}
	if err := <-failed; err != nil {
		t.Error(err)
	}
}
