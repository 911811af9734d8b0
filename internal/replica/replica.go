// Package replica carries out the effects of one paxos.Core on a log and an
// outbox, in the order that safety needs: records are appended before anything
// that depends on them, vows are opened only after the log was synced, proposers
// hear of a value only after it was chosen in their own term.
//
// It is synchronous: no goroutines, no clock, no sockets. internal/host runs it
// in production and internal/sim in simulation; both run this very code.
package replica

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/phxsql/phxsql/paxos"
	"github.com/phxsql/phxsql/wal"
)

// ErrTermLost is given to proposers whose value may or may not be chosen: this
// member stopped leading before it knew.
var ErrTermLost = errors.New("leadership was lost before the value was known to be chosen: its outcome is unknown")

// ErrOldSnapshot refuses a snapshot of what the member has already.
var ErrOldSnapshot = errors.New("the member's log is not behind this snapshot")

// Reader is what Recover needs of a log.
type Reader interface {
	Read(group wal.Group, index uint64) ([]byte, error)
	State(group wal.Group, key uint8) ([]byte, bool)
	Bounds(group wal.Group) (first, last uint64)
	Trimmed(group wal.Group) uint64
}

// Log is the part of a wal.Log that a replica uses.
type Log interface {
	Reader
	Append(recs ...wal.Record) (wal.LSN, error)
	TrimBelow(group wal.Group, index uint64)
}

// maxRecordHead is the most bytes of a record besides its data.
const maxRecordHead = 64

// Keys of a group's states in the log.
const (
	stateBallot   = 1 // promised ballot: round u64, node u64
	stateChosen   = 2 // chosen through: u64
	stateMembers  = 3 // newest valid membership: instance at which it was chosen u64, paxos.Members as JSON
	stateSnapshot = 4 // newest snapshot installed: what it stands for ends here u64, paxos.Members valid behind it as JSON
	stateLease    = 5 // longest lease that may have been granted: nanoseconds u64
)

// Done is called once for a proposed value: with the instance at which it was
// chosen, or with an error that says that its outcome is unknown.
type Done func(i paxos.Instance, err error)

type waiter struct {
	instance paxos.Instance
	done     Done
}

// promise is what the replica owes once the log is durable through lsn.
type promise struct {
	lsn  wal.LSN
	vows []paxos.Vow
}

// Replica is one member of one group. It is not safe for concurrent use.
type Replica struct {
	group wal.Group
	self  paxos.NodeID
	log   Log
	core  *paxos.Core

	rotten      map[paxos.Instance]bool // chosen entries that the log has lost
	rottenAsked paxos.Time
	rottenNext  paxos.Instance // others are asked for what is rotten from here on

	appended wal.LSN
	owed     []promise
	waiters  []waiter // ascending by instance, all of term
	term     paxos.Ballot
	out      Output
	given    Output // by the last Flush
	buf      []byte
	recs     []wal.Record
}

// Told is the answer to one proposer. Call it once what it tells is visible.
type Told struct {
	done     Done
	instance paxos.Instance
	err      error
}

// Tell calls the proposer.
func (t Told) Tell() { t.done(t.instance, t.err) }

// Output is what the shell carries out after a Flush, in this order: publish
// Leadership, Lease and Chosen, send Messages, answer the proposers in Told.
// Sync asks for a sync of the log, after which the shell calls Synced.
type Output struct {
	Told       []Told
	Messages   []paxos.Message
	Chosen     []paxos.Entry
	Reads      []paxos.ReadIndex
	Mended     []paxos.Instance // damaged entries that were written anew
	Sync       bool
	Leadership paxos.Leadership
	Lease      paxos.Time // end of this member's own lease, 0 for none
	Members    *paxos.Members
}

// Bootstrap writes the membership as the first value of an empty group. It is
// accepted here, not chosen: the members decide on it when they meet.
func Bootstrap(log Log, group wal.Group, self paxos.NodeID, ms paxos.Members) error {
	if err := ms.Check(); err != nil {
		return fmt.Errorf("bootstrap group %d: %w", group, err)
	}
	if _, last := log.Bounds(group); last != 0 {
		return fmt.Errorf("bootstrap group %d: its log is not empty", group)
	}
	e := paxos.Entry{Instance: 1, Ballot: paxos.Ballot{Round: 0, Node: self}, Kind: paxos.Membership, Data: ms.Encode()}
	_, err := log.Append(wal.Record{Group: group, Kind: wal.KindEntry, Index: 1, Payload: paxos.AppendEntry(nil, e)})
	if err != nil {
		return fmt.Errorf("bootstrap group %d: %w", group, err)
	}
	return nil
}

