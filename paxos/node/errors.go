package node

import (
	"errors"

	"github.com/phxsql/phxsql/internal/host"
	"github.com/phxsql/phxsql/paxos"
)

var (
	// ErrNotLeader refuses a proposal on a member that does not lead. The value was
	// not proposed. Node.Leader says who leads.
	ErrNotLeader = host.ErrNotLeader
	// ErrUnknown says that a value may or may not be chosen, now or later: the
	// leadership, the Node or the caller's patience ended before it was known.
	ErrUnknown = errors.New("outcome unknown: the value may be chosen now, later or never")
	// ErrOverload says that the value was not proposed: too many bytes were
	// on their way for as long as the context lived.
	ErrOverload = errors.New("too much in flight, not proposed")
	// ErrDiskFull says that the value was not proposed, because the disk of this node has
	// no room for the log. What is chosen is still served; the way on is to free space or to
	// move leadership.
	ErrDiskFull = host.ErrDiskFull
	// ErrTooLarge refuses a value above MaxValue.
	ErrTooLarge = errors.New("value too large")
	// ErrClosed says that the Node is closed.
	ErrClosed = host.ErrClosed
	// ErrNoGroup says that this node runs no such group.
	ErrNoGroup = errors.New("no such group on this node")
	// ErrNoLease says that this member does not lead, or cannot prove it now.
	ErrNoLease = errors.New("no valid lease")
	// ErrLease refuses a length of leases that is out of range.
	ErrLease = paxos.ErrLease
	// ErrTrimmed says that the log no longer has what a state machine asks for.
	ErrTrimmed = errors.New("the log is trimmed below what is asked for")
	// ErrWrongLog says that this node's membership names another log than the one
	// in its directory.
	ErrWrongLog = errors.New("another log than the member joined with")
	// ErrNoMajority refuses a membership change after which those members that are up and have
	// caught up would be no majority of the voters: nothing could be chosen until others come
	// up. It comes with ErrChange.
	ErrNoMajority = errors.New("no majority of the voters would be up")
	// ErrChange says that a membership change was refused.
	ErrChange = errors.New("membership change refused")
)
