package netlab

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Shape is what a link does to packets in one direction. The zero Shape does nothing.
type Shape struct {
	Delay time.Duration // of each packet
	Rate  int           // bytes per second; 0: no limit
	Loss  float64       // the share of packets that are lost, 0 to 1
}

// The limits of a shaped link.
const (
	frameSize = 1 << 16         // bytes; larger than any frame
	backlog   = 4096            // frames under way in one direction; more are lost
	waiting   = 2 * time.Second // longest time for which a frame waits for a thin link; what would wait longer is lost
)

// relay carries the frames between a node's leg and the peers' bridge in user space: the
// kernel's own queueing disciplines are not to be had everywhere.
type relay struct {
	leg, bridge *os.File // a packet socket on the leg; a TAP device that is the leg's place on the bridge
	out, in     lane     // from the node, and to it
	done        sync.WaitGroup
	closing     atomic.Bool
}

// ShapeLink makes a node's link to the peers' network slow, thin or lossy, for what it
// sends and what it receives. Two zero Shapes restore it. It is independent of SetPeerLink
// and SetPath.
func (lab *Lab) ShapeLink(i int, out, in Shape) error {
	r := lab.relays[i]
	if out == (Shape{}) && in == (Shape{}) {
		return lab.removeRelay(i)
	}
	if r == nil {
		var err error
		if r, err = lab.addRelay(i); err != nil {
			return fmt.Errorf("shape link of node %d: %w", i, err)
		}
		lab.relays[i] = r
		r.carry(&r.out, r.leg, r.bridge)
		r.carry(&r.in, r.bridge, r.leg)
	}
	r.out.shape.Store(&out)
	r.in.shape.Store(&in)
	return nil
}

// addRelay takes the node's leg off the bridge and puts a TAP device in its place.
func (lab *Lab) addRelay(i int) (*relay, error) {
	// Frames must be whole and have their checksums when they come to user space.
	if err := lab.Within(i, func() error { return disableOffloads("ethp") }); err != nil {
		return nil, err
	}
	leg, err := netlink.LinkByName(lab.leg(i, "p"))
	if err != nil {
		return nil, err
	}
	bridge, err := netlink.LinkByName(lab.tag + "p")
	if err != nil {
		return nil, err
	}
	r := &relay{}
	if r.bridge, err = openTAP(lab.leg(i, "t"), bridge); err != nil {
		return nil, err
	}
	if r.leg, err = packetSocket(leg.Attrs().Index); err != nil {
		return nil, errors.Join(err, r.bridge.Close())
	}
	if err := netlink.LinkSetNoMaster(leg); err != nil {
		return nil, errors.Join(fmt.Errorf("take link off the bridge: %w", err), r.bridge.Close(), r.leg.Close())
	}
	return r, nil
}

// removeRelay puts the leg back on the bridge.
func (lab *Lab) removeRelay(i int) error {
	r := lab.relays[i]
	if r == nil {
		return nil
	}
	delete(lab.relays, i)
	r.closing.Store(true)
	err := errors.Join(r.bridge.Close(), r.leg.Close())
	r.done.Wait()
	leg, lerr := netlink.LinkByName(lab.leg(i, "p"))
	if lerr == nil {
		var br netlink.Link
		if br, lerr = netlink.LinkByName(lab.tag + "p"); lerr == nil {
			lerr = netlink.LinkSetMaster(leg, br)
		}
	}
	if err = errors.Join(err, lerr); err != nil {
		return fmt.Errorf("restore link of node %d: %w", i, err)
	}
	return nil
}

// carry starts the two goroutines of a direction. They end when the files are closed.
func (r *relay) carry(l *lane, from, to *os.File) {
	l.frames = make(chan frame, backlog)
	r.done.Go(func() {
		defer close(l.frames)
		buf := make([]byte, frameSize)
		for {
			n, err := from.Read(buf)
			if r.closing.Load() {
				return
			}
			if err == nil {
				l.push(buf[:n], time.Now())
			}
			// Else the link is down, and may come back.
		}
	})
	r.done.Go(func() {
		for f := range l.frames {
			time.Sleep(time.Until(f.due))
			_, _ = to.Write(f.bytes) // a link that is down loses it
		}
	})
}

// lane is one direction of a relay.
type lane struct {
	shape  atomic.Pointer[Shape]
	frames chan frame
	busy   time.Time // until when the link sends what came before
	last   time.Time // when the newest frame is due: they stay in order
}

type frame struct {
	due   time.Time
	bytes []byte
}

// push takes a frame that came at a time, or loses it.
func (l *lane) push(b []byte, now time.Time) {
	s := l.shape.Load()
	if s == nil {
		s = &Shape{}
	}
	due, ok := l.due(*s, len(b), now, rand.Float64())
	if !ok {
		return
	}
	select {
	case l.frames <- frame{due, append([]byte(nil), b...)}:
	default: // lost: too many are under way
	}
}

// due is when a frame arrives; false says that it is lost. The chance is from 0 to 1.
func (l *lane) due(s Shape, size int, now time.Time, chance float64) (time.Time, bool) {
	if chance < s.Loss {
		return now, false
	}
	if l.busy.Before(now) {
		l.busy = now
	}
	if s.Rate > 0 {
		if l.busy.Sub(now) > waiting {
			return now, false
		}
		l.busy = l.busy.Add(time.Duration(size) * time.Second / time.Duration(s.Rate))
	}
	due := l.busy.Add(s.Delay)
	if due.Before(l.last) {
		due = l.last
	}
	l.last = due
	return due, true
}

// openTAP makes a TAP device on a bridge. It is gone when the file is closed.
func openTAP(name string, bridge netlink.Link) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/net/tun: %w", err)
	}
	req, err := unix.NewIfreq(name)
	if err == nil {
		req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make TAP device: %w", err), unix.Close(fd))
	}
	f := os.NewFile(uintptr(fd), name) // only now can it be polled
	tap, err := netlink.LinkByName(name)
	if err == nil {
		if err = netlink.LinkSetMaster(tap, bridge); err == nil {
			err = netlink.LinkSetUp(tap)
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("put TAP device on the bridge: %w", err), f.Close())
	}
	return f, nil
}

// packetSocket reads and writes whole frames of a link.
func packetSocket(index int) (*os.File, error) {
	const all = unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8 // in network order
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open packet socket: %w", err)
	}
	err = unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: index})
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open packet socket: %w", err), unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), "packet"), nil
}

// The commands of linux/ethtool.h that switch off what a card would do.
const (
	ethtoolStxCsum = 0x17
	ethtoolSTSO    = 0x1f
	ethtoolSGSO    = 0x24
)

// disableOffloads has the kernel cut segments and add checksums itself, on a link of the
// namespace that the thread is in.
func disableOffloads(link string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("switch off offloads: %w", err)
	}
	defer unix.Close(fd)
	for _, cmd := range []uint32{ethtoolSTSO, ethtoolSGSO, ethtoolStxCsum} {
		value := struct{ cmd, data uint32 }{cmd: cmd}
		var req struct {
			name [unix.IFNAMSIZ]byte
			data unsafe.Pointer
			pad  [16]byte
		}
		copy(req.name[:], link)
		req.data = unsafe.Pointer(&value)
		if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&req))); e != 0 {
			return fmt.Errorf("switch off offloads of %s (ethtool command %#x): %w", link, cmd, e)
		}
	}
	return nil
}
