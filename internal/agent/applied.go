package agent

import (
	"math"
	"slices"
	"time"

	"github.com/phxsql/phxsql/internal/gtid"
	"github.com/phxsql/phxsql/paxos"
)

// mostPlaces limits what applied keeps while the server is behind. At the limit every
// other place is dropped and new ones are kept half as often, so that it gets on in larger
// steps.
const mostPlaces = 512

// nearLag is how old what a server has executed may be for it to take part in a comparison
// of rows, to get a vote, and to be handed the mastership. It is a time and not a number of transactions: under a load
// that never lulls a server lacks as many as are written meanwhile. A server that is held
// at one place of the log comes there within about that time.
const nearLag = 5 * time.Second

// applied tells through which instance of the log the server has executed everything.
// Under load it never holds all that the log has by the time it answers; so the ends that
// the log had at earlier looks are kept until the server has executed what precedes them.
type applied struct {
	through paxos.Instance
	at      time.Time // when the log ended there; zero: nothing is known yet
	places  []place   // later ones hold more
	// One of stride looks is kept; skipped is how many were not since the last one.
	stride, skipped int
}

// place is an end of the log, with all transactions before it.
type place struct {
	through paxos.Instance
	all     *gtid.Set
	at      time.Time // of the look
}

// lag is how old what the server has executed is: it holds everything that the log held so
// long ago. While that is not known it is longer than anything.
func (a *applied) lag(now time.Time) time.Duration {
	switch {
	case a.at.IsZero():
		return math.MaxInt64
	case len(a.places) == 0:
		return 0
	}
	return now.Sub(a.at)
}

func (a *applied) reach(p place) {
	if p.through >= a.through {
		a.through, a.at = p.through, p.at
	}
}

// note takes in what the server has executed, and the log's end at that time or later.
func (a *applied) note(end place, executed *gtid.Set) {
	if executed.ContainsSet(end.all) {
		a.reach(end)
		a.places = nil
		return
	}
	switch last := len(a.places) - 1; {
	case last < 0:
		a.places, a.stride, a.skipped = append(a.places, end), 1, 0
	case a.places[last].through >= end.through:
	default:
		if a.skipped++; a.skipped >= a.stride {
			a.places, a.skipped = append(a.places, end), 0
		}
	}
	n := 0 // of them are executed
	for n < len(a.places) && executed.ContainsSet(a.places[n].all) {
		a.reach(a.places[n])
		n++
	}
	a.places = slices.Delete(a.places, 0, n)
	if len(a.places) > mostPlaces {
		a.thin()
	}
}

func (a *applied) thin() {
	kept := a.places[:0]
	for i, p := range a.places {
		if i%2 == 0 {
			kept = append(kept, p)
		}
	}
	clear(a.places[len(kept):])
	a.places, a.stride = kept, 2*a.stride
}
