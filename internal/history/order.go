package history

import (
	"fmt"
	"sort"
)

// Anomaly is something that a history shows and a level may forbid.
type Anomaly struct {
	Name string
	Text string
}

// keepEach is how many anomalies of a name are told; the others are counted only.
const keepEach = 5

// findings collects anomalies.
type findings struct {
	count map[string]int
	list  []Anomaly
}

func (f *findings) add(name, format string, args ...any) {
	f.count[name]++
	if f.count[name] <= keepEach {
		f.list = append(f.list, Anomaly{name, fmt.Sprintf(format, args...)})
	}
}

// place is where a value was written.
type place struct {
	txn  int
	last bool // the last append of its transaction to that list
}

// version names a value of a list.
type version struct {
	key Key
	val Value
}

// book is what follows from a history before any graph.
type book struct {
	txns  []Txn
	final map[Key][]Value // nil: nobody read the lists at the end
	found findings
	wrote map[version]place
	order map[Key][]Value // the lists, in the order of writing
	there []bool          // the transaction is known to be committed
}

func newBook(txns []Txn, final map[Key][]Value) *book {
	b := &book{
		txns: txns, final: final, found: findings{count: map[string]int{}},
		wrote: map[version]place{}, order: map[Key][]Value{}, there: make([]bool, len(txns)),
	}
	b.index()
	b.orders()
	b.judgeOrders()
	b.judgeWriters()
	for i := range txns {
		if b.there[i] {
			b.judgeReads(i)
		}
	}
	b.judgeFreshness()
	return b
}

// index notes who wrote what.
func (b *book) index() {
	for i, t := range b.txns {
		last := map[Key]Value{}
		for _, o := range t.Ops {
			if o.Append == 0 {
				continue
			}
			v := version{o.Key, o.Append}
			if old, ok := b.wrote[v]; ok {
				panic(fmt.Sprintf("history: value %d of list %d is written by transactions %d and %d", o.Append, o.Key, old.txn, i))
			}
			b.wrote[v] = place{txn: i}
			last[o.Key] = o.Append
		}
		for k, val := range last {
			b.wrote[version{k, val}] = place{txn: i, last: true}
		}
	}
}

// orders takes the longest reading of each list as its order, and finds out which
// transactions are there.
func (b *book) orders() {
	longer := func(k Key, l []Value) {
		if len(l) > len(b.order[k]) {
			b.order[k] = l
		}
	}
	for _, t := range b.txns {
		if t.Outcome != Committed {
			continue
		}
		for _, o := range t.Ops {
			if o.Append == 0 {
				longer(o.Key, o.Read)
			}
		}
	}
	for k, l := range b.final {
		b.order[k] = l // what all must agree with
	}
	for i, t := range b.txns {
		b.there[i] = t.Outcome == Committed
	}
	for k, l := range b.order {
		for _, v := range l {
			if w, ok := b.wrote[version{k, v}]; ok && b.txns[w.txn].Outcome == Unknown {
				b.there[w.txn] = true
			}
		}
	}
}

func (b *book) judgeOrders() {
	for _, k := range sortedKeys(b.order) {
		seen := map[Value]bool{}
		for _, v := range b.order[k] {
			w, ok := b.wrote[version{k, v}]
			switch {
			case seen[v]:
				b.found.add(Duplicate, "value %d is twice in list %d: %s", v, k, shorten(b.order[k]))
			case !ok:
				b.found.add(Garbage, "value %d of list %d was written by nobody", v, k)
			case b.txns[w.txn].Outcome == Aborted:
				b.found.add(G1a, "value %d of list %d is of a transaction that was refused: T%d %v", v, k, w.txn, b.txns[w.txn])
			}
			seen[v] = true
		}
	}
}

func sortedKeys(m map[Key][]Value) []Key {
	var ks []Key
	for k := range m {
		ks = append(ks, k)
	}
	sort.Slice(ks, func(i, j int) bool { return ks[i] < ks[j] })
	return ks
}

