package replica

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/phxsql/phxsql/paxos"
	"github.com/phxsql/phxsql/wal"
)

// Recover reads the state of a group from its log.
func Recover(log Reader, group wal.Group) (paxos.State, error) {
	st, err := recoverMarks(log, group)
	if err != nil {
		return st, err
	}
	_, last := log.Bounds(group)
	for i := uint64(st.Chosen) + 1; i <= last; i++ {
		e, err := readEntry(log, group, paxos.Instance(i))
		if errors.Is(err, wal.ErrNotFound) {
			continue
		}
		if bad := new(wal.CorruptError); errors.As(err, &bad) {
			return st, refuse(group, err)
		}
		if err != nil {
			return st, fmt.Errorf("recover group %d: %w", group, err)
		}
		st.Entries = append(st.Entries, e)
	}
	return st, nil
}

// recoverMarks reads all but the entries.
func recoverMarks(log Reader, group wal.Group) (paxos.State, error) {
	var st paxos.State
	if b, ok := log.State(group, stateBallot); ok {
		if len(b) != 16 {
			return st, fmt.Errorf("recover group %d: promise of %d bytes", group, len(b))
		}
		st.Promised = paxos.Ballot{Round: binary.LittleEndian.Uint64(b), Node: paxos.NodeID(binary.LittleEndian.Uint64(b[8:]))}
	}
	if b, ok := log.State(group, stateChosen); ok {
		if len(b) != 8 {
			return st, fmt.Errorf("recover group %d: chosen mark of %d bytes", group, len(b))
		}
		st.Chosen = paxos.Instance(binary.LittleEndian.Uint64(b))
	}
	if b, ok := log.State(group, stateLease); ok {
		if len(b) != 8 {
			return st, fmt.Errorf("recover group %d: length of leases of %d bytes", group, len(b))
		}
		st.Lease = time.Duration(binary.LittleEndian.Uint64(b))
		if st.Lease <= 0 || st.Lease > paxos.MaxLease {
			return st, fmt.Errorf("recover group %d: leases of %v, the limit is %v", group, st.Lease, paxos.MaxLease)
		}
	}
	newest := paxos.Instance(0)
	for _, key := range []uint8{stateMembers, stateSnapshot} {
		at, ms, err := readMembers(log, group, key)
		if err != nil {
			return st, err
		}
		if at > newest {
			newest, st.Members = at, ms
		}
		st.Chosen = max(st.Chosen, at)
	}
	if kept := log.Trimmed(group); kept > 0 {
		st.Chosen = max(st.Chosen, paxos.Instance(kept-1)) // only what is chosen is ever trimmed
	}
	// Entries are written without gaps. Those that are missing although they were not
	// trimmed are lost, and if they are not known to be chosen they were votes.
	if first, last := log.Bounds(group); first <= last && paxos.Instance(first) > st.Chosen+1 {
		return st, refuse(group, fmt.Errorf("the log begins at instance %d, what is before is known to be chosen through %d only", first, st.Chosen))
	}
	return st, nil
}

// readMembers reads a membership and the instance behind which it is valid; zero when
// there is none.
func readMembers(log Reader, group wal.Group, key uint8) (paxos.Instance, paxos.Members, error) {
	b, ok := log.State(group, key)
	if !ok {
		return 0, paxos.Members{}, nil
	}
	if len(b) < 8 {
		return 0, paxos.Members{}, fmt.Errorf("recover group %d: membership of %d bytes", group, len(b))
	}
	ms, err := paxos.DecodeMembers(b[8:])
	if err != nil {
		return 0, paxos.Members{}, fmt.Errorf("recover group %d: %w", group, err)
	}
	return paxos.Instance(binary.LittleEndian.Uint64(b)), ms, nil
}

func readEntry(log Reader, group wal.Group, i paxos.Instance) (paxos.Entry, error) {
	b, err := log.Read(group, uint64(i))
	if err != nil {
		return paxos.Entry{}, fmt.Errorf("read instance %d: %w", i, err)
	}
	e, err := paxos.DecodeEntry(b)
	if err != nil {
		return paxos.Entry{}, fmt.Errorf("read instance %d: %w", i, err)
	}
	return e, nil
}

// SyncedLog is what Install needs of a log.
type SyncedLog interface {
	Log
	Sync() (wal.LSN, error)
}

// Install makes the log of a group go on behind an instance whose effect the
// application has got as a snapshot, under the membership that was valid there, and
// syncs it. The promise stays. It is for a group that does not run; Replica.Install
// is for one that does.
//
// One record says it all, so that a crash cannot part it. The next Open gives up what
// was accepted below: it is chosen, and in the snapshot.
func Install(log SyncedLog, group wal.Group, through paxos.Instance, ms paxos.Members) error {
	if err := ms.Check(); err != nil {
		return fmt.Errorf("install snapshot through %d: %w", through, err)
	}
	st, err := Recover(log, group)
	if err != nil {
		return fmt.Errorf("install snapshot through %d: %w", through, err)
	}
	if st.Chosen >= through {
		return fmt.Errorf("install snapshot through %d, chosen is %d: %w", through, st.Chosen, ErrOldSnapshot)
	}
	end := binary.LittleEndian.AppendUint64(nil, uint64(through))
	if _, err := log.Append(wal.Record{Group: group, Kind: wal.KindState, Key: stateSnapshot, Head: end, Payload: ms.Encode()}); err != nil {
		return fmt.Errorf("install snapshot through %d: %w", through, err)
	}
	if _, err := log.Sync(); err != nil {
		return fmt.Errorf("install snapshot through %d: %w", through, err)
	}
	return nil
}

// forget gives up what lies in the log below a snapshot. It need not be chosen.
func forget(log Log, group wal.Group) {
	if b, ok := log.State(group, stateSnapshot); ok {
		log.TrimBelow(group, binary.LittleEndian.Uint64(b)+1)
	}
}

// pending reports whether a snapshot is in the log that an Install without room on the
// disk has left there.
func pending(log Reader, group wal.Group, through paxos.Instance) bool {
	b, ok := log.State(group, stateSnapshot)
	return ok && paxos.Instance(binary.LittleEndian.Uint64(b)) == through
}

// Install is the function Install for a member that runs: it ends this replica and
// returns the one that takes its place, and the answers to those who still wait
// here. A member that leads, or knows as much, refuses with ErrOldSnapshot and goes
// on. After any other error the log must be opened anew.
func (r *Replica) Install(log SyncedLog, cfg paxos.Config, through paxos.Instance, ms paxos.Members, now paxos.Time) (*Replica, []Told, error) {
	if chosen := r.core.Chosen(); chosen >= through || r.core.Leadership().Leader == r.self {
		return nil, nil, fmt.Errorf("install snapshot through %d, chosen is %d: %w", through, chosen, ErrOldSnapshot)
	}
	err := Install(log, r.group, through, ms)
	if errors.Is(err, ErrOldSnapshot) && pending(log, r.group, through) {
		_, err = log.Sync()
	}
	if err != nil {
		return nil, nil, err
	}
	next, err := Open(log, r.group, cfg, now)
	if err != nil {
		return nil, nil, err
	}
	next.Step(now, paxos.Event{Kind: paxos.EventLease, Lease: r.core.LeaseLength()})
	return next, r.Abandon(), nil
}
