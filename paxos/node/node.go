package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"sync"

	"github.com/phxsql/phxsql/internal/host"
	"github.com/phxsql/phxsql/internal/transport"
	"github.com/phxsql/phxsql/paxos"
	"github.com/phxsql/phxsql/vfs"
	"github.com/phxsql/phxsql/wal"
)

// Node is one running process of a cluster. It is safe for concurrent use.
type Node struct {
	opt    Options
	log    *wal.Log
	net    *transport.Transport
	host   *host.Host
	groups map[paxos.Group]*group
	order  []paxos.Group
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	failed sync.Once

	mu     sync.Mutex
	guests map[paxos.NodeID]paxos.Member // asked for their log before they are members
	heard  map[paxos.NodeID]positions    // how far the others' logs are durable
}

// Open starts a node on its directory. It returns before there is a leader.
func Open(opt Options) (*Node, error) {
	if err := opt.check(); err != nil {
		return nil, err
	}
	opt.fill()
	n := &Node{
		opt: opt, groups: map[paxos.Group]*group{},
		guests: map[paxos.NodeID]paxos.Member{}, heard: map[paxos.NodeID]positions{},
	}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	if err := n.build(); err != nil {
		n.Close()
		return nil, fmt.Errorf("open node %d: %w", opt.ID, err)
	}
	return n, nil
}

func (n *Node) build() error {
	if err := n.listen(); err != nil {
		return err
	}
	var err error
	n.log, err = wal.Open(wal.Options{FS: vfs.OS{}, Dir: filepath.Join(n.opt.Dir, "log"), SegmentSize: n.opt.SegmentSize, Salvage: true, Logger: n.opt.Logger})
	if err != nil {
		return err
	}
	n.host = host.New(host.Options{Log: n.log, Sender: n.net, Logger: n.opt.Logger, Failed: n.fail, KeepBytes: int64(n.opt.keep)})
	for _, o := range n.opt.Groups {
		g, err := n.startGroup(o)
		if err != nil {
			return fmt.Errorf("start group %d: %w", o.ID, err)
		}
		n.groups[o.ID] = g
		n.order = append(n.order, o.ID)
	}
	slices.Sort(n.order)
	n.net.Handle(methodIdentity, n.handleIdentity)
	n.net.Handle(methodSnapshot, n.handleSnapshot)
	if err := n.net.Start(n); err != nil {
		return err
	}
	n.connect()
	for _, g := range n.groups {
		g.stand()
		n.wg.Go(g.apply)
		n.wg.Go(func() { n.follow(g) })
		n.wg.Go(func() { n.found(g) })
		if s, ok := g.opt.Machine.(Snapshotter); ok {
			n.wg.Go(func() { n.rescue(g, s) })
		}
	}
	n.wg.Go(n.announce)
	return nil
}

func (n *Node) listen() (err error) {
	ln := n.opt.Listener
	if ln == nil {
		if ln, err = net.Listen("tcp", n.opt.Listen); err != nil {
			return fmt.Errorf("listen for peers: %w", err)
		}
	}
	n.net, err = transport.New(transport.Options{
		Node: n.opt.ID, Listener: ln, Self: n.hello, Admit: n.admit,
		Credentials: n.opt.Credentials, Insecure: n.opt.Insecure, Logger: n.opt.Logger,
	})
	if err != nil {
		ln.Close()
	}
	return err
}

// keepBytes is what all groups together keep in memory of what was chosen last, for
// members that lag a little; the core and the applier share the values. What is older is
// read from the log, that is from the page cache.
const keepBytes = 6 << 20

// HandleMessages implements the transport's handler.
func (n *Node) HandleMessages(from paxos.NodeID, id paxos.Group, msgs []paxos.Message) {
	n.host.HandleMessages(from, id, msgs)
}

// fail reports the end of the node.
func (n *Node) fail(err error) {
	n.failed.Do(func() {
		n.opt.Logger.Error("node failed", "error", err)
		if n.opt.Failed != nil {
			go n.opt.Failed(err)
		}
	})
}

// Close stops the node. Proposals that have no answer yet fail with ErrUnknown.
func (n *Node) Close() error {
	n.cancel()
	var errs []error
	if n.host != nil {
		n.host.Close()
	}
	if n.net != nil {
		errs = append(errs, n.net.Close())
	}
	n.wg.Wait()
	for _, g := range n.groups {
		g.applying.Lock() // no deputy applies any more
		g.abandon(nil)
		g.applying.Unlock()
	}
	if n.log != nil {
		if err := n.log.Close(); !errors.Is(err, wal.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Addr is where the node listens for peers.
func (n *Node) Addr() net.Addr { return n.net.Addr() }

// LogIdentity is the random identity of the node's log.
func (n *Node) LogIdentity() string { return n.log.Identity() }

func (n *Node) group(id paxos.Group) (*group, error) {
	if g := n.groups[id]; g != nil {
		return g, nil
	}
	return nil, fmt.Errorf("group %d: %w", id, ErrNoGroup)
}
