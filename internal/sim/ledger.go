package sim

import (
	"encoding/binary"
	"errors"
	"slices"

	"github.com/phxsql/phxsql/internal/replica"
	"github.com/phxsql/phxsql/paxos"
	"github.com/phxsql/phxsql/wal"
)

// The keys that package replica uses for its states in the log.
const (
	keyPromise  = 1
	keyChosen   = 2
	keyMembers  = 3
	keySnapshot = 4
)

// copyOf is what a log holds at an instance: a value, and the oldest record from
// which on it has held that value.
type copyOf struct {
	sum uint64
	lsn wal.LSN // 0: durable since an earlier life
	ok  bool
}

type mark struct {
	lsn     wal.LSN
	promise paxos.Ballot
	chosen  paxos.Instance
}

// ledger stands between a replica and its log and notes what is written, so that
// judges can tell what is durable without asking the replica. It outlives crashes.
type ledger struct {
	n       *node
	log     *wal.Log
	copies  []copyOf // by instance
	marks   []mark   // written and not known to be durable
	promise paxos.Ballot
	chosen  paxos.Instance // the newest marks that are durable
	written paxos.Ballot   // newest promise written in this life
	base    paxos.Instance // trimmed through here, perhaps behind a snapshot
}

var _ replica.SyncedLog = (*ledger)(nil)

func (l *ledger) Append(recs ...wal.Record) (wal.LSN, error) {
	last, err := l.log.Append(recs...)
	if err != nil {
		return last, err
	}
	for k := range recs {
		r := &recs[k]
		lsn := last - wal.LSN(len(recs)-1-k)
		switch {
		case r.Kind == wal.KindEntry:
			l.entry(paxos.Instance(r.Index), lsn, slices.Concat(r.Head, r.Payload))
		case r.Key == keyPromise:
			b := ballotOf(r.Head)
			if b.Less(l.written) || b.Less(l.promise) {
				l.n.w.fail("promise-shrinks", "node %d writes promise %v after %v", l.n.id, b, l.written)
			}
			l.written = b
			l.marks = append(l.marks, mark{lsn: lsn, promise: b})
		case r.Key == keyChosen:
			l.marks = append(l.marks, mark{lsn: lsn, chosen: paxos.Instance(binary.LittleEndian.Uint64(r.Head))})
		case r.Key == keyMembers:
			l.marks = append(l.marks, mark{lsn: lsn, chosen: paxos.Instance(binary.LittleEndian.Uint64(r.Head))})
		case r.Key == keySnapshot:
			through := paxos.Instance(binary.LittleEndian.Uint64(r.Head))
			l.marks = append(l.marks, mark{lsn: lsn, chosen: through})
			l.base = max(l.base, through)
		}
	}
	return last, nil
}

func (l *ledger) Read(group wal.Group, index uint64) ([]byte, error) { return l.log.Read(group, index) }

func (l *ledger) State(group wal.Group, key uint8) ([]byte, bool) { return l.log.State(group, key) }

func (l *ledger) Bounds(group wal.Group) (first, last uint64) { return l.log.Bounds(group) }

func (l *ledger) Trimmed(group wal.Group) uint64 { return l.log.Trimmed(group) }

func (l *ledger) TrimBelow(group wal.Group, index uint64) {
	l.base = max(l.base, paxos.Instance(index)-1)
	l.log.TrimBelow(group, index)
}

func (l *ledger) Sync() (wal.LSN, error) { return l.log.Sync() }

func (l *ledger) entry(i paxos.Instance, lsn wal.LSN, payload []byte) {
	for paxos.Instance(len(l.copies)) <= i {
		l.copies = append(l.copies, copyOf{})
	}
	e, err := paxos.DecodeEntry(payload)
	if err != nil || e.Instance != i {
		l.n.w.fail("malformed-record", "node %d writes at instance %d: %v", l.n.id, i, err)
	}
	sum := sumOf(e.Kind, e.Data)
	if c := &l.copies[i]; !c.ok || c.sum != sum {
		*c = copyOf{sum: sum, lsn: lsn, ok: true}
	}
}

