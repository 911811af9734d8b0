// Package netlab is a network for tests that break networks: kernel namespaces on
// this machine, one for each node, and links between them that can be cut, or made slow,
// thin and lossy. It needs root, and nothing of it leaves the machine. Labs do not disturb
// each other, and what a process left that was killed is removed when its place is taken.
package netlab

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Lab is a network of namespaces: each node has one, with a leg in the peers'
// network and one in the clients' network. The clients' network also reaches the
// process that made the lab. Nodes are numbered from 1.
type Lab struct {
	place io.Closer // held as long as the lab lives
	tag   string    // in the names of everything, unique on this machine
	nets  [2]string // of the peers and of the clients, the first three numbers
	home  netns.NsHandle
	nodes []netns.NsHandle
	// relays carry the frames of links that are shaped, by node.
	relays map[int]*relay
}

// places is how many labs can live on one machine.
const places = 1 << 14

// networks are those of a place, of a range that is private and hardly used.
func networks(place int) [2]string {
	net := func(n int) string { return fmt.Sprintf("10.%d.%d", 128+n>>8, n&255) } // 10.128.0.0 to 10.255.255.0
	return [2]string{net(2 * place), net(2*place + 1)}
}

// takePlace takes a place that no living process has, and returns what holds it: an
// abstract Unix socket, which the kernel takes away with the process.
func takePlace() (int, io.Closer, error) {
	first := os.Getpid() % places
	for i := range places {
		place := (first + i) % places
		l, err := net.Listen("unix", fmt.Sprintf("@phxsql-netlab-%d", place))
		if err == nil {
			return place, l, nil
		}
		if !errors.Is(err, unix.EADDRINUSE) {
			return 0, nil, fmt.Errorf("take a place: %w", err)
		}
	}
	return 0, nil, fmt.Errorf("take a place: all %d are taken", places)
}

// PeerAddr is a node's address in the peers' network, ClientAddr the one in the
// clients'; both without a port.
func (lab *Lab) PeerAddr(i int) string { return fmt.Sprintf("%s.%d", lab.nets[0], i) }

// ClientAddr is described at PeerAddr.
func (lab *Lab) ClientAddr(i int) string { return fmt.Sprintf("%s.%d", lab.nets[1], i) }

func (lab *Lab) name(i int) string { return fmt.Sprintf("%s-%d", lab.tag, i) }

// New makes the networks for so many nodes. It needs root.
func New(nodes int) (*Lab, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("make network namespaces: only root may; run this as root")
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := netns.Get()
	if err != nil {
		return nil, fmt.Errorf("make network namespaces: %w", err)
	}
	place, held, err := takePlace()
	if err != nil {
		home.Close()
		return nil, fmt.Errorf("make network namespaces: %w", err)
	}
	lab := &Lab{place: held, tag: fmt.Sprintf("phx%d", place), nets: networks(place), home: home, relays: map[int]*relay{}}
	lab.sweep(maxNodes)
	if err := lab.build(nodes); err != nil {
		lab.Close()
		return nil, fmt.Errorf("make network namespaces: %w", err)
	}
	return lab, nil
}

// maxNodes is as many as a lab ever has.
const maxNodes = 9

