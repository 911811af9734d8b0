package drill

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// fabric is a network of namespaces on this machine: each node has one, with a
// leg in the peers' network and one in the clients' network. The clients' network
// also reaches the process that made the fabric. Nothing of it leaves the machine.
type fabric struct {
	tag   string    // in the names of everything, unique on this machine
	nets  [2]string // of the peers and of the clients, the first three numbers
	home  netns.NsHandle
	nodes []netns.NsHandle
}

// The networks are of a range that is private and hardly used, two for each
// process, so that several tests can run on one machine.
func networks(pid int) [2]string {
	n := pid % (1 << 14) * 2 // 10.128.0.0 to 10.255.255.0
	net := func(n int) string { return fmt.Sprintf("10.%d.%d", 128+n>>8, n&255) }
	return [2]string{net(n), net(n + 1)}
}

func (f *fabric) peerAddr(i int) string   { return fmt.Sprintf("%s.%d", f.nets[0], i) }
func (f *fabric) clientAddr(i int) string { return fmt.Sprintf("%s.%d", f.nets[1], i) }

func (f *fabric) name(i int) string { return fmt.Sprintf("%s-%d", f.tag, i) }

// newFabric makes the networks for so many nodes. It needs root.
func newFabric(nodes int) (*fabric, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("make network namespaces: only root may; run this as root")
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := netns.Get()
	if err != nil {
		return nil, fmt.Errorf("make network namespaces: %w", err)
	}
	f := &fabric{tag: fmt.Sprintf("phx%d", os.Getpid()%100000), nets: networks(os.Getpid()), home: home}
	if err := f.build(nodes); err != nil {
		f.close()
		return nil, fmt.Errorf("make network namespaces: %w", err)
	}
	return f, nil
}

func (f *fabric) build(nodes int) error {
	for _, b := range []string{"p", "c"} {
		br := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: f.tag + b}}
		if err := netlink.LinkAdd(br); err != nil {
			return fmt.Errorf("add bridge: %w", err)
		}
		if err := netlink.LinkSetUp(br); err != nil {
			return fmt.Errorf("start bridge: %w", err)
		}
		if b == "c" {
			if err := addAddr(br, f.nets[1]+".254/24"); err != nil {
				return err
			}
		}
	}
	for i := 1; i <= nodes; i++ {
		if err := f.addNode(i); err != nil {
			return fmt.Errorf("node %d: %w", i, err)
		}
	}
	return nil
}

func addAddr(l netlink.Link, cidr string) error {
	a, err := netlink.ParseAddr(cidr)
	if err != nil {
		return err
	}
	if err := netlink.AddrAdd(l, a); err != nil {
		return fmt.Errorf("add address %s: %w", cidr, err)
	}
	return nil
}

// addNode makes a namespace with two legs. The calling thread ends up at home.
func (f *fabric) addNode(i int) error {
	ns, err := netns.NewNamed(f.name(i)) // enters it
	if err != nil {
		return err
	}
	f.nodes = append(f.nodes, ns)
	if err := netns.Set(f.home); err != nil {
		return err
	}
	for _, b := range []string{"p", "c"} {
		if err := f.addLeg(ns, i, b); err != nil {
			return err
		}
	}
	if err := netns.Set(ns); err != nil {
		return err
	}
	defer netns.Set(f.home)
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	for b, addr := range map[string]string{"p": f.peerAddr(i), "c": f.clientAddr(i)} {
		l, err := netlink.LinkByName("eth" + b)
		if err != nil {
			return err
		}
		if err := addAddr(l, addr+"/24"); err != nil {
			return err
		}
		if err := netlink.LinkSetUp(l); err != nil {
			return err
		}
	}
	return nil
}

func (f *fabric) leg(i int, b string) string { return fmt.Sprintf("%s%s%d", f.tag, b, i) }

func (f *fabric) addLeg(ns netns.NsHandle, i int, b string) error {
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: f.leg(i, b)}, PeerName: "eth" + b, PeerNamespace: netlink.NsFd(int(ns))}
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("add link: %w", err)
	}
	br, err := netlink.LinkByName(f.tag + b)
	if err != nil {
		return err
	}
	if err := netlink.LinkSetMaster(veth, br); err != nil {
		return fmt.Errorf("join bridge: %w", err)
	}
	return netlink.LinkSetUp(veth)
}

// setPeerLink cuts or restores a node's leg in the peers' network. Packets are
// lost without a word, as when a cable is pulled.
func (f *fabric) setPeerLink(i int, up bool) error {
	l, err := netlink.LinkByName(f.leg(i, "p"))
	if err != nil {
		return fmt.Errorf("find link of node %d: %w", i, err)
	}
	if up {
		return netlink.LinkSetUp(l)
	}
	return netlink.LinkSetDown(l)
}

// within calls start in a node's namespace: a process started there stays there.
func (f *fabric) within(i int, start func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := netns.Set(f.nodes[i-1]); err != nil {
		return fmt.Errorf("enter namespace of node %d: %w", i, err)
	}
	defer netns.Set(f.home)
	return start()
}

// close removes everything; a namespace takes its legs with it.
func (f *fabric) close() {
	for i, ns := range f.nodes {
		ns.Close()
		netns.DeleteNamed(f.name(i + 1))
	}
	for _, b := range []string{"p", "c"} {
		if l, err := netlink.LinkByName(f.tag + b); err == nil {
			netlink.LinkDel(l)
		}
	}
	f.home.Close()
}
