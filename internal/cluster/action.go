package cluster

import (
	"fmt"
	"time"

	"github.com/phxsql/phxsql/paxos"
)

// Kind names an action; also the word that stories and logs use for it.
type Kind string

// The kinds of actions.
const (
	KindInitEngine    Kind = "init_engine"
	KindStartEngine   Kind = "start_engine"
	KindStopEngine    Kind = "stop_engine"
	KindKillEngine    Kind = "kill_engine"
	KindStartReplica  Kind = "start_replica"
	KindStopReplica   Kind = "stop_replica"
	KindProposeEpoch  Kind = "propose_epoch"
	KindAttachTail    Kind = "attach_tail"
	KindDetachTail    Kind = "detach_tail"
	KindMakeWritable  Kind = "make_writable"
	KindMakeReadOnly  Kind = "make_read_only"
	KindEnableEvents  Kind = "enable_events"
	KindDisableEvents Kind = "disable_events"
	KindOpenGate      Kind = "open_gate"
	KindCloseGate     Kind = "close_gate"
	KindDrain         Kind = "drain"
	KindOpenReads     Kind = "open_reads"
	KindCloseReads    Kind = "close_reads"
	KindHandOver      Kind = "hand_over"
	KindSetCandidacy  Kind = "set_candidacy"
	KindRouteTo       Kind = "route_to"
	KindAcceptSwitch  Kind = "accept_switchover"
	KindEndSwitch     Kind = "end_switchover"
	KindReport        Kind = "report"
	KindPlaceLog      Kind = "place_log"
	KindFetchCopy     Kind = "fetch_copy"
	KindAdoptCopy     Kind = "adopt_copy"
	KindSetAside      Kind = "set_aside"
)

// Slow reports whether actions of the kind take long. They are carried out one
// at a time; all others are carried out at once, in the order given.
func (k Kind) Slow() bool {
	switch k {
	case KindInitEngine, KindStartEngine, KindStopEngine, KindStartReplica, KindStopReplica,
		KindAttachTail, KindDetachTail, KindMakeWritable, KindMakeReadOnly, KindEnableEvents, KindDisableEvents,
		KindPlaceLog, KindFetchCopy, KindAdoptCopy, KindSetAside:
		return true
	}
	return false
}

// Action is one thing to do. The set of actions is closed.
type Action interface {
	Kind() Kind
	fmt.Stringer
}

type (
	// InitEngine makes the server's data directory.
	InitEngine struct{}
	// StartEngine starts the server by the restart recipe.
	StartEngine struct{}
	// StopEngine ends a server that holds nothing of unknown fate, politely.
	StopEngine struct{}
	// KillEngine ends the server at once, with SIGKILL, and gives up the slow
	// action under way.
	KillEngine struct{ Reason string }
	// StartReplica makes the server follow the node's own log.
	StartReplica struct{}
	// StopReplica stops following. What is configured stays, and is replaced by
	// the next StartReplica: to forget it would only cost time in a failover.
	StopReplica struct{}
	// ProposeEpoch proposes the epoch value of this leadership.
	ProposeEpoch struct{ Number uint64 }
	// AttachTail attaches the semi-sync replica, announcing exactly the chosen set.
	AttachTail struct{ Epoch uint64 }
	// DetachTail ends the tail, or cleans up one that has ended.
	DetachTail struct{}
	// MakeWritable ends super_read_only.
	MakeWritable struct{}
	// MakeReadOnly sets super_read_only. It returns when no commit waits any more.
	MakeReadOnly struct{}
	// EnableEvents lets scheduled events run here.
	EnableEvents struct{}
	// DisableEvents is the reverse.
	DisableEvents struct{}
	// OpenGate lets sessions of the read-write port pass to the local server.
	OpenGate struct{}
	// CloseGate cuts all sessions of the read-write port at once.
	CloseGate struct{ Reason string }
	// Drain lets sessions finish their transactions and holds new ones.
	Drain struct{}
	// OpenReads lets sessions of the read-only port pass.
	OpenReads struct{}
	// CloseReads cuts all sessions of the read-only port.
	CloseReads struct{ Reason string }
	// HandOver offers leadership to another member.
	HandOver struct {
		To     paxos.NodeID
		Reason string
	}
	// SetCandidacy tells the consensus whether this node may lead.
	SetCandidacy struct{ Candidacy Candidacy }
	// RouteTo says where new sessions of the read-write port go.
	RouteTo struct{ Route Route }
	// AcceptSwitchover begins a requested switchover to a target that was checked.
	AcceptSwitchover struct{ Target paxos.NodeID }
	// EndSwitchover ends one. A Problem without name is success.
	EndSwitchover struct{ Problem Problem }
	// PlaceLog makes the node's log begin behind what the server holds.
	PlaceLog struct{}
	// FetchCopy gets another member's data and lays them beside the server's own.
	FetchCopy struct{ Reason string }
	// AdoptCopy puts the copy in the place of the server's data, which are kept aside.
	AdoptCopy struct{}
	// SetAside puts new, empty data in the place of those that the server cannot run
	// on, which are kept aside.
	SetAside struct{ Reason string }
	// Report names a problem that exists now. What is not reported again is over.
	Report struct{ Problem Problem }
)

// Kind returns KindInitEngine.
func (InitEngine) Kind() Kind { return KindInitEngine }

// Kind returns KindStartEngine.
func (StartEngine) Kind() Kind { return KindStartEngine }

// Kind returns KindStopEngine.
func (StopEngine) Kind() Kind { return KindStopEngine }

// Kind returns KindKillEngine.
func (KillEngine) Kind() Kind { return KindKillEngine }

