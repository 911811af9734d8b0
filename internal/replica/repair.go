package replica

import (
	"errors"
	"fmt"
	"time"

	"github.com/phxsql/phxsql/paxos"
	"github.com/phxsql/phxsql/wal"
)

// Entries that are chosen can be had from others, so damage to them is repaired: the
// entry is asked for and appended anew, and the latest record counts. Damage to
// anything else may have taken a promise or a vote, which nobody can give back.

// ErrDamaged refuses to run a member on a log that has lost what it may have promised
// or voted for. Its disk counts as wiped: the way back is as a new member.
var ErrDamaged = errors.New("the log is damaged where a promise or a vote may have been")

const (
	// repairEvery is the wait before others are asked again.
	repairEvery = time.Second
	// maxRotten limits the damaged entries that are remembered. More are found again
	// when they are read.
	maxRotten = 4096
)

// Assess looks at the damage of a log (wal.Options.Salvage). It returns the entries of
// a group that can be repaired, or ErrDamaged.
func Assess(log Reader, group wal.Group, ds []wal.Damage) ([]paxos.Instance, error) {
	if len(ds) == 0 {
		return nil, nil
	}
	st, err := recoverMarks(log, group)
	if err != nil {
		return nil, err
	}
	var list []paxos.Instance
	for i := range ds {
		d := &ds[i]
		switch {
		case d.Known && (d.Record.Kind == 0 || d.Record.Group != group):
			// Nothing of this group is there.
		case d.Known && d.Record.Kind == wal.KindEntry && paxos.Instance(d.Record.Index) <= st.Chosen:
			list = append(list, paxos.Instance(d.Record.Index))
		default:
			return nil, refuse(group, &d.CorruptError)
		}
	}
	return list, nil
}

func refuse(group wal.Group, cause error) error {
	return fmt.Errorf("start group %d: %w: %w; remove this member and let it join anew with an empty data directory", group, ErrDamaged, cause)
}

// Repair has a chosen entry that cannot be read sent by other members.
func (r *Replica) Repair(now paxos.Time, i paxos.Instance) {
	if i == 0 || i > r.core.Chosen() || len(r.rotten) >= maxRotten {
		return
	}
	if r.rotten == nil {
		r.rotten = map[paxos.Instance]bool{}
	}
	if !r.rotten[i] {
		r.rotten[i] = true
		r.askRotten(now)
	}
}

// askRotten asks all members for a damaged entry; what they send begins with it and
// may bring others. The entries take turns, oldest first: one that nobody has any more
// must not keep the others from being mended.
func (r *Replica) askRotten(now paxos.Time) {
	r.rottenAsked = now
	kept := paxos.Instance(r.log.Trimmed(r.group))
	oldest, next := paxos.Instance(0), paxos.Instance(0)
	for i := range r.rotten {
		if i < kept {
			delete(r.rotten, i) // trimmed meanwhile
			continue
		}
		if oldest == 0 || i < oldest {
			oldest = i
		}
		if i >= r.rottenNext && (next == 0 || i < next) {
			next = i
		}
	}
	if next == 0 {
		next = oldest
	}
	if next == 0 {
		return
	}
	r.rottenNext = next + 1
	for _, m := range r.core.Members().List {
		if m.ID != r.self {
			r.out.Messages = append(r.out.Messages, paxos.Message{Kind: paxos.MsgAsk, From: r.self, To: m.ID, First: next})
		}
	}
}

// stepRotten looks at an event before the core does: time passes, entries come.
func (r *Replica) stepRotten(now paxos.Time, ev *paxos.Event) {
	switch {
	case ev.Kind == paxos.EventTick:
		if now >= r.rottenAsked.Add(repairEvery) {
			r.askRotten(now)
		}
	case ev.Kind == paxos.EventMessage && ev.Message.Kind == paxos.MsgLearn && ev.Message.To == r.self:
		mended := len(r.out.Mended)
		for i := range ev.Message.Entries {
			r.mend(&ev.Message.Entries[i])
		}
		if len(r.out.Mended) > mended {
			r.out.Sync = true
			r.askRotten(now)
		}
	}
}

// mend appends an entry anew. One that cannot be appended now is asked for again.
func (r *Replica) mend(e *paxos.Entry) {
	if !r.rotten[e.Instance] {
		return
	}
	lsn, err := r.log.Append(wal.Record{Group: r.group, Kind: wal.KindEntry, Index: uint64(e.Instance), Payload: paxos.AppendEntry(nil, *e)})
	if err != nil {
		return
	}
	r.appended = lsn
	delete(r.rotten, e.Instance)
	r.out.Mended = append(r.out.Mended, e.Instance)
}