func (lab *Lab) build(nodes int) error {
	if nodes > maxNodes {
		return fmt.Errorf("there can be no more than %d nodes", maxNodes)
	}
	for _, b := range []string{"p", "c"} {
		br := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: lab.tag + b}}
		if err := netlink.LinkAdd(br); err != nil {
			return fmt.Errorf("add bridge: %w", err)
		}
		if err := netlink.LinkSetUp(br); err != nil {
			return fmt.Errorf("start bridge: %w", err)
		}
		if b == "c" {
			if err := addAddr(br, lab.nets[1]+".254/24"); err != nil {
				return err
			}
		}
	}
	for i := 1; i <= nodes; i++ {
		if err := lab.addNode(i); err != nil {
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
func (lab *Lab) addNode(i int) error {
	ns, err := netns.NewNamed(lab.name(i)) // enters it
	if err != nil {
		return err
	}
	lab.nodes = append(lab.nodes, ns)
	if err := netns.Set(lab.home); err != nil {
		return err
	}
	for _, b := range []string{"p", "c"} {
		if err := lab.addLeg(ns, i, b); err != nil {
			return err
		}
	}
	if err := netns.Set(ns); err != nil {
		return err
	}
	defer netns.Set(lab.home)
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	for b, addr := range map[string]string{"p": lab.PeerAddr(i), "c": lab.ClientAddr(i)} {
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

func (lab *Lab) leg(i int, b string) string { return fmt.Sprintf("%s%s%d", lab.tag, b, i) }

func (lab *Lab) addLeg(ns netns.NsHandle, i int, b string) error {
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: lab.leg(i, b)}, PeerName: "eth" + b, PeerNamespace: netlink.NsFd(int(ns))}
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("add link: %w", err)
	}
	br, err := netlink.LinkByName(lab.tag + b)
	if err != nil {
		return err
	}
	if err := netlink.LinkSetMaster(veth, br); err != nil {
		return fmt.Errorf("join bridge: %w", err)
	}
	return netlink.LinkSetUp(veth)
}

// SetPeerLink cuts or restores a node's leg in the peers' network. Packets are
// lost without a word, as when a cable is pulled.
func (lab *Lab) SetPeerLink(i int, up bool) error {
	l, err := netlink.LinkByName(lab.leg(i, "p"))
	if err != nil {
		return fmt.Errorf("find link of node %d: %w", i, err)
	}
	if up {
		return netlink.LinkSetUp(l)
	}
	return netlink.LinkSetDown(l)
}

// nowhere is an address that no link has: what is sent to it is lost.
var nowhere = net.HardwareAddr{0x02, 0, 0, 0, 0, 0xee}

// SetPath cuts or restores the way from one node to another in the peers' network, in
// that direction only. Packets are lost without a word. It is independent of SetPeerLink.
func (lab *Lab) SetPath(from, to int, open bool) error {
	h, err := netlink.NewHandleAt(lab.nodes[from-1], unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("enter network of node %d: %w", from, err)
	}
	defer h.Close()
	l, err := h.LinkByName("ethp")
	if err != nil {
		return fmt.Errorf("find link of node %d: %w", from, err)
	}
	peer := &netlink.Neigh{LinkIndex: l.Attrs().Index, Family: unix.AF_INET, IP: net.ParseIP(lab.PeerAddr(to)), State: netlink.NUD_PERMANENT, HardwareAddr: nowhere}
	if !open {
		if err := h.NeighSet(peer); err != nil {
			return fmt.Errorf("cut node %d from node %d: %w", from, to, err)
		}
		return nil
	}
	if err := h.NeighDel(peer); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("restore the way from node %d to node %d: %w", from, to, err)
	}
	return nil
}

// Heal restores every link and every way.
func (lab *Lab) Heal() error {
	var errs []error
	for i := range lab.nodes {
		errs = append(errs, lab.removeRelay(i+1), lab.SetPeerLink(i+1, true))
		for j := range lab.nodes {
			if i != j {
				errs = append(errs, lab.SetPath(i+1, j+1, true))
			}
		}
	}
	return errors.Join(errs...)
}

// Within calls start in a node's namespace: a process started there stays there.
func (lab *Lab) Within(i int, start func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := netns.Set(lab.nodes[i-1]); err != nil {
		return fmt.Errorf("enter namespace of node %d: %w", i, err)
	}
	defer netns.Set(lab.home)
	return start()
}

// Close removes everything.
func (lab *Lab) Close() {
	for i := range lab.nodes {
		_ = lab.removeRelay(i + 1) // its link goes next
	}
	for _, ns := range lab.nodes {
		ns.Close()
	}
	lab.sweep(len(lab.nodes))
	lab.home.Close()
	lab.place.Close()
}

// sweep removes what there is of the lab. A namespace would take its legs with it, but
// some time later, and the next lab needs their names.
func (lab *Lab) sweep(nodes int) {
	names := []string{lab.tag + "p", lab.tag + "c"}
	for i := 1; i <= nodes; i++ {
		names = append(names, lab.leg(i, "p"), lab.leg(i, "c"))
		netns.DeleteNamed(lab.name(i))
	}
	for _, name := range names {
		if l, err := netlink.LinkByName(name); err == nil {
			netlink.LinkDel(l)
		}
	}
}
