// Package run starts the nodes of a sample: three in one process, or one of them.
// A real program needs none of this: it calls node.Open with its own options.
package run

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/phxsql/phxsql/paxos"
	"github.com/phxsql/phxsql/paxos/node"
)

// Group is the only group of the samples.
const Group paxos.Group = 1

// Flags are the flags that all samples have.
type Flags struct {
	Node  int
	Peers string
	Dir   string
	Loud  bool
}

// Register adds the flags to a set.
func (f *Flags) Register(fs *flag.FlagSet) {
	fs.IntVar(&f.Node, "node", 0, "run this node only, 1 for the first of the peers, and the others in processes of their own; 0 runs all of them here")
	fs.StringVar(&f.Peers, "peers", "127.0.0.1:7401,127.0.0.1:7402,127.0.0.1:7403", "addresses of the nodes for each other")
	fs.StringVar(&f.Dir, "dir", "", "directory for the nodes' state; default: a temporary one that is removed at the end")
	fs.BoolVar(&f.Loud, "v", false, "show the nodes' log")
}

// Cluster is the nodes that run in this process.
type Cluster struct {
	Nodes  map[paxos.NodeID]*node.Node
	Failed chan error // a node cannot go on
	temp   string
}

// Interrupt is a context that ends with SIGINT or SIGTERM.
func Interrupt() (context.Context, context.CancelFunc) {
	return signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
}

// Start opens the nodes that the flags name. build makes the group of each of them;
// dir is the node's own directory.
func Start(f Flags, cluster string, build func(id paxos.NodeID, dir string) (node.Group, error)) (*Cluster, error) {
	c := &Cluster{Nodes: map[paxos.NodeID]*node.Node{}, Failed: make(chan error, 9)}
	if f.Dir == "" {
		dir, err := os.MkdirTemp("", cluster)
		if err != nil {
			return nil, fmt.Errorf("make directory: %w", err)
		}
		f.Dir, c.temp = dir, dir
	}
	members, err := parsePeers(f.Peers)
	if err == nil && (f.Node < 0 || f.Node > len(members)) {
		err = fmt.Errorf("there is no node %d among %d peers", f.Node, len(members))
	}
	for i := 0; err == nil && i < len(members); i++ {
		if f.Node == 0 || int(members[i].ID) == f.Node {
			err = c.open(f, cluster, members, members[i], build)
		}
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func (c *Cluster) open(f Flags, cluster string, members []paxos.Member, m paxos.Member, build func(paxos.NodeID, string) (node.Group, error)) error {
	dir := filepath.Join(f.Dir, fmt.Sprint(m.ID))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	g, err := build(m.ID, dir)
	if err != nil {
		return err
	}
	g.ID = Group
	log := slog.New(slog.DiscardHandler)
	if f.Loud {
		log = slog.Default().With("node", uint64(m.ID))
	}
	n, err := node.Open(node.Options{
		Dir: dir, ID: m.ID, Cluster: cluster, Listen: m.Addr, Members: members, Groups: []node.Group{g},
		Insecure: true, // a sample on the loopback interface
		Logger:   log, SegmentSize: 4 << 20, Failed: func(err error) { c.Failed <- err },
	})
	if err != nil {
		return err
	}
	c.Nodes[m.ID] = n
	return nil
}

func parsePeers(list string) ([]paxos.Member, error) {
	var members []paxos.Member
	for i, addr := range strings.Split(list, ",") {
		if _, _, err := net.SplitHostPort(addr); err != nil {
			return nil, fmt.Errorf("read peers: %w", err)
		}
		members = append(members, paxos.Member{ID: paxos.NodeID(i + 1), Role: paxos.Voter, Addr: addr})
	}
	return members, nil
}

// Close stops the nodes.
func (c *Cluster) Close() error {
	var errs []error
	for _, n := range c.Nodes {
		errs = append(errs, n.Close())
	}
	if c.temp != "" {
		errs = append(errs, os.RemoveAll(c.temp))
	}
	return errors.Join(errs...)
}

// Propose proposes through whichever local node leads, and waits for one that does.
// If none of them leads it fails with node.ErrNotLeader and names the leader.
func (c *Cluster) Propose(ctx context.Context, value []byte) (paxos.Instance, any, error) {
	for {
		var leader paxos.NodeID
		for id, n := range c.Nodes {
			l, err := n.WaitLeader(ctx, Group)
			if err != nil {
				return 0, nil, err
			}
			leader = l
			if l != id {
				continue
			}
			i, result, err := n.Propose(ctx, Group, value)
			if errors.Is(err, node.ErrNotLeader) {
				continue // it has just stopped leading, and the value was not proposed
			}
			return i, result, err
		}
		if c.Nodes[leader] == nil {
			return 0, nil, fmt.Errorf("node %d leads, type it there: %w", leader, node.ErrNotLeader)
		}
		if ctx.Err() != nil {
			return 0, nil, ctx.Err()
		}
	}
}
