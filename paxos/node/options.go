package node

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"time"

	"github.com/phxsql/phxsql/paxos"
)

// MaxValue is the largest value in bytes that Propose takes. One above 1 MiB is
// proposed in pieces, and values that are proposed after it wait until it is queued.
const MaxValue = 1 << 30

// StateMachine is what a group replicates. Its methods are called one at a time,
// but not always from the same goroutine.
type StateMachine interface {
	// Applied returns the newest instance whose effects the state machine has,
	// 0 for none. It is asked once, by Open: values behind it are applied.
	Applied() paxos.Instance
	// Apply carries out a value and returns what the proposer gets. It must depend on
	// nothing but the values before, or members drift apart. The value must not be
	// changed, but may be kept. Instances that carry no value are left out.
	Apply(i paxos.Instance, value []byte) any
}

// Checkpointer is a StateMachine that can make its state durable by itself, so
// that the log before need not be kept.
type Checkpointer interface {
	StateMachine
	// Checkpoint makes everything durable that was applied. After an error the log
	// is kept and the next checkpoint comes in its time.
	Checkpoint() error
}

// Credentials prove this node to others and others to it.
type Credentials interface {
	// ClientConfig is for dialing the given node, and no other.
	ClientConfig(peer paxos.NodeID) *tls.Config
	// ServerConfig is for accepting any node of the cluster.
	ServerConfig() *tls.Config
	// Peer returns the node that a finished handshake proved.
	Peer(tls.ConnectionState) (paxos.NodeID, error)
}

// Group describes one group of a node. All members of a group run it under the same id.
type Group struct {
	ID paxos.Group
	// Machine may be nil: then values are chosen and kept, and read with Read.
	Machine StateMachine
	// CheckpointEvery is the number of instances after which a Checkpointer is asked
	// for a checkpoint and the log is trimmed; 0 for never.
	CheckpointEvery uint64
	// Retain is for how many instances the log is kept for members that lack them, if
	// Machine is a Snapshotter; one that is further behind comes back by a snapshot. Make
	// it much larger than what is chosen in some seconds. 0 is without limit: a member
	// that is away holds up trimming until it comes back or is removed.
	Retain uint64
	// Delay is how long this member lets others go first when there is no leader.
	// Different delays are priorities.
	Delay time.Duration
	// Never says that this member votes but does not lead, until SetCandidacy.
	Never bool
}

// Options say who a node is and what it runs. Dir, ID, Cluster, Groups, one of
// Listen and Listener, and one of Credentials and Insecure must be given.
type Options struct {
	// Dir keeps the node's log, and belongs to this node alone.
	Dir string
	// ID names the node. It is never used again for another machine or another Dir.
	ID paxos.NodeID
	// Cluster is a name that all nodes of a cluster share.
	Cluster string
	// Listen is the address for peers, host:port; Listener, if given, replaces it and
	// is closed by Close.
	Listen   string
	Listener net.Listener
	// Members are the first members of every group, the same list on each of them. It
	// counts only as long as a group has no membership: the voter of the lowest id
	// founds the group as soon as all of them are up. A node that is to join an existing
	// cluster names members that it can reach, without itself, and is added on the leader
	// with AddMember.
	Members []paxos.Member
	Groups  []Group

	Credentials Credentials
	// Insecure speaks without TLS, to everybody who knows the name of the cluster.
	Insecure bool

	// Lease, Heartbeat and ClockError are those of paxos.Config; 0 means its default. Nodes
	// may have different leases, from three heartbeats to paxos.MaxLease; Heartbeat and
	// ClockError are the same on all of them.
	Lease, Heartbeat time.Duration
	ClockError       float64
	// MaxInFlight limits the bytes of a group's values between Propose and its
	// answer; default 32 MiB. At the limit Propose waits, first come, first served. The
	// pieces of a large value have a limit of their own.
	MaxInFlight int64
	// SegmentSize is the size of the log's files, default 64 MiB.
	SegmentSize int64

	Logger *slog.Logger // default: none
	// Failed is called once, from a goroutine of its own, when the node cannot go on:
	// its disk has failed, or its log is damaged. The process must then stop.
	Failed func(error)

	keep int // keepBytes, but for tests
}

func (o *Options) check() error {
	var errs []error
	need := func(ok bool, what string) {
		if !ok {
			errs = append(errs, errors.New(what))
		}
	}
	need(o.Dir != "", "Dir must be given")
	need(o.ID != 0, "ID must be given: node 0 is nobody")
	need(o.Cluster != "", "Cluster must be given: a name that all nodes share")
	need(len(o.Groups) > 0, "Groups must have at least one group")
	need((o.Listen != "") != (o.Listener != nil), "one of Listen and Listener must be given")
	need((o.Credentials != nil) != o.Insecure, "one of Credentials and Insecure must be given")
	c := o.config()
	errs = append(errs, c.CheckLease(c.Lease))
	if len(o.Members) > 0 {
		errs = append(errs, o.first().Check())
	}
	seen := map[paxos.Group]bool{}
	for _, g := range o.Groups {
		need(!seen[g.ID], fmt.Sprintf("group %d is given twice", g.ID))
		seen[g.ID] = true
		if _, ok := g.Machine.(Snapshotter); g.Retain > 0 && !ok {
			need(false, fmt.Sprintf("Retain of group %d needs a Machine that is a Snapshotter", g.ID))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("check options: %w", err)
	}
	return nil
}

func (o *Options) fill() {
	if o.MaxInFlight <= 0 {
		o.MaxInFlight = 32 << 20
	}
	o.MaxInFlight = max(o.MaxInFlight, pieceSize+pieceHeader+callSize)
	if o.keep == 0 {
		o.keep = keepBytes
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
}

func (o *Options) config() paxos.Config {
	c := paxos.Defaults(o.ID, rand.Int64N)
	c.KeepBytes = int64(o.keep)
	if o.Lease > 0 {
		c.Lease = o.Lease
	}
	if o.Heartbeat > 0 {
		c.Heartbeat = o.Heartbeat
	}
	if o.ClockError > 0 {
		c.ClockError = o.ClockError
	}
	return c
}

// first is the membership that a founder proposes, still without the identities
// of the logs.
func (o *Options) first() paxos.Members {
	return paxos.Members{Cluster: o.Cluster, List: o.Members}
}
