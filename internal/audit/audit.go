// Package audit compares what all members hold at one place of the log.
//
// A pass goes over all tables in rounds. Of each round the leader puts a Round into the
// log as a notice: the place at which every member takes a snapshot, and the Pieces
// of tables that are summed up there. Judge then holds the members' sums against
// each other.
//
// What is compared: rows of the base tables of all schemas that are not the server's
// own, in all columns that are stored, and the columns' names and types; accounts, what
// is granted to them, routines and triggers. What is not: events, views, and tables
// that have no key that can be cut into pieces and more rows than one piece may have.
//
// The package takes no decision about members and starts no goroutine. Its SQL part
// works on a session that the caller has opened and put into a snapshot.
//
// Invariants: a piece names the same rows on every member whatever the server's
// settings are; what cannot be summed up, as when a statement changed the table since,
// is unknown and never counts as different.
package audit

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/phxsql/phxsql/paxos"
)

// The limits of a round.
const (
	PieceRows = 2000     // rows of a piece, about
	MaxPieces = 100      // of a round
	MaxRound  = 60 << 10 // bytes of an encoded round
	maxKey    = 8        // columns of a key
	maxValue  = 1 << 10  // bytes of a value of a key
)

// Table names a table.
type Table struct {
	Schema string `json:"schema"`
	Name   string `json:"name"`
}

func (t Table) String() string { return t.Schema + "." + t.Name }

// Compare orders tables.
func (t Table) Compare(o Table) int {
	return cmp.Or(cmp.Compare(t.Schema, o.Schema), cmp.Compare(t.Name, o.Name))
}

// Value is a value of a column of a key: exactly one field is set.
type Value struct {
	Int  *string `json:"int,omitempty"`  // decimal; of 64 bits, signed or not
	Text *string `json:"text,omitempty"` // of characters, times and decimals
	Raw  []byte  `json:"raw,omitempty"`
}

// Cursor is a place in the order of all rows: behind a key of a table, or, without one,
// before its first row.
type Cursor struct {
	Table
	Key   []string `json:"key,omitempty"` // the columns of After, in order
	After []Value  `json:"after,omitempty"`
}

// Piece is a part of a table: the rows whose key is above After and not above
// Through. Where they are nil the piece has no bound. A piece without Key is the
// whole table. A piece with a Rule is what the rule chooses of the table, on a server
// of the version Engine; its Key is none that a table could have.
type Piece struct {
	Table
	Key     []string `json:"key,omitempty"` // the columns, in the order of the key
	After   []Value  `json:"after,omitempty"`
	Through []Value  `json:"through,omitempty"`
	Rule    string   `json:"rule,omitempty"`
	Engine  string   `json:"engine,omitempty"`
}

// String names the piece for people.
func (p Piece) String() string {
	if p.Rule != "" {
		return p.Rule
	}
	if len(p.Key) == 0 || p.After == nil && p.Through == nil {
		return "all rows"
	}
	return fmt.Sprintf("%v after %s through %s", p.Key, text(p.After), text(p.Through))
}

func text(key []Value) string {
	if key == nil {
		return "the end"
	}
	out := ""
	for i, v := range key {
		if i > 0 {
			out += ","
		}
		switch {
		case v.Int != nil:
			out += *v.Int
		case v.Text != nil:
			out += strconv.Quote(*v.Text)
		default:
			out += fmt.Sprintf("0x%x", v.Raw)
		}
	}
	return out
}

// Round is what a notice of the log says.
type Round struct {
	ID     string  `json:"id"`    // drawn by the leader
	Pass   uint64  `json:"pass"`  // counts the leader's passes
	Check  bool    `json:"check"` // it looks again at what differed
	Pieces []Piece `json:"pieces"`
	// Executed is the set of all transactions before the place of the notice.
	Executed string `json:"executed"`
	// Rate is how many rows a member reads in a second, at most.
	Rate int `json:"rate"`
}

// Encode returns the round as it stands in the log; an error says that it is too large.
func (r *Round) Encode() ([]byte, error) {
	b, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encode round: %w", err)
	}
	if len(b) > MaxRound {
		return nil, fmt.Errorf("encode round: %d bytes, the limit is %d", len(b), MaxRound)
	}
	return b, nil
}

// DecodeRound reads what Encode wrote.
func DecodeRound(b []byte) (Round, error) {
	var r Round
	if err := json.Unmarshal(b, &r); err != nil {
		return r, fmt.Errorf("decode round: %w", err)
	}
	if r.ID == "" || len(r.Pieces) > MaxPieces {
		return r, fmt.Errorf("decode round: id %q, %d pieces", r.ID, len(r.Pieces))
	}
	for _, p := range r.Pieces {
		for _, bound := range [][]Value{p.After, p.Through} {
			if len(p.Key) > maxKey || bound != nil && len(bound) != len(p.Key) {
				return r, fmt.Errorf("decode round: piece of %v with a key of %d columns and a bound of %d", p.Table, len(p.Key), len(bound))
			}
		}
	}
	return r, nil
}

// Sum is what a member has found in a piece. Two are equal if the rows are, but for a
// chance of about one in four milliards.
type Sum struct {
	Unknown string `json:"unknown,omitempty"` // why it cannot be told
	Missing bool   `json:"missing,omitempty"` // there is no such table
	Shape   uint32 `json:"shape"`             // checksum of the columns' names and types
	Rows    uint64 `json:"rows"`
	Xor     uint64 `json:"xor"` // of the rows' checksums
	Add     string `json:"add"` // the sum of the rows' checksums
}

