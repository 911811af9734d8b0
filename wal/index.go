package wal

import (
	"fmt"
	"slices"
)

// place is where the latest record of an entry is. The zero place is nowhere:
// position 0 is the segment header.
type place struct {
	segment  uint32
	position uint32 // offset in the file divided by 8
	length   uint32 // of the payload
}

func (p place) offset() int64 { return int64(p.position) * align }

const (
	pageBits = 8
	pageSize = 1 << pageBits

	// maxGap is how far from its neighbours an entry may be. A larger index is
	// refused: it is a stray number, and the index in memory would grow with it.
	maxGap = 1 << 20
	// recoverGap is the same at Open, where what lay between may be trimmed.
	recoverGap = 1 << 30

	// maxIndex is the largest index of an entry.
	maxIndex = 1 << 62
)

type page [pageSize]place

// groupIndex is what the log knows about one group: the places of its entries in
// pages, so that the index neither moves when it grows nor keeps what is trimmed.
type groupIndex struct {
	first, last uint64 // of the entries held; first == last+1 when there are none
	trim        uint64 // entries below it are gone
	base        uint64 // number of pages[0]: index >> pageBits
	pages       []*page
	states      []stateSlot
	trimLSN     LSN // of the latest trim

	// What the bounds will be after the call of Append that is checked now.
	planCall            uint64
	planFirst, planLast uint64
}

// stateSlot is the latest payload of one key.
type stateSlot struct {
	key     uint8
	payload []byte
}

func newGroupIndex() *groupIndex { return &groupIndex{first: 1} }

func (g *groupIndex) empty() bool { return g.first > g.last }

// plan checks that an entry may be added, after those planned in the same call.
func (g *groupIndex) plan(call, index, gap uint64) error {
	if g.planCall != call {
		g.planCall, g.planFirst, g.planLast = call, g.first, g.last
	}
	lo, hi := g.planFirst, g.planLast
	fresh := hi == 0
	switch {
	case index == 0 || index > maxIndex:
		return fmt.Errorf("entry with index %d: %w", index, ErrInvalid)
	case index < g.trim:
		return fmt.Errorf("entry %d is below %d: %w", index, g.trim, ErrTrimmed)
	case !fresh && (index > hi+gap || lo <= hi && index+gap < lo):
		return fmt.Errorf("entry %d is more than %d away from %d to %d: %w", index, gap, lo, hi, ErrInvalid)
	}
	if lo > hi {
		lo, hi = index, index
	}
	g.planFirst, g.planLast = min(lo, index), max(hi, index)
	return nil
}

// get returns the place of an entry; ok is false if there is none.
func (g *groupIndex) get(index uint64) (place, bool) {
	if g.empty() || index < g.first || index > g.last {
		return place{}, false
	}
	p := g.pages[index>>pageBits-g.base]
	if p == nil {
		return place{}, false
	}
	at := p[index%pageSize]
	return at, at != place{}
}

// set notes the place of an entry, which must fit.
func (g *groupIndex) set(index uint64, at place) {
	n := index >> pageBits
	if len(g.pages) == 0 {
		g.base = n
	}
	if n < g.base {
		g.pages = append(make([]*page, g.base-n), g.pages...)
		g.base = n
	}
	for n-g.base >= uint64(len(g.pages)) {
		g.pages = append(g.pages, nil)
	}
	p := g.pages[n-g.base]
	if p == nil {
		p = new(page)
		g.pages[n-g.base] = p
	}
	p[index%pageSize] = at
	if g.empty() {
		g.first, g.last = index, index
		return
	}
	g.first, g.last = min(g.first, index), max(g.last, index)
}

// trimBelow forgets entries below index and reports whether that is new.
func (g *groupIndex) trimBelow(index uint64) bool {
	if index <= g.trim || index > maxIndex {
		return false
	}
	g.trim = index
	if index <= g.first && !g.empty() {
		return true
	}
	if g.empty() || index > g.last {
		g.first, g.last = index, index-1
		g.pages, g.base = nil, 0
		return true
	}
	drop := min(index>>pageBits-g.base, uint64(len(g.pages)))
	clear(g.pages[:drop])
	g.pages = g.pages[drop:]
	g.base += drop
	if p := g.pages[0]; p != nil {
		clear(p[:index%pageSize])
	}
	g.first = g.next(index)
	return true
}

// next returns the lowest index from index on that has an entry; the last one
// always has.
func (g *groupIndex) next(index uint64) uint64 {
	for index < g.last {
		p := g.pages[index>>pageBits-g.base]
		if p == nil {
			index = (index>>pageBits + 1) << pageBits
			continue
		}
		if p[index%pageSize] != (place{}) {
			break
		}
		index++
	}
	return index
}

func (g *groupIndex) state(key uint8) []byte {
	for i := range g.states {
		if g.states[i].key == key {
			return g.states[i].payload
		}
	}
	return nil
}

// dropState forgets a state, which setState may bring back.
func (g *groupIndex) dropState(key uint8) {
	g.states = slices.DeleteFunc(g.states, func(s stateSlot) bool { return s.key == key })
}

func (g *groupIndex) setState(key uint8, payload []byte) {
	for i := range g.states {
		if g.states[i].key == key {
			g.states[i].payload = append(g.states[i].payload[:0], payload...)
			return
		}
	}
	g.states = append(g.states, stateSlot{key: key, payload: append(make([]byte, 0, len(payload)), payload...)})
}
