package cluster

import (
	"slices"
	"time"

	"github.com/phxsql/phxsql/paxos"
)

// View is everything a decision depends on. The zero View is that of a node
// that has just started: no membership, no server, gate closed.
type View struct {
	Self   paxos.NodeID
	Member bool       // the membership in the log names this node
	Role   paxos.Role // meaningful only for a member
	Wants  paxos.Role // the role that a node on its way into a cluster will have; 0: none
	// Removed says that this node was a member and is none any more.
	Removed bool

	Lead   Lead
	Epoch  Epoch
	Engine Engine
	Tail   Tail
	Gate   Gate
	// Drained says, while the gate drains, that no transaction is open any more.
	Drained bool
	// Reads says that the read-only port is open.
	Reads bool
	// Candidacy and Route are what was last set, so that only changes are ordered.
	Candidacy Candidacy
	Route     Route

	// Busy is the slow action under way; empty when the worker is idle.
	Busy Kind
	// Failed is the slow action that failed last and was not repeated with
	// success since. Accepting or ending a switchover forgets it.
	Failed Failure

	Restore Restore

	Switch *Switchover
	Peers  []Peer
	// Health lists what the canaries found.
	Health []Problem

	// Stopping says that this node is going down; StopLeft is how long it may
	// still take to be polite.
	Stopping bool
	StopLeft time.Duration
}

// Lead is what the consensus says about leadership.
type Lead struct {
	Leader paxos.NodeID // zero: nobody is known
	Self   bool         // this node leads
	Ready  bool         // this leader may propose
	Lease  bool         // the leader's lease runs now
	// Lapsed is for how long a leading node has been without lease.
	Lapsed time.Duration
	// HandingOver is the node that leadership was offered to a moment ago.
	HandingOver paxos.NodeID
}

// EpochState is how far this leadership's own epoch value has come.
type EpochState uint8

// The states of an epoch. It belongs to one leadership: with a new ballot the
// state is EpochNone again.
const (
	EpochNone     EpochState = iota // not proposed
	EpochProposed                   // proposed, fate unknown
	EpochChosen                     // chosen, and read back from the log
	EpochSpent                      // a tail that was attached under it has ended
)

// Epoch is what is known about epochs.
type Epoch struct {
	State  EpochState
	Own    uint64       // the number this node proposed, from EpochProposed on
	Newest uint64       // newest epoch in the chosen log; zero: none
	Node   paxos.NodeID // the node of the newest epoch
}

// EngineState is the life of the server process.
type EngineState uint8

// The states of the server process.
const (
	EngineAbsent       EngineState = iota // no data directory yet
	EngineInitialising                    // the data directory is being made
	EngineStopped                         // ready to be started
	EngineStarting
	EngineRunning // answers the agent
	EngineStopping
	EngineCrashed // ended by itself; Wait says when it may be started again
)

// ReplicaState is the state of replication from the node's own log.
type ReplicaState uint8

// The states of replication.
const (
	ReplicaOff ReplicaState = iota
	ReplicaRunning
	ReplicaBroken // configured, but a thread has stopped
)

// Engine is what is known about the server.
type Engine struct {
	State EngineState
	// Wait is the rest of the pause after a crash, Crashes the number of them
	// without a healthy time in between, Reason what the last one said.
	Wait    time.Duration
	Crashes int
	Reason  string

	Replica      ReplicaState
	ReplicaError string
	// ReplicaWait is the rest of the pause before a broken replica is restarted.
	ReplicaWait time.Duration

	Writable bool // super_read_only is known to be off
	Events   bool // scheduled events are on, or may be
	// Dirty says that the server may hold transactions whose fate is unknown:
	// it was made writable, and not yet read-only again with all of them chosen.
	Dirty bool

	// Applied says that the server has executed everything before the epoch of
	// this leadership. It means nothing in other epoch states than EpochChosen.
	Applied bool
	// Behind counts chosen transactions that the server has not executed.
	Behind uint64
	// Lagging is for how long this leadership has waited for the server to execute
	// what precedes its epoch.
	Lagging time.Duration
	// Stranded says that the disk of the server's data was full, has room again, and
	// the server does not go on with what it lacks.
	Stranded bool
	// Errant is a GTID set that the server has and the log has not, measured
	// only when the log was caught up. Empty is well.
	Errant string
}

// Need is what a node needs besides its own log to go on.
type Need uint8

// The needs of a node.
const (
	NeedNothing Need = iota
	// NeedPlace: the other members have trimmed what this node's log lacks. The log
	// must begin anew behind what the server holds.
	NeedPlace
	// NeedCopy: the server lacks what no log has any more, or holds what the log does
	// not. It needs another member's data.
	NeedCopy
	// NeedFresh: the server cannot run on its data. They make way for new ones, which
	// the log or a copy fills.
	NeedFresh
)

// Restore is the way back of a node that cannot go on by its log alone.
type Restore struct {
	Need   Need
	Reason string
	// Ready says that a complete copy of another member's data lies beside the own.
	Ready bool
	// Unproved says that the server's data are new, and were not compared with another
	// member's yet; Proof what they wait for, empty while they are being compared.
	Unproved bool
	Proof    string
}

func (r Restore) active() bool { return r.Need != NeedNothing || r.Ready }

// Tail is the state of the one semi-sync replica of the local server.
type Tail uint8

// The states of the tail.
const (
	TailOff Tail = iota
	TailAttached
	TailFailed // ended by itself
)

// Gate is the state of the read-write port towards the local server.
type Gate uint8

// The states of the gate.
const (
	GateClosed   Gate = iota // no session reaches the local server
	GateOpen                 // sessions pass
	GateDraining             // sessions finish their transaction, new ones are held
)

