package history

import (
	"fmt"
	"sort"
)

// kind is a set of kinds of edges.
type kind uint8

const (
	ww kind = 1 << iota
	wr
	rw
	rt
)

var kindWords = map[kind]string{ww: "ww", wr: "wr", rw: "rw", rt: "rt"}

// edge leads from one transaction to another that must come later.
type edge struct {
	to   int32
	kind kind
	key  Key
}

// graph holds the edges of each transaction.
type graph struct {
	out [][]edge
}

func (g *graph) add(from, to int, k kind, key Key) {
	if from != to {
		g.out[from] = append(g.out[from], edge{int32(to), k, key})
	}
}

// newGraph draws the dependencies; with real time, if the level demands it.
func newGraph(b *book, realTime bool) *graph {
	g := &graph{out: make([][]edge, len(b.txns))}
	for _, k := range sortedKeys(b.order) {
		l := b.order[k]
		for n := 1; n < len(l); n++ {
			from, ok1 := b.writer(k, l[n-1])
			to, ok2 := b.writer(k, l[n])
			if ok1 && ok2 {
				g.add(from, to, ww, k)
			}
		}
	}
	for i, t := range b.txns {
		if !b.there[i] {
			continue
		}
		for _, o := range t.Ops {
			if o.Append == 0 {
				g.addRead(b, i, o)
			}
		}
	}
	if realTime {
		g.addRealTime(b)
	}
	return g
}

// writer is who wrote a value, if that is known to be committed.
func (b *book) writer(k Key, v Value) (int, bool) {
	w, ok := b.wrote[version{k, v}]
	return w.txn, ok && b.there[w.txn]
}

func (g *graph) addRead(b *book, i int, o Op) {
	l := b.order[o.Key]
	if !isPrefix(o.Read, l) {
		return // told already; it has no place in the order
	}
	if n := len(o.Read); n > 0 {
		if w, ok := b.writer(o.Key, o.Read[n-1]); ok {
			g.add(w, i, wr, o.Key)
		}
	}
	if n := len(o.Read); n < len(l) {
		if w, ok := b.writer(o.Key, l[n]); ok {
			g.add(i, w, rw, o.Key)
		}
	}
}

// addRealTime draws an edge from each transaction that has ended to each that begins
// later, but for those that others imply.
func (g *graph) addRealTime(b *book) {
	type moment struct {
		at    int64
		begin bool
		txn   int
	}
	var ms []moment
	for i, t := range b.txns {
		if !b.there[i] {
			continue
		}
		ms = append(ms, moment{t.Begin, true, i})
		if t.Outcome == Committed {
			ms = append(ms, moment{t.End, false, i})
		}
	}
	sort.Slice(ms, func(i, j int) bool {
		if ms[i].at != ms[j].at {
			return ms[i].at < ms[j].at
		}
		return ms[i].begin && !ms[j].begin // at the same moment: not one after the other
	})
	var ended []int // no other that has ended began after the end of one of these
	for _, m := range ms {
		if m.begin {
			for _, e := range ended {
				g.add(e, m.txn, rt, 0)
			}
			continue
		}
		kept := ended[:0]
		for _, e := range ended {
			if b.txns[e].End >= b.txns[m.txn].Begin {
				kept = append(kept, e)
			}
		}
		ended = append(kept, m.txn)
	}
}

// components numbers the strongly connected components over some kinds of edges
// (Tarjan 1972, without recursion). A transaction that is alone in its component
// gets 0.
func (g *graph) components(mask kind) []int32 {
	n := len(g.out)
	s := tarjan{g: g, mask: mask, num: make([]int32, n), low: make([]int32, n), comp: make([]int32, n), on: make([]bool, n)}
	for v := range n {
		if s.num[v] == 0 && len(g.out[v]) > 0 {
			s.visit(int32(v))
		}
	}
	return s.comp
}

type tarjan struct {
	g         *graph
	mask      kind
	num, low  []int32
	comp      []int32
	on        []bool
	stack     []int32
	next, ids int32
}

// frame is a call of the recursive form: a vertex and its next edge.
type frame struct {
	v int32
	e int
}

func (s *tarjan) enter(v int32) frame {
	s.next++
	s.num[v], s.low[v], s.on[v] = s.next, s.next, true
	s.stack = append(s.stack, v)
	return frame{v, 0}
}

func (s *tarjan) visit(root int32) {
	calls := []frame{s.enter(root)}
	for len(calls) > 0 {
		f := &calls[len(calls)-1]
		if f.e < len(s.g.out[f.v]) {
			e := s.g.out[f.v][f.e]
			f.e++
			switch {
			case e.kind&s.mask == 0:
			case s.num[e.to] == 0:
				calls = append(calls, s.enter(e.to))
			case s.on[e.to]:
				s.low[f.v] = min(s.low[f.v], s.num[e.to])
			}
			continue
		}
		v := f.v
		calls = calls[:len(calls)-1]
		if len(calls) > 0 {
			p := calls[len(calls)-1].v
			s.low[p] = min(s.low[p], s.low[v])
		}
		if s.low[v] == s.num[v] {
			s.close(v)
		}
	}
}

// close takes a component off the stack.
func (s *tarjan) close(root int32) {
	size := 0
	for n := len(s.stack) - 1; s.stack[n] != root; n-- {
		size++
	}
	if size > 0 {
		s.ids++
	}
	for {
		v := s.stack[len(s.stack)-1]
		s.stack = s.stack[:len(s.stack)-1]
		s.on[v] = false
		if size > 0 {
			s.comp[v] = s.ids
		}
		if v == root {
			return
		}
	}
}

// step is an edge with where it starts.
type step struct {
	from int32
	edge
}

// path is the shortest way between two transactions of one component, over some kinds
// of edges; nil if there is none.
func (g *graph) path(from, to int32, mask kind, comp []int32) []step {
	came := map[int32]step{}
	queue := []int32{from}
	for len(queue) > 0 {
		v := queue[0]
		queue = queue[1:]
		for _, e := range g.out[v] {
			if e.kind&mask == 0 || comp[e.to] != comp[from] {
				continue
			}
			if _, ok := came[e.to]; ok || e.to == from {
				continue
			}
			came[e.to] = step{v, e}
			if e.to == to {
				return walkBack(came, from, to)
			}
			queue = append(queue, e.to)
		}
	}
	return nil
}

func walkBack(came map[int32]step, from, to int32) []step {
	var p []step
	for at := to; at != from; at = came[at].from {
		p = append([]step{came[at]}, p...)
	}
	return p
}

// describe tells a cycle with the transactions on it.
func (b *book) describe(cycle []step) string {
	text := ""
	for _, s := range cycle {
		if s.kind == rt {
			text += fmt.Sprintf("T%d ended before T%d began; ", s.from, s.to)
		} else {
			text += fmt.Sprintf("T%d -%s(list %d)-> T%d; ", s.from, kindWords[s.kind], s.key, s.to)
		}
	}
	const most = 8 // transactions that are told in full
	for n, s := range cycle {
		if n == most {
			break
		}
		text += fmt.Sprintf("T%d %v ", s.from, b.txns[s.from])
	}
	return text
}
