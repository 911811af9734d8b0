package paxos

// window keeps the accepted entries above base in memory: all that are not
// known to be chosen, and the newest chosen ones, for members that lag a little.
// An entry of kind zero is a hole.
type window struct {
	base Instance
	ents []Entry
	ends []int64 // ends[i]: bytes of all entries ever put through ents[i]
	head int64   // the same at base
}

func (w *window) last() Instance { return w.base + Instance(len(w.ents)) }

// get returns the entry at i, which has kind zero where there is none.
func (w *window) get(i Instance) Entry {
	if i <= w.base || i > w.last() {
		return Entry{}
	}
	return w.ents[i-w.base-1]
}

// put stores an entry above base, over whatever is there. What lies between
// the last entry and a new one becomes holes.
func (w *window) put(e Entry) {
	if e.Instance <= w.base {
		panic("paxos: put below the window")
	}
	for w.last() < e.Instance {
		w.ents = append(w.ents, Entry{})
		w.ends = append(w.ends, w.end(w.last()-1))
	}
	k := int(e.Instance - w.base - 1)
	grown := int64(e.size())
	if old := w.ents[k]; old.Kind != 0 {
		grown -= int64(old.size())
	}
	w.ents[k] = e
	for ; k < len(w.ends) && grown != 0; k++ {
		w.ends[k] += grown
	}
}

// end is the byte position behind instance i.
func (w *window) end(i Instance) int64 {
	switch {
	case i <= w.base:
		return w.head
	case i >= w.last():
		i = w.last()
	}
	if len(w.ends) == 0 {
		return w.head
	}
	return w.ends[i-w.base-1]
}

// bytes is the size of the entries in (from, through].
func (w *window) bytes(from, through Instance) int64 {
	if through <= from {
		return 0
	}
	return w.end(through) - w.end(from)
}

// from returns a copy of the entries from first on, at most limit bytes but at
// least one, up to and including through. It is a copy because put may write
// over an instance while a message is still queued.
func (w *window) from(first, through Instance, limit int64) []Entry {
	if first <= w.base || first > through || through > w.last() {
		return nil
	}
	n := Instance(0)
	start := w.end(first - 1)
	for first+n <= through && (n == 0 || w.end(first+n)-start <= limit) {
		n++
	}
	k := first - w.base - 1
	return append([]Entry(nil), w.ents[k:k+n]...)
}

// drop forgets everything through i.
func (w *window) drop(i Instance) {
	if i <= w.base {
		return
	}
	if i >= w.last() {
		w.head = w.end(i)
		w.ents, w.ends, w.base = nil, nil, i
		return
	}
	n := int(i - w.base)
	w.head = w.ends[n-1]
	clear(w.ents[:n]) // lets the data go before the array does
	w.ents, w.ends, w.base = w.ents[n:], w.ends[n:], i
}