// Open starts a member from what the log remembers of the group.
func Open(log Log, group wal.Group, cfg paxos.Config, now paxos.Time) (*Replica, error) {
	st, err := Recover(log, group)
	if err != nil {
		return nil, err
	}
	forget(log, group)
	return &Replica{group: group, self: cfg.Self, log: log, core: paxos.New(cfg, st, now)}, nil
}

// Core gives read access to the protocol's state.
func (r *Replica) Core() *paxos.Core { return r.core }

// Deadline is when the next tick is due.
func (r *Replica) Deadline() paxos.Time { return r.core.Deadline() }

// Step takes in an event. Its effects are carried out by the next Flush.
func (r *Replica) Step(now paxos.Time, ev paxos.Event) {
	if len(r.rotten) > 0 {
		r.stepRotten(now, &ev)
	}
	r.core.Step(now, ev)
}

// Room reports whether Propose may be called.
func (r *Replica) Room() bool { return r.core.Room() }

// Propose gives the next instance to a value. Room must be true.
func (r *Replica) Propose(now paxos.Time, data []byte, done Done) {
	r.noteTerm()
	r.core.Step(now, paxos.Event{Kind: paxos.EventPropose, Data: data})
	r.waiters = append(r.waiters, waiter{r.core.LastProposed(), done})
}

// noteTerm fails those who wait for a term that is over.
func (r *Replica) noteTerm() {
	t := r.core.Leadership().Term
	if t == r.term {
		return
	}
	r.term = t
	r.lose()
}

func (r *Replica) lose() {
	for _, w := range r.waiters {
		r.out.Told = append(r.out.Told, Told{w.done, 0, ErrTermLost})
	}
	r.waiters = nil
}

// Flush carries out what all steps since the last Flush want. An error is one
// of the log, and final: what could not be appended is gone from the core. Chosen and
// Told are valid until the next Flush, which uses their memory again; Messages may be kept.
func (r *Replica) Flush(now paxos.Time) (Output, error) {
	r.given.Chosen, r.given.Told = again(r.given.Chosen), again(r.given.Told)
	for {
		eff := r.core.Take()
		if eff.Empty() {
			break
		}
		if err := r.carryOut(now, &eff); err != nil {
			return Output{}, err
		}
	}
	r.noteTerm()
	out := r.out
	r.out = Output{Chosen: r.given.Chosen, Told: r.given.Told}
	r.given = Output{Chosen: out.Chosen, Told: out.Told}
	out.Leadership = r.core.Leadership()
	out.Lease = r.core.LeaseEnd()
	return out, nil
}

// maxAgain limits the elements of memory that is used again: a burst must not be kept.
const maxAgain = 1024

// again returns an empty slice in the memory of one whose elements are done with.
func again[E any](s []E) []E {
	clear(s)
	if cap(s) > maxAgain {
		return nil
	}
	return s[:0]
}

func (r *Replica) carryOut(now paxos.Time, eff *paxos.Effects) error {
	if err := r.persist(eff); err != nil {
		return err
	}
	if len(eff.Vows) > 0 {
		r.owed = append(r.owed, promise{r.appended, eff.Vows})
		r.out.Sync = true
	}
	for i := range eff.Free {
		r.send(now, eff.Free[i])
	}
	for _, f := range eff.Fetches {
		r.fetch(now, f)
	}
	r.noteTerm() // before Chosen: a lost term knows nothing about its values
	r.out.Chosen = append(r.out.Chosen, eff.Chosen...)
	for i := range eff.Chosen {
		r.tell(eff.Chosen[i].Instance)
	}
	r.out.Reads = append(r.out.Reads, eff.Reads...)
	if eff.Members != nil {
		r.out.Members = eff.Members
	}
	return nil
}