// judgeWriters looks for what every transaction wrote in the lists at the end.
func (b *book) judgeWriters() {
	if b.final == nil {
		return
	}
	at := map[version]bool{}
	for k, l := range b.final {
		for _, v := range l {
			at[version{k, v}] = true
		}
	}
	for i, t := range b.txns {
		var in, out []version
		for _, o := range t.Ops {
			if v := (version{o.Key, o.Append}); o.Append != 0 && at[v] {
				in = append(in, v)
			} else if o.Append != 0 {
				out = append(out, v)
			}
		}
		switch {
		case len(out) > 0 && t.Outcome == Committed:
			b.found.add(LostWrite, "value %d is not in list %d at the end, but was acknowledged: T%d %v", out[0].val, out[0].key, i, t)
		case len(out) > 0 && len(in) > 0:
			b.found.add(Torn, "value %d is in list %d, value %d is not in list %d: T%d %v", in[0].val, in[0].key, out[0].val, out[0].key, i, t)
		}
	}
}

// judgeReads holds each read of a transaction against the order of its list and
// against the transaction's own steps.
func (b *book) judgeReads(i int) {
	t := b.txns[i]
	read := map[Key][]Value{} // what was read last
	own := map[Key][]Value{}  // what was appended since
	known := map[Key]bool{}
	for _, o := range t.Ops {
		k := o.Key
		if o.Append != 0 {
			own[k] = append(own[k], o.Append)
			continue
		}
		before := len(o.Read) - len(own[k]) // what others had written
		switch {
		case !endsWith(o.Read, own[k]):
			b.found.add(OwnWrite, "list %d was read as %s, without its own %v: T%d %v", k, shorten(o.Read), own[k], i, t)
		case known[k] && !equal(o.Read[:before], read[k]) && len(own[k]) == 0:
			b.found.add(FuzzyRead, "list %d was %s and then %s: T%d %v", k, shorten(read[k]), shorten(o.Read), i, t)
		case known[k] && !equal(o.Read[:before], read[k]):
			b.found.add(Internal, "list %d was %s, and after its own append %s: T%d %v", k, shorten(read[k]), shorten(o.Read), i, t)
		}
		read[k], known[k], own[k] = o.Read, true, nil
		b.judgeRead(i, o)
	}
}

func (b *book) judgeRead(i int, o Op) {
	if !isPrefix(o.Read, b.order[o.Key]) {
		b.found.add(Contradict, "list %d was read as %s, and is %s: T%d %v", o.Key, shorten(o.Read), shorten(b.order[o.Key]), i, b.txns[i])
	}
	for n, v := range o.Read {
		w, ok := b.wrote[version{o.Key, v}]
		if ok && w.txn != i && b.txns[w.txn].Outcome == Aborted {
			b.found.add(G1a, "T%d read value %d of list %d, which was refused: T%d %v", i, v, o.Key, w.txn, b.txns[w.txn])
		}
		if ok && w.txn != i && !w.last && n == len(o.Read)-1 {
			b.found.add(G1b, "T%d read value %d of list %d, in the midst of T%d %v", i, v, o.Key, w.txn, b.txns[w.txn])
		}
	}
}

// judgeFreshness looks for reads that lack what was acknowledged before they began.
func (b *book) judgeFreshness() {
	type acked struct {
		end int64
		pos int // the longest prefix that is acknowledged by then
	}
	must := map[Key][]acked{}
	for k, l := range b.order {
		var as []acked
		for n, v := range l {
			if w, ok := b.wrote[version{k, v}]; ok && b.txns[w.txn].Outcome == Committed {
				as = append(as, acked{b.txns[w.txn].End, n + 1})
			}
		}
		sort.Slice(as, func(i, j int) bool { return as[i].end < as[j].end })
		for n := 1; n < len(as); n++ {
			as[n].pos = max(as[n].pos, as[n-1].pos)
		}
		must[k] = as
	}
	for i, t := range b.txns {
		if !b.there[i] {
			continue
		}
		for _, o := range t.Ops {
			as := must[o.Key]
			n := sort.Search(len(as), func(n int) bool { return as[n].end >= t.Begin })
			if o.Append == 0 && n > 0 && len(o.Read) < as[n-1].pos && isPrefix(o.Read, b.order[o.Key]) {
				b.found.add(StaleRead, "list %d was read as %s, but was %s before that began: T%d %v", o.Key, shorten(o.Read), shorten(b.order[o.Key][:as[n-1].pos]), i, t)
			}
		}
	}
}

func equal(a, b []Value) bool { return len(a) == len(b) && isPrefix(a, b) }

func isPrefix(p, l []Value) bool {
	if len(p) > len(l) {
		return false
	}
	for i := range p {
		if p[i] != l[i] {
			return false
		}
	}
	return true
}

func endsWith(l, tail []Value) bool {
	return len(tail) <= len(l) && isPrefix(tail, l[len(l)-len(tail):])
}
