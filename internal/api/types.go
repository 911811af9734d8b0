package api

import (
	"fmt"
	"strconv"
	"time"

	"github.com/phxsql/phxsql/internal/telemetry"
	"github.com/phxsql/phxsql/paxos"
)

// Seconds is a length of time that is written as a decimal number of seconds.
type Seconds time.Duration

// MarshalJSON writes the seconds with millisecond precision.
func (s Seconds) MarshalJSON() ([]byte, error) {
	return strconv.AppendFloat(nil, time.Duration(s).Seconds(), 'f', 3, 64), nil
}

// UnmarshalJSON reads a number of seconds.
func (s *Seconds) UnmarshalJSON(b []byte) error {
	f, err := strconv.ParseFloat(string(b), 64)
	if err != nil || f != f || f > 1e9 || f < -1e9 {
		return fmt.Errorf("read seconds: %q is not a number of seconds", b)
	}
	*s = Seconds(f * float64(time.Second))
	return nil
}

// Problem says that something is not well: a constant name for programs, the
// reason for people, and what to do next.
type Problem struct {
	Name   string `json:"name"`
	Reason string `json:"reason"`
	Hint   string `json:"hint,omitempty"`
}

// State is what a member is doing, in one word.
type State string

// The states of a member.
const (
	StateBlank     State = "blank"     // belongs to no cluster yet; waits for init
	StateJoining   State = "joining"   // on its way into a cluster
	StateRemoved   State = "removed"   // was a member, and is none any more
	StateWitness   State = "witness"   // votes and keeps the log; has no server
	StateStarting  State = "starting"  // the agent or its mysqld is coming up
	StateProving   State = "proving"   // replicates, and its new data are compared with the master's before they are read
	StateFollower  State = "follower"  // replicates
	StatePromoting State = "promoting" // leads, and applies what is left before it opens
	StateMaster    State = "master"    // takes writes
	StateDemoting  State = "demoting"  // was master; its gate is closed, not yet a follower
	StateFaulty    State = "faulty"    // cannot do its work; see its problems
	StateUnknown   State = "unknown"   // not heard from
)

// Status is one node's view of the whole cluster.
type Status struct {
	// Cluster is the identity of the cluster; empty on a blank node.
	Cluster string `json:"cluster"`
	// Self is the node that answered.
	Self paxos.NodeID `json:"self"`
	// Time is when it answered, by its clock.
	Time time.Time `json:"time"`
	// Members are ascending by id. What is said of the others is what they
	// announced last. A blank node knows only itself.
	Members []MemberStatus `json:"members"`
	// Problems are those of the cluster, such as "no master". Those of one
	// member stand with that member.
	Problems []Problem `json:"problems"`
}

// MemberStatus is the state of one member.
type MemberStatus struct {
	ID   paxos.NodeID `json:"id"`
	Name string       `json:"name"`
	// Role is voter, witness or learner.
	Role string `json:"role"`
	// Boot is drawn at each start of the member's agent: two that differ tell that it
	// was started anew.
	Boot string `json:"boot,omitempty"`
	// Alive reports that the member was heard from lately. The one that answers
	// is always alive.
	Alive bool `json:"alive"`
	// Heard is the time since the member was last heard from; 0 for the one
	// that answers, negative if never.
	Heard Seconds `json:"heard_seconds"`
	State State   `json:"state"`
	// Master reports that the member's gate is open: it takes writes now.
	Master bool `json:"master"`
	// Epoch is the newest epoch that the member knows: it rises by one with
	// every new master.
	Epoch uint64 `json:"epoch"`
	Lease Lease  `json:"lease"`
	Log   Log    `json:"log"`
	// LagTransactions are chosen but not yet in the member's engine.
	LagTransactions uint64 `json:"lag_transactions"`
	// LagSeconds is the age of the oldest of them; 0 if there is none.
	LagSeconds Seconds `json:"lag_seconds"`
	Engine     Engine  `json:"engine"`
	// Commit is how long the master's commits wait for a majority: 95 of 100 of the
	// last second took at most this. 0 elsewhere, and when there were none.
	Commit Seconds `json:"commit_seconds,omitempty"`
	// Flow is there on a master that holds commits up, or has.
	Flow *Flow `json:"flow,omitempty"`
	// Copy is there while the member gets another one's data.
	Copy *Copy `json:"copy,omitempty"`
	// The addresses are those that others should use.
	RWAddr    string    `json:"rw_addr"`
	ROAddr    string    `json:"ro_addr"`
	PeerAddr  string    `json:"peer_addr"`
	AdminAddr string    `json:"admin_addr"`
	Problems  []Problem `json:"problems"`
	// CertificateExpires is when the certificate ends that the member shows now. It
	// renews it by itself, long before. Zero for a release whose certificates do not end.
	CertificateExpires time.Time `json:"certificate_expires,omitzero"`
	// SettingsAt is where the newest change of the settings stands that the member
	// works by, 0 if there is none. It is not there for a release without settings.
	SettingsAt *paxos.Instance `json:"settings_at,omitempty"`
	// AccountsAt is where the newest rotation of the agents' accounts stands that the
	// member has carried out; 0 if there was none.
	AccountsAt paxos.Instance `json:"accounts_at,omitempty"`
}

// Lease is a member's view of the lease.
type Lease struct {
	// Holder is whom the member believes to lead; 0 is nobody.
	Holder paxos.NodeID `json:"holder"`
	// Remaining is how long it still runs unless it is renewed. Only the holder
	// itself knows it; 0 elsewhere.
	Remaining Seconds `json:"remaining_seconds"`
}