// Candidacy is whether, and after what delay, a node stands for election.
type Candidacy struct {
	Able  bool
	Delay time.Duration
}

// RouteKind is where new sessions of the read-write port go.
type RouteKind uint8

// The routes of the read-write port.
const (
	RouteNone   RouteKind = iota // held, then refused: no master is known
	RouteLocal                   // to the local server
	RouteRemote                  // to the read-write port of Node
)

// Route is the destination of new sessions of the read-write port.
type Route struct {
	Kind RouteKind
	Node paxos.NodeID
}

// Failure is a slow action that failed.
type Failure struct {
	Action Kind
	Times  int           // in a row
	Wait   time.Duration // until it may be tried again
	Reason string
}

// Peer is what another member said last.
type Peer struct {
	ID     paxos.NodeID
	Role   paxos.Role
	Alive  bool // heard of recently
	Able   bool // its server is healthy
	Wary   bool // it would lead only when nobody else does
	Gate   bool // its gate is open
	Behind uint64
	// Near says that what it has executed is not old, however much it lacks: under full load
	// that is as much as is written meanwhile.
	Near bool
	// Current says that Behind counts everything that precedes the epoch of this
	// node's leadership: only then it can be compared.
	Current bool
	// Applied says that it has executed everything that this node's log holds.
	Applied bool
	// Declined says that leadership was offered to it and it did not take it,
	// a short while ago.
	Declined bool
}

// Switchover is a planned change of the master, asked of the present one.
type Switchover struct {
	Target   paxos.NodeID // zero: the best follower
	Accepted bool
	// Left is the time until the request is given up, DrainLeft until
	// transactions that are still open are cut.
	Left      time.Duration
	DrainLeft time.Duration
}

// Problem is something that is not well, with a reason and a hint for people.
type Problem struct {
	Name   string
	Reason string
	Hint   string
	// Severe makes a node unable to lead.
	Severe bool
	// Wary makes a node lead only when no other member would. With Yield, too, a
	// leader hands over to a member that is not wary.
	Wary, Yield bool
}

// current reports whether this node leads and its own epoch is the newest one.
func (v *View) current() bool {
	return v.Lead.Self && v.Epoch.State == EpochChosen && !v.superseded()
}

// superseded reports whether the newest epoch of the log is not the one that this
// node proposed.
func (v *View) superseded() bool { return v.Epoch.Own != v.Epoch.Newest || v.Epoch.Node != v.Self }

func (v *View) peer(id paxos.NodeID) (Peer, bool) {
	for _, p := range v.Peers {
		if p.ID == id {
			return p, true
		}
	}
	return Peer{}, false
}

// Helped reports that another member is well and has data.
func (v *View) Helped() bool {
	return slices.ContainsFunc(v.Peers, func(p Peer) bool {
		return p.Role != paxos.Witness && p.Alive && (p.Able || p.Gate)
	})
}

// outdone reports that a member lives whose data are proved and which could lead, or
// does.
func (v *View) outdone() bool {
	return slices.ContainsFunc(v.Peers, func(p Peer) bool {
		return p.Role == paxos.Voter && p.Alive && (p.Able && !p.Wary || p.Gate)
	})
}

// Proved returns the member that a serving leader with unproved data should give way to,
// or zero: one that is able, lacks little, and is preferred to nobody.
func (v *View) Proved() paxos.NodeID {
	if p, ok := v.peer(v.best()); ok && !p.Wary && p.close() {
		return p.ID
	}
	return 0
}

// severe returns the first health problem that forbids leading.
func (v *View) severe() (Problem, bool) {
	for _, h := range v.Health {
		if h.Severe {
			return h, true
		}
	}
	return Problem{}, false
}

// wary returns the first health problem because of which others should lead.
func (v *View) wary() (Problem, bool) {
	for _, h := range v.Health {
		if h.Wary {
			return h, true
		}
	}
	return Problem{}, false
}

// yields returns the first health problem because of which a leader gives way to a
// member that has none.
func (v *View) yields() (Problem, bool) {
	for _, h := range v.Health {
		if h.Yield {
			return h, true
		}
	}
	return Problem{}, false
}

// best returns the follower that should take over, or zero: able, alive, not wary if
// there is one, and the least behind; among equals the lowest id.
func (v *View) best() paxos.NodeID {
	return v.bestOf(func(Peer) bool { return true })
}

// bestOf is best among those that the condition holds for.
func (v *View) bestOf(suits func(Peer) bool) paxos.NodeID {
	var best Peer
	for _, p := range v.Peers {
		switch {
		case p.ID == v.Self || p.Role != paxos.Voter || !p.Alive || !p.Able || p.Declined || !suits(p):
		case best.ID == 0, p.before(best):
			best = p
		}
	}
	return best.ID
}

// further returns the best follower that has executed so much more of what precedes the
// epoch that it would serve sooner than this leader, which has waited for its own server
// long enough; or zero. What a follower lacks can only become less while nobody serves:
// each such change of the leader is to one that lacks nothing, or a quarter of it.
func (v *View) further() paxos.NodeID {
	e := v.Engine
	if !v.current() || e.Applied || e.Behind == 0 || e.Lagging < CatchUpPatience {
		return 0
	}
	_, wary := v.wary()
	return v.bestOf(func(p Peer) bool {
		enough := p.Behind == 0 || p.Behind <= e.Behind/4 && e.Behind-p.Behind >= FurtherBy
		return p.Current && enough && (wary || !p.Wary)
	})
}

// before reports whether p is a better leader than another able follower.
func (p Peer) before(o Peer) bool {
	switch {
	case p.Wary != o.Wary:
		return !p.Wary
	case p.Behind != o.Behind:
		return p.Behind < o.Behind
	}
	return p.ID < o.ID
}
