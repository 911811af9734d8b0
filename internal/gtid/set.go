package gtid

import (
	"iter"
	"slices"
	"sort"
)

// Interval is the numbers First to Last, both included.
type Interval struct{ First, Last int64 }

// Set is a set of GTIDs. The zero value and a nil *Set are empty; a nil one can
// only be read. A set must not be copied by value, and one that is being
// changed must not be used by others at the same time.
type Set struct {
	sources map[Source]*intervals
	// newest is the source that was added to last: a master adds to the same
	// one again and again.
	newest *intervals
}

type intervals struct {
	source Source
	list   []Interval
}

// Add puts g into the set and reports whether it was missing. A number outside
// 1 to MaxGNO is never a member.
func (s *Set) Add(g GTID) bool {
	if g.GNO < 1 || g.GNO > MaxGNO {
		return false
	}
	iv := s.at(g.Source)
	if n := len(iv.list); n > 0 && iv.list[n-1].Last+1 == g.GNO {
		iv.list[n-1].Last++
		return true
	}
	if iv.contains(g.GNO) {
		return false
	}
	iv.add(Interval{g.GNO, g.GNO})
	return true
}

// AddInterval puts a whole interval of a source into the set. An empty interval
// adds nothing.
func (s *Set) AddInterval(src Source, in Interval) {
	in.First, in.Last = max(in.First, 1), min(in.Last, MaxGNO)
	if in.First <= in.Last {
		s.at(src).add(in)
	}
}

// at returns the intervals of a source, which it creates: the caller adds to
// them.
func (s *Set) at(src Source) *intervals {
	if s.newest != nil && s.newest.source == src {
		return s.newest
	}
	iv := s.sources[src]
	if iv == nil {
		iv = &intervals{source: src}
		if s.sources == nil {
			s.sources = make(map[Source]*intervals)
		}
		s.sources[src] = iv
	}
	s.newest = iv
	return iv
}

// find returns the intervals of a source, or nil. It changes nothing, so that
// several may read.
func (s *Set) find(src Source) *intervals {
	if s == nil {
		return nil
	}
	if s.newest != nil && s.newest.source == src {
		return s.newest
	}
	return s.sources[src]
}

// Contains reports whether g is in the set.
func (s *Set) Contains(g GTID) bool {
	iv := s.find(g.Source)
	return iv != nil && iv.contains(g.GNO)
}

// ContainsSet reports whether every member of o is in s.
func (s *Set) ContainsSet(o *Set) bool {
	if o == nil {
		return true
	}
	for src, theirs := range o.sources {
		ours := s.find(src)
		if ours == nil || !ours.containsAll(theirs.list) {
			return false
		}
	}
	return true
}

// Union adds every member of o to s.
func (s *Set) Union(o *Set) {
	if o == nil {
		return
	}
	for src, theirs := range o.sources {
		iv := s.at(src)
		for _, in := range theirs.list {
			iv.add(in)
		}
	}
}

// Subtract takes every member of o out of s.
func (s *Set) Subtract(o *Set) {
	if o == nil {
		return
	}
	for src, theirs := range o.sources {
		ours := s.sources[src]
		if ours == nil {
			continue
		}
		ours.list = subtract(ours.list, theirs.list)
		if len(ours.list) == 0 {
			delete(s.sources, src)
			if s.newest == ours {
				s.newest = nil
			}
		}
	}
}

// Clone returns a copy that shares nothing with s.
func (s *Set) Clone() *Set {
	c := &Set{}
	if s.Empty() {
		return c
	}
	c.sources = make(map[Source]*intervals, len(s.sources))
	for src, iv := range s.sources {
		c.sources[src] = &intervals{source: src, list: slices.Clone(iv.list)}
	}
	return c
}