// keyChanged is why a piece of rows is unknown whose key the table has not got.
const keyChanged = "its key has changed"

// Why says for people why the sum of a piece is unknown; empty: it is known.
func (s Sum) Why(p Piece) string {
	if p.Rule != "" && s.Unknown == keyChanged {
		return "its release of phxsql does not compare that"
	}
	return s.Unknown
}

// Result is what one member says of a round: a sum for each piece. In a round that
// checks, Named has the checksums of what a piece with a rule consists of, by the piece's
// place in the round, sorted by name; too many are left out.
type Result struct {
	Node  paxos.NodeID    `json:"node"`
	Sums  []Sum           `json:"sums"`
	Named map[int][]Named `json:"named,omitempty"`
}

// Difference is a piece that is not the same on all members.
type Difference struct {
	Piece int
	Wrong []paxos.NodeID // ascending; those that are not with the majority
	Right []paxos.NodeID // ascending
	// Tie says that no side has a majority; Right is then the master's.
	Tie   bool
	Known int // how many members know the piece
	// Names are what differs between a wrong member and a right one, if they have said it.
	Names []string
}

// Judge holds results against each other. Those of a majority of the members that
// know a piece are right. Where no side has one, the master's count: they are what
// the clients of the read-write port have seen.
func Judge(pieces int, results []Result, master paxos.NodeID) []Difference {
	var all []Difference
	for p := range pieces {
		sides := map[Sum][]paxos.NodeID{}
		known := 0
		for _, r := range results {
			if p >= len(r.Sums) || r.Sums[p].Unknown != "" {
				continue
			}
			known++
			sides[r.Sums[p]] = append(sides[r.Sums[p]], r.Node)
		}
		if len(sides) > 1 {
			if d, ok := difference(slices.Collect(maps.Values(sides)), known, master); ok {
				d.Piece = p
				d.name(results)
				all = append(all, d)
			}
		}
	}
	return all
}

// difference finds the right side of several. It reports false when there is none: no
// majority, and the master does not know.
func difference(sides [][]paxos.NodeID, known int, master paxos.NodeID) (Difference, bool) {
	right := slices.IndexFunc(sides, func(s []paxos.NodeID) bool { return 2*len(s) > known })
	d := Difference{Tie: right < 0, Known: known}
	if d.Tie {
		right = slices.IndexFunc(sides, func(s []paxos.NodeID) bool { return slices.Contains(s, master) })
	}
	if right < 0 {
		return d, false
	}
	for i, s := range sides {
		if i == right {
			d.Right = s
		} else {
			d.Wrong = append(d.Wrong, s...)
		}
	}
	slices.Sort(d.Wrong)
	slices.Sort(d.Right)
	return d, true
}

// name finds out what differs in a piece with a rule.
func (d *Difference) name(results []Result) {
	said := map[paxos.NodeID][]Named{}
	for _, r := range results {
		if list, ok := r.Named[d.Piece]; ok {
			said[r.Node] = list
		}
	}
	names := map[string]bool{}
	for _, right := range d.Right {
		for _, wrong := range d.Wrong {
			a, known := said[right]
			b, too := said[wrong]
			if known && too {
				for _, n := range differing(a, b) {
					names[n] = true
				}
			}
		}
	}
	d.Names = slices.Sorted(maps.Keys(names))
}

// Place names what differs in the piece for people.
func (d *Difference) Place(p Piece) string {
	if len(d.Names) > 0 {
		return Tell(d.Names)
	}
	return p.String()
}

// Advise takes the differences of advisory pieces out of what two looks have found. It
// returns what is left of the first look, and the advisory ones that both have found, as
// the second one has.
func Advise(pieces []Piece, first, second []Difference) (judged, advice []Difference) {
	for _, d := range first {
		if !pieces[d.Piece].Advisory() {
			judged = append(judged, d)
			continue
		}
		if i := slices.IndexFunc(second, func(s Difference) bool { return s.Piece == d.Piece }); i >= 0 {
			advice = append(advice, second[i])
		}
	}
	return judged, advice
}

// Verdict is what a pass has found about one member.
type Verdict struct {
	Node  paxos.NodeID
	Tie   bool    // of all its differences no side has a majority
	Known int     // how many members know the piece that the fewest know
	Where []Piece // in order
	Place string  // for people, in the first one
	Right []paxos.NodeID
}

// Settled reports whether the verdict stands, in a cluster of so many members with
// data. A tie does only if all of them were asked: the one that was away may be the one
// that shows the master to be wrong.
func (v *Verdict) Settled(members int) bool { return !v.Tie || v.Known >= members }

// Confirm returns the members that two looks at the same pieces, at two places of the
// log, both found to differ. One look may have met a fault of a moment.
func Confirm(pieces []Piece, first, second []Difference) []Verdict {
	by := map[paxos.NodeID]*Verdict{}
	for _, d := range second {
		i := slices.IndexFunc(first, func(f Difference) bool { return f.Piece == d.Piece })
		if i < 0 {
			continue
		}
		for _, id := range d.Wrong {
			if !slices.Contains(first[i].Wrong, id) {
				continue
			}
			v := by[id]
			if v == nil {
				v = &Verdict{Node: id, Tie: true, Right: d.Right, Known: d.Known, Place: d.Place(pieces[d.Piece])}
				by[id] = v
			}
			v.Tie, v.Known = v.Tie && d.Tie, min(v.Known, d.Known)
			v.Where = append(v.Where, pieces[d.Piece])
		}
	}
	var all []Verdict
	for _, id := range slices.Sorted(maps.Keys(by)) {
		all = append(all, *by[id])
	}
	return all
}