// persist appends the records, in order.
func (r *Replica) persist(eff *paxos.Effects) error {
	if len(eff.Records) == 0 {
		return nil
	}
	r.recs = r.recs[:0]
	// The buffer must not move while records point into it.
	if need := maxRecordHead * len(eff.Records); cap(r.buf) < need {
		r.buf = make([]byte, 0, need)
	}
	b := r.buf[:0]
	for i := range eff.Records {
		from := len(b)
		rec := wal.Record{Group: r.group}
		switch x := &eff.Records[i]; x.Kind {
		case paxos.RecordPromise:
			b = binary.LittleEndian.AppendUint64(b, x.Ballot.Round)
			b = binary.LittleEndian.AppendUint64(b, uint64(x.Ballot.Node))
			rec.Kind, rec.Key = wal.KindState, stateBallot
		case paxos.RecordAccept:
			b = paxos.AppendEntryHeader(b, &x.Entry)
			rec.Kind, rec.Index, rec.Payload = wal.KindEntry, uint64(x.Entry.Instance), x.Entry.Data
		case paxos.RecordChosen:
			b = binary.LittleEndian.AppendUint64(b, uint64(x.Chosen))
			rec.Kind, rec.Key = wal.KindState, stateChosen
		case paxos.RecordLease:
			b = binary.LittleEndian.AppendUint64(b, uint64(x.Lease))
			rec.Kind, rec.Key = wal.KindState, stateLease
		case paxos.RecordMembers:
			b = binary.LittleEndian.AppendUint64(b, uint64(x.Chosen))
			rec.Kind, rec.Key, rec.Payload = wal.KindState, stateMembers, x.Members.Encode()
		}
		rec.Head = b[from:]
		r.recs = append(r.recs, rec)
	}
	lsn, err := r.log.Append(r.recs...)
	if err != nil {
		return fmt.Errorf("persist records of group %d: %w", r.group, err)
	}
	r.appended = lsn
	clear(r.recs)
	return nil
}

// send puts a message into the output; those to the member itself go straight
// back into the core.
func (r *Replica) send(now paxos.Time, m paxos.Message) {
	if m.To == r.self {
		r.core.Step(now, paxos.Event{Kind: paxos.EventMessage, Message: &m})
		return
	}
	r.out.Messages = append(r.out.Messages, m)
}

// Synced says that the log is durable through lsn. What was vowed on it is sent
// by the next Flush.
func (r *Replica) Synced(now paxos.Time, lsn wal.LSN) {
	n := 0
	for ; n < len(r.owed) && r.owed[n].lsn <= lsn; n++ {
		for _, v := range r.owed[n].vows {
			r.send(now, v.AfterSync())
		}
		r.owed[n].vows = nil
	}
	r.owed = r.owed[n:]
}

// Abandon returns the answers for everyone who waits for a value: the replica
// will not run on.
func (r *Replica) Abandon() []Told {
	r.lose()
	told := r.out.Told
	r.out.Told = nil
	return told
}

// Owes reports whether vows wait for a sync.
func (r *Replica) Owes() bool { return len(r.owed) > 0 }

// tell answers the proposer of a chosen instance, if it was proposed in this term.
func (r *Replica) tell(i paxos.Instance) {
	for len(r.waiters) > 0 && r.waiters[0].instance <= i {
		w := r.waiters[0]
		r.waiters[0] = waiter{}
		r.waiters = r.waiters[1:]
		r.out.Told = append(r.out.Told, Told{w.done, w.instance, nil})
	}
}

// fetch answers with chosen entries from the log.
func (r *Replica) fetch(now paxos.Time, f paxos.Fetch) {
	m := paxos.Message{Kind: paxos.MsgLearn, From: r.self, To: f.To, First: f.First, Chosen: r.core.Chosen()}
	size, oldest := int64(0), paxos.Instance(0)
	for i := f.First; i <= f.Through && size < f.Limit; i++ {
		e, err := readEntry(r.log, r.group, i)
		if err != nil {
			if bad := new(wal.CorruptError); errors.As(err, &bad) {
				r.Repair(now, i)
				oldest = i + 1
			}
			break // what is trimmed or damaged here must come from another member
		}
		m.Entries = append(m.Entries, e)
		size += int64(len(e.Data)) + 64
	}
	through := paxos.Instance(0)
	if n := len(m.Entries); n > 0 {
		through = m.Entries[n-1].Instance
		r.out.Messages = append(r.out.Messages, m)
	} else if first, _ := r.log.Bounds(r.group); max(oldest, paxos.Instance(first)) > f.First {
		m.First = max(oldest, paxos.Instance(first)) // others may still have it, else a snapshot must do
		r.out.Messages = append(r.out.Messages, m)
	}
	r.core.Step(now, paxos.Event{Kind: paxos.EventFetched, To: f.To, Through: through})
}

// Read returns a chosen entry from the log.
func (r *Replica) Read(i paxos.Instance) (paxos.Entry, error) { return readEntry(r.log, r.group, i) }

// ReadEntry reads an entry of a group from its log; tools that print logs use it.
func ReadEntry(log Reader, group wal.Group, i paxos.Instance) (paxos.Entry, error) {
	return readEntry(log, group, i)
}
