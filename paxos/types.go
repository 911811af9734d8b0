package paxos

import (
	"fmt"
	"time"
)

// NodeID names a member of a group. It is not an address, is never reused for
// another machine, and zero means "nobody".
type NodeID uint64

// Instance is the number of one decision of the log, counted from 1. Instance 0
// stands before the first decision.
type Instance uint64

// Group names one of the logs that a process replicates.
type Group uint32

// Ballot orders proposers. A higher ballot fences every lower one. The zero
// ballot is below every ballot that a proposer can own.
type Ballot struct {
	Round uint64
	Node  NodeID
}

// Less reports whether b is ordered before o.
func (b Ballot) Less(o Ballot) bool {
	if b.Round != o.Round {
		return b.Round < o.Round
	}
	return b.Node < o.Node
}

// IsZero reports whether b is the ballot before all others.
func (b Ballot) IsZero() bool { return b == Ballot{} }

func (b Ballot) String() string { return fmt.Sprintf("%d.%d", b.Round, b.Node) }

// Time is a reading of the node's own clock, counted from any fixed moment of
// this boot. It must go on during a suspend (CLOCK_BOOTTIME) and is never
// compared between nodes.
type Time time.Duration

// Add returns t moved by d.
func (t Time) Add(d time.Duration) Time { return t + Time(d) }

// EntryKind says who reads the data of an entry.
type EntryKind uint8

// The kinds of entries. The data of a Normal entry belongs to the application.
const (
	Noop       EntryKind = 1 // fills an instance; no data
	Normal     EntryKind = 2 // the application's value
	Membership EntryKind = 3 // an encoded Members; ends the validity of every earlier phase 1
)

func (k EntryKind) String() string {
	switch k {
	case Noop:
		return "noop"
	case Normal:
		return "normal"
	case Membership:
		return "membership"
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// Entry is a value at an instance together with the ballot under which it was
// accepted. Data is never modified after the entry was made.
type Entry struct {
	Instance Instance
	Ballot   Ballot
	Kind     EntryKind
	Data     []byte
}

func (e Entry) size() int { return len(e.Data) + entryOverhead }

// entryOverhead is what an entry costs in memory and on the wire beyond its data.
// With it, Config.MaxInflight at its default keeps the entries of a promise within
// MaxMessageEntries, however small they are.
const entryOverhead = 64

// RecordKind tells the things that a member must not forget.
type RecordKind uint8

// The kinds of records.
const (
	// RecordPromise keeps the promised ballot. It has a durable slot of its
	// own, which never decreases.
	RecordPromise RecordKind = 1
	// RecordAccept keeps an accepted entry.
	RecordAccept RecordKind = 2
	// RecordChosen keeps the instance through which everything is known to be
	// chosen. It is a hint that spares work after a restart: it never needs a
	// sync of its own.
	RecordChosen RecordKind = 3
	// RecordMembers keeps a membership together with the instance at which it was
	// chosen. Everything through that instance is chosen and was recorded before.
	// It is one record, so that a crash cannot part the two.
	RecordMembers RecordKind = 4
	// RecordLease keeps the length of the longest lease that the member may have
	// granted, in a slot of its own. It is on disk before a lease of that length is
	// granted, and a shorter one takes its place only when all longer leases are over.
	RecordLease RecordKind = 5
)

// Record is something to persist. Records are persisted in the order given.
type Record struct {
	Kind   RecordKind
	Ballot Ballot   // RecordPromise
	Entry  Entry    // RecordAccept
	Chosen Instance // RecordChosen, RecordMembers

	Members Members       // RecordMembers
	Lease   time.Duration // RecordLease
}

// State is what a node remembers when it starts: the fold of its records.
type State struct {
	Promised Ballot
	Chosen   Instance
	// Lease is the longest lease that the node may have granted in an earlier life, 0
	// when no record says so. Nodes of a release without RecordLease granted Config.Lease.
	Lease time.Duration
	// Members is the newest membership at or below Chosen; empty on a node
	// that has never learned one.
	Members Members
	// Entries are the accepted entries above Chosen, ascending; holes are
	// allowed.
	Entries []Entry
}
