package relay

import (
	"bytes"
	"fmt"
	"io"

	"github.com/phxsql/phxsql/internal/entry"
	"github.com/phxsql/phxsql/internal/gtid"
	"github.com/phxsql/phxsql/paxos"
)

// A replica without a binary log of its own does not keep the GTID of an XA PREPARE
// on disk, and when it starts again it rolls the prepared rows back, because no
// binary log says that they are prepared. The decision is kept with its GTID, as any
// commit is. So of an XA PREPARE that the replica lacks although it has what came
// later, one thing is true: either it has the decision, then all is done and
// sending the rows again would stop it or change them; or it has not, then the
// prepared rows are gone and must be sent again, as what comes behind their decision
// does not touch what they lock.
//
// On a master both survive with their GTIDs, and there is no such hole.

// undecided finds the XA PREPAREs that a replica lacks and whose decision it lacks,
// too, before the last one of the transactions that it has. The memory that it takes
// grows with their number, not with the log.
type undecided struct {
	holes holes
	xa    xaReader

	open map[string]gtid.GTID // by identifier: missing, no decision seen yet
	set  *gtid.Set
}

// findUndecided reads the log behind a checkpoint all of whose transactions the
// replica has.
func findUndecided(log Log, at checkpoint, have *gtid.Set) (*gtid.Set, error) {
	u := undecided{
		holes: newHoles(have, at.executed),
		open:  map[string]gtid.GTID{}, set: &gtid.Set{},
	}
	defer u.xa.close()
	w := walk{log: log, fold: at.fold}
	for i, end := at.next, log.Chosen(); i <= end && u.holes.within(); i++ {
		if err := w.step(i, u.pass); err != nil {
			return nil, fmt.Errorf("look for decisions at instance %d: %w", i, err)
		}
	}
	for _, g := range u.open {
		u.set.Add(g)
	}
	return u.set, nil
}

func (u *undecided) pass(g gtid.GTID, events io.Reader) error {
	has := u.holes.has(g)
	id, kind, err := u.xa.read(events)
	if err != nil {
		return err
	}
	switch kind {
	case xaPrepared, xaOnePhase:
		// An identifier is free again only when it was decided about. What is
		// still open was not decided by what the replica has.
		if old, ok := u.open[id]; ok {
			u.set.Add(old)
			delete(u.open, id)
		}
		if kind == xaPrepared && !has {
			u.open[id] = g
		}
	case xaDecided:
		if has {
			delete(u.open, id)
		}
	}
	return nil
}

// xaMark is what a transaction changes about what is prepared.
type xaMark struct {
	id   string
	kind xaKind
	at   paxos.Instance // where it begins
}

// examine finds the XA transactions in a value that has not been applied yet. It
// reads the log, and is called while advancing is held and mu is not.
func (j *Journal) examine(i paxos.Instance, v *entry.Value) []xaMark {
	f := j.fold
	verdict := f.apply(i, v)
	if v.Kind == entry.Chunk && v.Offset == 0 {
		j.largeXA = mayBeXA(v.Events)
	}
	var marks []xaMark
	note := func(at paxos.Instance, g gtid.GTID, events io.Reader) {
		id, kind, err := j.xa.read(events)
		if err != nil {
			j.logger.Error("transaction_unreadable", "instance", i, "gtid", g.String(), "error", err)
		}
		if kind == xaPrepared || kind == xaDecided {
			marks = append(marks, xaMark{id, kind, at})
		}
	}
	switch {
	case verdict == completed && j.largeXA:
		note(f.first, v.Txns[0].GTID, newChunks(j.log, f, v.Txns[0], i))
	case verdict == whole:
		rest := v.Events
		for k := range v.Txns {
			events := rest[:v.Txns[k].Size]
			rest = rest[v.Txns[k].Size:]
			if mayBeXA(events) {
				note(i, v.Txns[k].GTID, bytes.NewReader(events))
			}
		}
	}
	return marks
}

// decide takes in what examine has found; mu is held.
func (j *Journal) decide(marks []xaMark) {
	for _, m := range marks {
		if m.kind == xaPrepared {
			j.open[m.id] = m.at
		} else {
			delete(j.open, m.id)
		}
	}
}

// undecided is where the first of the transactions begins that are prepared and not
// decided; 0 if there is none. Mu is held.
func (j *Journal) undecided() paxos.Instance {
	var first paxos.Instance
	for _, at := range j.open {
		if first == 0 || at < first {
			first = at
		}
	}
	return first
}
