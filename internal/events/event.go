// Package events is the journal of what happened to a cluster and why: its
// entries, a bounded book of the newest ones, and the account of each change of
// the master that is made of them.
//
// It is values and functions: no clock, no file, no goroutine. Package agent
// notices what happens, carries events through the log, and keeps the book on disk.
//
// Invariants: an event has one id for ever, so that one which is proposed twice is
// one event; its size is bounded; a reader passes over fields and kinds that it
// does not know.
package events

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/phxsql/phxsql/paxos"
)

// Kind says what happened.
type Kind string

// The kinds of events. Programs compare them; they never change.
const (
	// Began: a node became the master of an epoch and let clients in.
	Began Kind = "began"
	// FirstCommit: the first transaction of a client in an epoch was chosen.
	FirstCommit Kind = "first_commit"
	// Ended: a master closed its gate, by its own word.
	Ended Kind = "ended"
	// Returned: a node is back that was the master when its last life ended.
	Returned Kind = "returned"
	// Discarded: a node took back what had never been chosen.
	Discarded Kind = "discarded"
	// Crashed: the server of a node that was not the master ended by itself.
	Crashed Kind = "crashed"
	// SwitchAsked and SwitchFailed: an operator's wish for another master, and why it
	// was not fulfilled.
	SwitchAsked  Kind = "switchover_asked"
	SwitchFailed Kind = "switchover_failed"
	// Unfit: a node cannot be master for a reason that lasts.
	Unfit Kind = "unfit"
	// Rebuilt: a node got another member's data.
	Rebuilt Kind = "rebuilt"
	// Audited: the members compared their rows. Diverged: a member's rows differ.
	Audited  Kind = "audited"
	Diverged Kind = "diverged"
)

// Cause names why a reign ended, for programs.
type Cause string

// The causes of the end of a reign.
const (
	CauseSwitchover Cause = "switchover"      // an operator asked for it
	CauseStop       Cause = "stopped"         // the node was told to stop
	CauseServer     Cause = "server_died"     // mysqld ended by itself
	CauseTail       Cause = "tail_ended"      // mysqld's binlog could not be read any more
	CauseLease      Cause = "lease_expired"   // the majority did not answer in time
	CauseDeposed    Cause = "deposed"         // another member leads
	CauseHealth     Cause = "unhealthy"       // a canary failed: disk, stalled server
	CauseDiverged   Cause = "diverged"        // its rows are not those of the log
	CauseRemoved    Cause = "removed"         // it does not vote any more
	CausePromotion  Cause = "handed_over"     // it gave leadership away for another reason
	CauseAgent      Cause = "agent_died"      // the agent's process ended without a word
	CauseMachine    Cause = "machine_down"    // the machine started anew
	CauseSilent     Cause = "silent"          // others saw: connected, but nothing more came
	CauseRefused    Cause = "not_running"     // others saw: nobody listens there
	CauseCutOff     Cause = "unreachable"     // others saw: no way there
	CauseFirst      Cause = "first"           // there was no master before
	CauseUnknown    Cause = "not_known"       // no member led since the new master's agent started
	CauseGaveAway   Cause = "gave_leadership" // others saw: it named its successor
)

// Phase is one step of the way to an open gate.
type Phase struct {
	Name string        `json:"name"`
	Took time.Duration `json:"took_ns"`
}

// Discard is what became of transactions that a node took back.
type Discard struct {
	Count uint64 `json:"count"`
	// GTIDs is the set, cut if it is very long; Chosen how many more of the same
	// binlog are in the log and count.
	GTIDs  string `json:"gtids"`
	Chosen uint64 `json:"chosen"`
	// Through is the instance through which the log was known when it was compared.
	Through paxos.Instance `json:"through"`
	// InEngine counts those of the set that the engine holds, if EngineKnown. AckKnown says
	// that the last acknowledged position of the binlog was known, and BeforeAck counts those
	// of the set that stand before it. Both are 0 if nothing acknowledged was taken back.
	InEngine    uint64 `json:"in_engine"`
	EngineKnown bool   `json:"engine_known"`
	AckKnown    bool   `json:"ack_known"`
	BeforeAck   uint64 `json:"before_ack"`
	// Evidence is the folder with them on the node; Cut says that the file there
	// does not hold all of them.
	Evidence string `json:"evidence,omitempty"`
	Cut      bool   `json:"cut,omitempty"`
}