// Log is a member's position in the replicated log.
type Log struct {
	First   paxos.Instance `json:"first"`   // oldest instance kept
	Chosen  paxos.Instance `json:"chosen"`  // newest instance known to be chosen, and readable here
	Applied paxos.Instance `json:"applied"` // newest instance that the engine has executed, with all before it
	Bytes   int64          `json:"bytes"`   // size on disk; 0 if not known
	// Held is the newest instance that the member does not need from any log: its
	// engine has it on its disk, with all before it.
	Held paxos.Instance `json:"held"`
	// HeldBy are the members that keep this one from trimming more.
	HeldBy []paxos.NodeID `json:"held_by,omitempty"`
}

// Engine is the state of a member's mysqld.
type Engine struct {
	// State is a word such as running, starting, stopped, backing-off, none.
	State        string `json:"state"`
	Version      string `json:"version"`
	GTIDExecuted string `json:"gtid_executed"`
	// Reason says why it is not running; empty while it is.
	Reason string `json:"reason,omitempty"`
	PID    int    `json:"pid,omitempty"`
}

// Flow is how a master holds up commits so that the best follower keeps up, and so that a
// member with new data catches up: see the setting flow.max_lag.
type Flow struct {
	// Lag is how far the best follower that could be the next master is behind.
	Lag Seconds `json:"lag_seconds"`
	// Rate is what the master takes in at most, in bytes per second; 0 is no limit.
	Rate int64 `json:"rate"`
	// For is the member with new data that the rate is for; 0 is the best follower.
	For paxos.NodeID `json:"for,omitempty"`
	// Waited is how long values of the log were held up, since the node's start.
	Waited Seconds `json:"waited_seconds"`
}

// Copy is the way of a member's new data, another one's mostly, to one that needs them.
type Copy struct {
	// Phase is executing: the log brings the data, no copy does; copying; applying: the data are there, the rest of the log is not; or
	// proving: the rows are compared with the master's.
	Phase string       `json:"phase"`
	Donor paxos.NodeID `json:"donor"`
	Bytes int64        `json:"bytes"` // received, or executed
	Total int64        `json:"total"` // what the donor's data take, or there is to execute
	Rate  int64        `json:"rate"`  // bytes per second
	// Remaining is how long the phase will still take at its present rate.
	Remaining Seconds `json:"remaining_seconds"`
	// Why tells what decided between the log and a copy; empty where there was no choice.
	Why string `json:"why,omitempty"`
	// Rows were compared so far, of about RowsTotal.
	Rows      uint64 `json:"rows,omitempty"`
	RowsTotal int64  `json:"rows_total,omitempty"`
}

// InitRequest makes blank nodes a cluster.
type InitRequest struct {
	// Members are all members of the new cluster, the asked node among them.
	Members []InitMember `json:"members"`
	// User is the name of the first account for clients; empty makes none.
	User string `json:"user,omitempty"`
	// Password is that account's; empty has one drawn, which InitResult tells.
	Password string `json:"password,omitempty"`
}

// InitMember names a member of a new cluster.
type InitMember struct {
	ID paxos.NodeID `json:"id"`
	// Peer is the address, host:port, where the member's peers reach it.
	Peer string `json:"peer"`
	// Name is for people; empty takes the name in the member's configuration.
	Name string `json:"name,omitempty"`
}

// InitResult tells what was made.
type InitResult struct {
	Cluster string       `json:"cluster"`
	Members []InitMember `json:"members"`
	User    string       `json:"user,omitempty"`
	// Password is there only if it was drawn. It is not kept anywhere.
	Password string `json:"password,omitempty"`
}

// SwitchoverRequest asks for a new master.
type SwitchoverRequest struct {
	// To is the name or the id of the member that is to be master; empty lets
	// the cluster choose.
	To string `json:"to"`
}

func (r *SwitchoverRequest) check() error { return nil }
func (r *SwitchoverRequest) note() []any  { return []any{telemetry.KeyTo, r.To} }

// SwitchoverResult tells how it went.
type SwitchoverResult struct {
	// Took is the time from the request to the new master's first service.
	Took Seconds `json:"took_seconds"`
}

// LogEntry is one entry of the replicated log, readable.
type LogEntry struct {
	Instance paxos.Instance `json:"instance"`
	// Ballot is that under which the entry was accepted here, round.node.
	Ballot string `json:"ballot"`
	// Kind is noop, membership, epoch, transactions, chunk, or unreadable.
	Kind string `json:"kind"`
	// Bytes is the length of the entry's data.
	Bytes int `json:"bytes"`
	// Epoch and Node are those of the master that wrote the value.
	Epoch uint64       `json:"epoch,omitempty"`
	Node  paxos.NodeID `json:"node,omitempty"`
	// ServerUUID is that of an epoch's master.
	ServerUUID string `json:"server_uuid,omitempty"`
	// Void reports that the value does not count: a deposed master wrote it.
	// It is left out where it cannot be told, as in a range that starts after
	// the epoch.
	Void         *bool    `json:"void,omitempty"`
	Transactions []LogTxn `json:"transactions,omitempty"`
	// Last reports that a chunk is the last one of its transaction.
	Last bool `json:"last,omitempty"`
	// Detail is whatever else is worth saying, such as the members of a
	// membership.
	Detail string `json:"detail,omitempty"`
}

// LogTxn is one transaction of an entry.
type LogTxn struct {
	GTID  string `json:"gtid"`
	Bytes int    `json:"bytes"`
}

// Health is the answer of /healthz.
type Health struct {
	OK    bool  `json:"ok"`
	State State `json:"state"`
}