// Kind returns KindStartReplica.
func (StartReplica) Kind() Kind { return KindStartReplica }

// Kind returns KindStopReplica.
func (StopReplica) Kind() Kind { return KindStopReplica }

// Kind returns KindProposeEpoch.
func (ProposeEpoch) Kind() Kind { return KindProposeEpoch }

// Kind returns KindAttachTail.
func (AttachTail) Kind() Kind { return KindAttachTail }

// Kind returns KindDetachTail.
func (DetachTail) Kind() Kind { return KindDetachTail }

// Kind returns KindMakeWritable.
func (MakeWritable) Kind() Kind { return KindMakeWritable }

// Kind returns KindMakeReadOnly.
func (MakeReadOnly) Kind() Kind { return KindMakeReadOnly }

// Kind returns KindEnableEvents.
func (EnableEvents) Kind() Kind { return KindEnableEvents }

// Kind returns KindDisableEvents.
func (DisableEvents) Kind() Kind { return KindDisableEvents }

// Kind returns KindOpenGate.
func (OpenGate) Kind() Kind { return KindOpenGate }

// Kind returns KindCloseGate.
func (CloseGate) Kind() Kind { return KindCloseGate }

// Kind returns KindDrain.
func (Drain) Kind() Kind { return KindDrain }

// Kind returns KindOpenReads.
func (OpenReads) Kind() Kind { return KindOpenReads }

// Kind returns KindCloseReads.
func (CloseReads) Kind() Kind { return KindCloseReads }

// Kind returns KindHandOver.
func (HandOver) Kind() Kind { return KindHandOver }

// Kind returns KindSetCandidacy.
func (SetCandidacy) Kind() Kind { return KindSetCandidacy }

// Kind returns KindRouteTo.
func (RouteTo) Kind() Kind { return KindRouteTo }

// Kind returns KindAcceptSwitch.
func (AcceptSwitchover) Kind() Kind { return KindAcceptSwitch }

// Kind returns KindEndSwitch.
func (EndSwitchover) Kind() Kind { return KindEndSwitch }

// Kind returns KindReport.
func (Report) Kind() Kind { return KindReport }

// Kind returns KindPlaceLog.
func (PlaceLog) Kind() Kind { return KindPlaceLog }

// Kind returns KindFetchCopy.
func (FetchCopy) Kind() Kind { return KindFetchCopy }

// Kind returns KindAdoptCopy.
func (AdoptCopy) Kind() Kind { return KindAdoptCopy }

// Kind returns KindSetAside.
func (SetAside) Kind() Kind { return KindSetAside }

func (a SetAside) String() string      { return fmt.Sprintf("%s reason=%q", a.Kind(), a.Reason) }
func (a PlaceLog) String() string      { return string(a.Kind()) }
func (a FetchCopy) String() string     { return fmt.Sprintf("%s reason=%q", a.Kind(), a.Reason) }
func (a AdoptCopy) String() string     { return string(a.Kind()) }
func (a InitEngine) String() string    { return string(a.Kind()) }
func (a StartEngine) String() string   { return string(a.Kind()) }
func (a StopEngine) String() string    { return string(a.Kind()) }
func (a KillEngine) String() string    { return fmt.Sprintf("%s reason=%q", a.Kind(), a.Reason) }
func (a StartReplica) String() string  { return string(a.Kind()) }
func (a StopReplica) String() string   { return string(a.Kind()) }
func (a ProposeEpoch) String() string  { return fmt.Sprintf("%s number=%d", a.Kind(), a.Number) }
func (a AttachTail) String() string    { return fmt.Sprintf("%s epoch=%d", a.Kind(), a.Epoch) }
func (a DetachTail) String() string    { return string(a.Kind()) }
func (a MakeWritable) String() string  { return string(a.Kind()) }
func (a MakeReadOnly) String() string  { return string(a.Kind()) }
func (a EnableEvents) String() string  { return string(a.Kind()) }
func (a DisableEvents) String() string { return string(a.Kind()) }
func (a OpenGate) String() string      { return string(a.Kind()) }
func (a CloseGate) String() string     { return fmt.Sprintf("%s reason=%q", a.Kind(), a.Reason) }
func (a Drain) String() string         { return string(a.Kind()) }
func (a OpenReads) String() string     { return string(a.Kind()) }
func (a CloseReads) String() string    { return fmt.Sprintf("%s reason=%q", a.Kind(), a.Reason) }
func (a HandOver) String() string {
	return fmt.Sprintf("%s to=%d reason=%q", a.Kind(), a.To, a.Reason)
}
func (a SetCandidacy) String() string {
	return fmt.Sprintf("%s able=%v delay=%v", a.Kind(), a.Candidacy.Able, a.Candidacy.Delay.Round(time.Millisecond))
}
func (a RouteTo) String() string          { return fmt.Sprintf("%s %s", a.Kind(), a.Route) }
func (a AcceptSwitchover) String() string { return fmt.Sprintf("%s target=%d", a.Kind(), a.Target) }
func (a EndSwitchover) String() string {
	if a.Problem.Name == "" {
		return fmt.Sprintf("%s done", a.Kind())
	}
	return fmt.Sprintf("%s failed=%s reason=%q", a.Kind(), a.Problem.Name, a.Problem.Reason)
}
func (a Report) String() string {
	return fmt.Sprintf("%s %s reason=%q", a.Kind(), a.Problem.Name, a.Problem.Reason)
}

func (r Route) String() string {
	switch r.Kind {
	case RouteLocal:
		return "local"
	case RouteRemote:
		return fmt.Sprintf("remote node=%d", r.Node)
	}
	return "none"
}