// settle moves on the newest durable marks.
func (l *ledger) settle() {
	d := l.log.Durable()
	k := 0
	for ; k < len(l.marks) && l.marks[k].lsn <= d; k++ {
		l.take(l.marks[k])
	}
	l.marks = l.marks[k:]
}

func (l *ledger) take(m mark) {
	if l.promise.Less(m.promise) {
		l.promise = m.promise
	}
	l.chosen = max(l.chosen, m.chosen)
}

// holds reports whether the value is on disk at instance i.
func (l *ledger) holds(i paxos.Instance, sum uint64) bool {
	return i < paxos.Instance(len(l.copies)) && l.copies[i].ok && l.copies[i].sum == sum && l.durable(i)
}

// durable reports whether an instance is on disk: its value, or the statement that a
// snapshot stands for it.
func (l *ledger) durable(i paxos.Instance) bool {
	return i <= l.base && i <= l.chosen || i < paxos.Instance(len(l.copies)) && l.copies[i].ok && l.copies[i].lsn <= l.log.Durable()
}

// lost notes a crash: what was not durable may be there or not.
func (l *ledger) lost() {
	l.settle()
	d := l.log.Durable()
	for i := range l.copies {
		if c := &l.copies[i]; c.lsn > d {
			c.ok = false
		} else {
			c.lsn = 0
		}
	}
	l.marks = nil
}

// reopened takes the log of a new life, and notes which of the doubtful entries
// are there. Those that are damaged must be chosen.
func (l *ledger) reopened(log *wal.Log, rotten []paxos.Instance) {
	l.log, l.written = log, paxos.Ballot{}
	// What an opened log has is durable, marks that were in doubt included.
	if b, ok := log.State(0, keyPromise); ok {
		l.take(mark{promise: ballotOf(b)})
	}
	for _, key := range []uint8{keyChosen, keyMembers} {
		if b, ok := log.State(0, key); ok {
			l.take(mark{chosen: paxos.Instance(binary.LittleEndian.Uint64(b))})
		}
	}
	first, last := log.Bounds(0)
	l.base = paxos.Instance(max(first, 1) - 1)
	if b, ok := log.State(0, keySnapshot); ok {
		through := paxos.Instance(binary.LittleEndian.Uint64(b))
		l.take(mark{chosen: through})
		l.base = max(l.base, through)
	}
	for uint64(len(l.copies)) <= last {
		l.copies = append(l.copies, copyOf{})
	}
	for i := first; i < uint64(len(l.copies)); i++ {
		b, err := log.Read(0, i)
		if bad := new(wal.CorruptError); errors.As(err, &bad) && slices.Contains(rotten, paxos.Instance(i)) {
			if paxos.Instance(i) > l.chosen {
				l.n.w.fail("durable-lost", "node %d runs although instance %d, of which only %d are known to be chosen, is damaged", l.n.id, i, l.chosen)
			}
			continue
		}
		if errors.Is(err, wal.ErrNotFound) {
			if l.copies[i].ok {
				l.n.w.fail("durable-lost", "node %d has lost instance %d, which was on its disk", l.n.id, i)
			}
			continue
		}
		e, derr := paxos.DecodeEntry(b)
		if err != nil || derr != nil {
			l.n.w.fail("durable-lost", "node %d cannot read instance %d: %v %v", l.n.id, i, err, derr)
		}
		l.copies[i] = copyOf{sum: sumOf(e.Kind, e.Data), ok: true}
	}
}

func ballotOf(b []byte) paxos.Ballot {
	return paxos.Ballot{Round: binary.LittleEndian.Uint64(b), Node: paxos.NodeID(binary.LittleEndian.Uint64(b[8:]))}
}

// sumOf tells values apart: the first eight bytes of a proposal are its number.
func sumOf(k paxos.EntryKind, data []byte) uint64 {
	switch k {
	case paxos.Noop:
		return 0
	case paxos.Normal:
		if len(data) >= 8 {
			return binary.LittleEndian.Uint64(data)
		}
		return 1 << 62
	}
	h := uint64(14695981039346656037)
	for _, b := range data {
		h = (h ^ uint64(b)) * 1099511628211
	}
	return h | 1<<63
}
