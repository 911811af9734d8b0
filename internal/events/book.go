package events

import (
	"slices"

	"github.com/phxsql/phxsql/paxos"
)

// Keep is how many events a node keeps; the oldest go.
const Keep = 500

// Book holds the newest events. The zero Book is empty. It is for one goroutine.
type Book struct {
	list    []Event // what the log has said, in the order of the log
	pending []Event // what the log has not said yet, in the order in which it happened
	ids     map[string]paxos.Instance
}

// Add takes an event in and reports whether it changes anything. One with an
// instance comes from the log; the same one without is then no longer pending.
func (b *Book) Add(e Event) bool {
	if b.ids == nil {
		b.ids = map[string]paxos.Instance{}
	}
	at, known := b.ids[e.ID]
	if known && (at != 0 || e.Instance == 0) {
		return false
	}
	b.ids[e.ID] = e.Instance
	if e.Instance == 0 {
		b.pending = append(b.pending, e)
		b.bound(&b.pending)
		return true
	}
	if known {
		b.pending = slices.DeleteFunc(b.pending, func(p Event) bool { return p.ID == e.ID })
	}
	n, _ := slices.BinarySearchFunc(b.list, e.Instance, func(o Event, i paxos.Instance) int {
		switch {
		case o.Instance < i:
			return -1
		case o.Instance > i:
			return 1
		}
		return 0
	})
	b.list = slices.Insert(b.list, n, e)
	b.bound(&b.list)
	return true
}

// bound drops the oldest beyond the limit.
func (b *Book) bound(list *[]Event) {
	for len(*list) > Keep {
		delete(b.ids, (*list)[0].ID)
		*list = slices.Delete(*list, 0, 1)
	}
}

// Pending returns what the log has not said yet, the oldest first.
func (b *Book) Pending() []Event { return slices.Clone(b.pending) }

// Newest returns the newest n events, oldest first, those that are pending behind
// the others; 0 is all.
func (b *Book) Newest(n int) []Event {
	all := slices.Concat(b.list, b.pending)
	if n > 0 && len(all) > n {
		all = all[len(all)-n:]
	}
	return all
}

// Through is where the newest event of the log stands that the book holds.
func (b *Book) Through() paxos.Instance {
	if len(b.list) == 0 {
		return 0
	}
	return b.list[len(b.list)-1].Instance
}