// Clean reports whether nothing acknowledged was among what was taken back.
func (d *Discard) Clean() bool { return d.InEngine == 0 && d.BeforeAck == 0 }

// Audit is the outcome of a comparison of rows.
type Audit struct {
	Round  uint64         `json:"round"`
	At     paxos.Instance `json:"at,omitempty"`
	Tables int            `json:"tables"`
	Rows   uint64         `json:"rows"`
	// Table and Range name the first place that differs.
	Table  string         `json:"table,omitempty"`
	Range  string         `json:"range,omitempty"`
	Differ []string       `json:"differ,omitempty"`
	Nodes  []paxos.NodeID `json:"nodes,omitempty"` // that answered, or that differ
}

// Event is one thing that happened. At is by the clock of Node.
type Event struct {
	ID     string       `json:"id"`
	At     time.Time    `json:"at"`
	Node   paxos.NodeID `json:"node"`
	Kind   Kind         `json:"kind"`
	Epoch  uint64       `json:"epoch,omitempty"`
	Cause  Cause        `json:"cause,omitempty"`
	Reason string       `json:"reason,omitempty"` // for people
	// Peer is the other node that it is about: of Began the last master, of Ended the
	// successor if one was named.
	Peer    paxos.NodeID  `json:"peer,omitempty"`
	Took    time.Duration `json:"took_ns,omitempty"`
	Phases  []Phase       `json:"phases,omitempty"`
	GTID    string        `json:"gtid,omitempty"`
	Discard *Discard      `json:"discard,omitempty"`
	Audit   *Audit        `json:"audit,omitempty"`

	// Instance is where it stands in the log; 0 while it is only on the disk of its
	// node. It is no part of the event in the log.
	Instance paxos.Instance `json:"instance,omitempty"`
}

// The limits of an event. What is longer is cut.
const (
	MaxEvent  = 16 << 10
	maxReason = 1 << 10
	maxGTIDs  = 8 << 10
	maxPhases = 24
	maxList   = 32
)

// ID names the n-th event of one life of a node.
func ID(node paxos.NodeID, boot string, n uint64) string {
	return strconv.FormatUint(uint64(node), 10) + "-" + clip(boot, 32) + "-" + strconv.FormatUint(n, 10)
}

// Encode returns the event as it stands in the log, cut to its limits.
func (e Event) Encode() []byte {
	e.Instance = 0
	e.Reason = clip(e.Reason, maxReason)
	e.Phases = e.Phases[:min(len(e.Phases), maxPhases)]
	if e.Discard != nil {
		d := *e.Discard
		d.GTIDs, d.Evidence = clip(d.GTIDs, maxGTIDs), clip(d.Evidence, maxReason)
		e.Discard = &d
	}
	if e.Audit != nil {
		a := *e.Audit
		a.Differ, a.Nodes = a.Differ[:min(len(a.Differ), maxList)], a.Nodes[:min(len(a.Nodes), maxList)]
		a.Table, a.Range = clip(a.Table, maxReason), clip(a.Range, maxReason)
		e.Audit = &a
	}
	b, err := json.Marshal(e)
	if err != nil {
		panic(fmt.Sprintf("events: encode: %v", err)) // our own type: cannot fail
	}
	return b
}

// Decode reads what Encode wrote, at whatever instance it stands.
func Decode(text []byte, at paxos.Instance) (Event, error) {
	var e Event
	if len(text) > MaxEvent {
		return e, fmt.Errorf("decode event: %d bytes, the limit is %d", len(text), MaxEvent)
	}
	if err := json.Unmarshal(text, &e); err != nil {
		return e, fmt.Errorf("decode event: %w", err)
	}
	if e.ID == "" || e.Node == 0 || e.Kind == "" {
		return e, fmt.Errorf("decode event: it has no id, node or kind")
	}
	e.Instance = at
	return e, nil
}

func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return s[:n] + "..."
}
