package vfs

import (
	"bytes"
	"math/rand/v2"
)

// Crash is a power cut: writes that were not synced survive, are lost or are torn
// as rng decides, and so do changes of directories. Handles and locks of the time
// before are dead. With equal calls before and an equal rng the result is equal.
func (m *Mem) Crash(rng *rand.Rand) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, o := range m.ops {
		if rng.IntN(2) == 0 {
			o.apply(m.kept)
		}
	}
	m.ops = m.ops[:0]
	clear(m.names)
	for _, name := range sortedNames(m.kept) {
		n := m.kept[name]
		n.crash(rng)
		m.names[name] = n
	}
	m.endLife()
}

// Kill is the sudden end of the process but not of the machine: everything
// written is still there, but not more durable than before. Handles and locks of
// the time before are dead.
func (m *Mem) Kill() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.endLife()
}

func (m *Mem) endLife() {
	m.life++
	clear(m.locks)
}

// CrashClone returns what a power cut now would leave, and goes on as if nothing
// had happened.
func (m *Mem) CrashClone(rng *rand.Rand) *Mem {
	c := m.clone()
	c.Crash(rng)
	return c
}

// clone copies everything but locks; open handles stay with m.
func (m *Mem) clone() *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := NewMem()
	c.free = m.free
	twin := make(map[*memNode]*memNode)
	get := func(n *memNode) *memNode {
		if twin[n] == nil {
			twin[n] = n.clone()
		}
		return twin[n]
	}
	for name, n := range m.names {
		c.names[name] = get(n)
	}
	for name, n := range m.kept {
		c.kept[name] = get(n)
	}
	for _, o := range m.ops {
		o.node = get(o.node)
		c.ops = append(c.ops, o)
	}
	return c
}

func (n *memNode) clone() *memNode {
	return &memNode{
		cur: bytes.Clone(n.cur), size: n.size,
		synced: bytes.Clone(n.synced), syncSize: n.syncSize,
		writes: append([]memWrite(nil), n.writes...), arena: bytes.Clone(n.arena), phantom: n.phantom,
	}
}

// crash decides each write that was not synced and leaves the node in the state
// of a file that was just opened. Its cost is that of the unsynced bytes.
func (n *memNode) crash(rng *rand.Rand) {
	if len(n.writes) == 0 && !n.phantom {
		return
	}
	resized := n.phantom
	n.phantom = false
	for _, w := range n.writes {
		resized = resized || w.n < 0
		switch rng.IntN(3) {
		case 0: // survives
			n.settle(w)
		case 1: // lost
		case 2:
			n.tear(w, rng)
		}
	}
	if resized {
		n.cur = append(n.cur[:0], n.synced...)
	} else {
		n.revert()
	}
	n.size = n.syncSize
	n.writes, n.arena = n.writes[:0], n.arena[:0]
}

// tear lets each sector of a write survive or not.
func (n *memNode) tear(w memWrite, rng *rand.Rand) {
	if w.n < 0 {
		return // a change of size is atomic: lost
	}
	for at := 0; at < w.n; {
		off := w.off + int64(at)
		part := min(w.n-at, SectorSize-int(off%SectorSize))
		if rng.IntN(2) == 0 {
			n.settle(memWrite{off: off, start: w.start + at, n: part})
		}
		at += part
	}
}

// revert makes reads see what survived, in the ranges that were written.
func (n *memNode) revert() {
	for _, w := range n.writes {
		end := min(w.off+int64(w.n), int64(len(n.cur)))
		if w.off >= end {
			continue
		}
		dst := n.cur[w.off:end]
		c := 0
		if w.off < int64(len(n.synced)) {
			c = copy(dst, n.synced[w.off:])
		}
		clear(dst[c:])
	}
	n.cur = cut(n.cur, n.syncSize)
}
