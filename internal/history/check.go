package history

import (
	"fmt"
	"sort"
	"strings"
)

// Report is what a history shows.
type Report struct {
	Level                       Level
	Committed, Aborted, Unknown int
	Seen                        int            // unknown outcomes that turned out to be committed
	Count                       map[string]int // all anomalies, by name; of cycles, one for each knot
	Forbidden, Allowed          []Anomaly      // the first few of each name, by what the level says
}

// OK reports that nothing was found that the level forbids.
func (r Report) OK() bool { return len(r.Forbidden) == 0 }

// Names tells the anomalies of some list with their numbers.
func (r Report) Names(of []Anomaly) string {
	var names []string
	seen := map[string]bool{}
	for _, a := range of {
		if !seen[a.Name] {
			names = append(names, fmt.Sprintf("%s (%d)", a.Name, r.Count[a.Name]))
		}
		seen[a.Name] = true
	}
	sort.Strings(names)
	return strings.Join(names, ", ")
}

// Check judges a history. The final lists are those that were read when nobody wrote
// any more and everything was well; nil if that was not done: then what is lost at the
// end of a list cannot be noticed. No value may be written twice to one list: that is
// a fault of the caller, and panics.
func Check(txns []Txn, final map[Key][]Value, level Level) Report {
	b := newBook(txns, final)
	b.lostUpdates()
	b.cycles(newGraph(b, level == Serializable))
	r := Report{Level: level, Count: b.found.count}
	for i, t := range txns {
		switch {
		case t.Outcome == Committed:
			r.Committed++
		case t.Outcome == Aborted:
			r.Aborted++
		default:
			r.Unknown++
			if b.there[i] {
				r.Seen++
			}
		}
	}
	for _, a := range b.found.list {
		if level.Allows(a.Name) {
			r.Allowed = append(r.Allowed, a)
		} else {
			r.Forbidden = append(r.Forbidden, a)
		}
	}
	return r
}

// lostUpdates finds transactions that read the same version of a list and then wrote
// to it.
func (b *book) lostUpdates() {
	type state struct {
		key Key
		len int
	}
	by := map[state][]int{}
	for i, t := range b.txns {
		if !b.there[i] {
			continue
		}
		read := map[Key]int{}
		wrote := map[Key]bool{}
		for _, o := range t.Ops {
			if _, known := read[o.Key]; o.Append == 0 && !known && !wrote[o.Key] {
				read[o.Key] = len(o.Read)
			}
			if _, known := read[o.Key]; o.Append != 0 && !wrote[o.Key] {
				wrote[o.Key] = true
				if known {
					s := state{o.Key, read[o.Key]}
					by[s] = append(by[s], i)
				}
			}
		}
	}
	var states []state
	for s, is := range by {
		if len(is) > 1 {
			states = append(states, s)
		}
	}
	sort.Slice(states, func(i, j int) bool {
		return states[i].key < states[j].key || states[i].key == states[j].key && states[i].len < states[j].len
	})
	for _, s := range states {
		is := by[s]
		b.found.add(LostUpdate, "%d transactions read list %d at length %d and appended to it: T%d %v and T%d %v", len(is), s.key, s.len, is[0], b.txns[is[0]], is[1], b.txns[is[1]])
	}
}

// maxTries bounds the search for cycles in one knot, and with it the time for a
// history that is knotted all over. A knot itself is never overlooked: its cycle may
// only get the name of a weaker anomaly.
const maxTries = 200

// class is a kind of cycle: one edge of a kind, closed by a path over others.
type class struct {
	name  string
	first kind
	rest  kind
}

// classes are in the order of their weight: what is a cycle of an earlier class is not
// told as one of a later. Those with rt come after all without.
var classes = []class{
	{G0, ww, ww},
	{G1c, wr, ww | wr},
	{GSingle, rw, ww | wr},
	{G2, rw, ww | wr | rw},
	{G0 + RealTimeTag, rt, ww | rt},
	{G1c + RealTimeTag, wr, ww | wr | rt},
	{GSingle + RealTimeTag, rw, ww | wr | rt},
	{G2 + RealTimeTag, rw, ww | wr | rw | rt},
}

// cycles finds cycles of each class: one for each knot, which is a component that
// shows no cycle of an earlier class.
func (b *book) cycles(g *graph) {
	told := make([]bool, len(b.txns)) // on a cycle that was told
	for _, c := range classes {
		comp := g.components(c.first | c.rest)
		tries := map[int32]int{}
		done := map[int32]bool{}
		for v := range told {
			if told[v] && comp[v] != 0 {
				done[comp[v]] = true
			}
		}
		for v := range g.out {
			k := comp[v]
			if k == 0 || done[k] || tries[k] > maxTries {
				continue
			}
			if cycle := g.cycleFrom(int32(v), c, comp, tries); cycle != nil {
				done[k] = true
				for _, s := range cycle {
					told[s.from] = true
				}
				b.found.add(c.name, "%s", b.describe(cycle))
			}
		}
	}
}

// cycleFrom looks for a cycle that starts with an edge of the class's first kind.
func (g *graph) cycleFrom(v int32, c class, comp []int32, tries map[int32]int) []step {
	for _, e := range g.out[v] {
		if e.kind != c.first || comp[e.to] != comp[v] {
			continue
		}
		if tries[comp[v]]++; tries[comp[v]] > maxTries {
			return nil
		}
		if p := g.path(e.to, v, c.rest, comp); p != nil {
			return append([]step{{v, e}}, p...)
		}
	}
	return nil
}