// Equal reports whether both sets have the same members.
func (s *Set) Equal(o *Set) bool {
	if s.Empty() || o.Empty() {
		return s.Empty() && o.Empty()
	}
	if len(s.sources) != len(o.sources) {
		return false
	}
	for src, iv := range s.sources {
		theirs := o.sources[src]
		if theirs == nil || !slices.Equal(iv.list, theirs.list) {
			return false
		}
	}
	return true
}

// Empty reports whether the set has no member.
func (s *Set) Empty() bool { return s == nil || len(s.sources) == 0 }

// Count is the number of members. It stops at the largest uint64.
func (s *Set) Count() uint64 {
	var n uint64
	if s == nil {
		return 0
	}
	for _, iv := range s.sources {
		for _, in := range iv.list {
			next := n + uint64(in.Last-in.First) + 1
			if next < n {
				return ^uint64(0)
			}
			n = next
		}
	}
	return n
}

// Intervals is the number of intervals over all sources: what the set costs in
// memory.
func (s *Set) Intervals() int {
	n := 0
	if s != nil {
		for _, iv := range s.sources {
			n += len(iv.list)
		}
	}
	return n
}

// Sources returns the sources of the set in order, with their intervals. The
// slices belong to the set.
func (s *Set) Sources() iter.Seq2[Source, []Interval] {
	return func(yield func(Source, []Interval) bool) {
		for _, iv := range s.sorted() {
			if !yield(iv.source, iv.list) {
				return
			}
		}
	}
}

// All returns every member, in order.
func (s *Set) All() iter.Seq[GTID] {
	return func(yield func(GTID) bool) {
		for src, list := range s.Sources() {
			for _, in := range list {
				for n := in.First; n <= in.Last; n++ {
					if !yield(GTID{Source: src, GNO: n}) {
						return
					}
				}
			}
		}
	}
}

func (s *Set) sorted() []*intervals {
	if s.Empty() {
		return nil
	}
	all := make([]*intervals, 0, len(s.sources))
	for _, iv := range s.sources {
		all = append(all, iv)
	}
	slices.SortFunc(all, func(a, b *intervals) int { return a.source.compare(b.source) })
	return all
}

func (iv *intervals) contains(n int64) bool {
	i := iv.reaching(n)
	return i < len(iv.list) && iv.list[i].First <= n
}

// reaching returns the index of the first interval that ends at n or later.
func (iv *intervals) reaching(n int64) int {
	if k := len(iv.list); k == 0 || iv.list[k-1].Last < n {
		return k
	} else if iv.list[k-1].First <= n {
		return k - 1
	}
	return sort.Search(len(iv.list), func(i int) bool { return iv.list[i].Last >= n })
}

func (iv *intervals) containsAll(list []Interval) bool {
	for _, in := range list {
		i := iv.reaching(in.First)
		if i == len(iv.list) || iv.list[i].First > in.First || iv.list[i].Last < in.Last {
			return false
		}
	}
	return true
}

// add merges one interval into the list.
func (iv *intervals) add(in Interval) {
	from := iv.reaching(in.First - 1) // the first that touches or follows in
	to := from
	for to < len(iv.list) && iv.list[to].First <= in.Last+1 {
		in.First = min(in.First, iv.list[to].First)
		in.Last = max(in.Last, iv.list[to].Last)
		to++
	}
	if from == to {
		iv.list = slices.Insert(iv.list, from, in)
		return
	}
	iv.list[from] = in
	iv.list = slices.Delete(iv.list, from+1, to)
}

// subtract returns a without the members of b; both are normal lists.
func subtract(a, b []Interval) []Interval {
	var out []Interval
	j := 0
	for _, in := range a {
		for j < len(b) && b[j].Last < in.First {
			j++
		}
		k := j
		for ; k < len(b) && b[k].First <= in.Last; k++ {
			if b[k].First > in.First {
				out = append(out, Interval{in.First, b[k].First - 1})
			}
			in.First = b[k].Last + 1
		}
		if in.First <= in.Last {
			out = append(out, in)
		}
	}
	return out
}
