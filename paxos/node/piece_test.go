package node

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/phxsql/phxsql/paxos"
)

// sums is a state machine that remembers what it got by size and sum.
type sums struct {
	mu  sync.Mutex
	at  paxos.Instance
	got []sum
}

type sum struct {
	size int
	hash [32]byte
}

func sumOf(b []byte) sum { return sum{len(b), sha256.Sum256(b)} }

func (s *sums) Applied() paxos.Instance { return s.at }

func (s *sums) Apply(i paxos.Instance, value []byte) any {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.got = append(s.got, sumOf(value))
	return len(value)
}

func (s *sums) last() sum {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.got) == 0 {
		return sum{}
	}
	return s.got[len(s.got)-1]
}

func newSums(t *testing.T) (*trio, map[paxos.NodeID]*sums) {
	all := map[paxos.NodeID]*sums{}
	return newTrio(t, func(c *trio) {
		c.segment, c.lease = 64<<20, steady
		c.machine = func(id paxos.NodeID, _ *tape) StateMachine {
			all[id] = &sums{}
			return all[id]
		}
	}), all
}

// put proposes a value until it is known to be applied: on a busy machine leaders
// change, and what was not proposed must not be applied.
func (c *trio) put(value []byte) paxos.Instance {
	c.t.Helper()
	ctx := within(c.t)
	for {
		i, size, err := c.leader(0).Propose(ctx, 0, value)
		if err == nil && size == len(value) {
			return i
		}
		if !errors.Is(err, ErrNotLeader) {
			c.t.Fatalf("%d bytes: applied %v, %v", len(value), size, err)
		}
	}
}

func pattern(size int) []byte {
	b := make([]byte, size)
	for i := 0; i+8 <= size; i += 8 {
		binary.LittleEndian.PutUint64(b[i:], uint64(i)*0x9e3779b97f4a7c15)
	}
	return b
}

func TestLargeValuesAreAppliedAsAWhole(t *testing.T) {
	c, all := newSums(t)
	for _, value := range [][]byte{
		pattern(pieceSize), pattern(pieceSize + 1), pattern(3 * pieceSize), pattern(5*pieceSize - 1),
		append(bytes.Clone(pieceMagic), "looks like a piece"...), pieceMagic, nil,
	} {
		i := c.put(value)
		for id, n := range c.nodes {
			if err := n.WaitApplied(within(t), 0, i); err != nil {
				t.Fatal(err)
			}
			if got := all[id].last(); got != sumOf(value) {
				t.Fatalf("node %d applied %d bytes for %d", id, got.size, len(value))
			}
			if got, ok, err := n.Read(0, i); err != nil || !ok || !bytes.Equal(got, value) {
				t.Fatalf("node %d reads %d bytes for %d: %v, %v", id, len(got), len(value), ok, err)
			}
		}
	}
}

// TestSmallValuesDoNotPartLargeOnes: many proposers at once.
func TestSmallValuesDoNotPartLargeOnes(t *testing.T) {
	c, all := newSums(t)
	var wg sync.WaitGroup
	for k := range 24 {
		wg.Go(func() {
			for range 5 {
				size := 100 + k
				if k%8 == 0 {
					size = 4*pieceSize + k
				}
				c.put(pattern(size))
			}
		})
	}
	wg.Wait()
	for id, n := range c.nodes {
		if err := n.WaitApplied(within(t), 0, c.leader(0).groups[0].log.Chosen()); err != nil {
			t.Fatal(err)
		}
		if got := len(all[id].got); got != 24*5 {
			t.Fatalf("node %d applied %d values", id, got)
		}
	}
}

// TestAPartedValueIsVoid: pieces without the rest, and with another value between.
func TestAPartedValueIsVoid(t *testing.T) {
	c, all := newSums(t)
	n := c.leader(0)
	value := pattern(3 * pieceSize)
	part := func(k uint32) []byte {
		p := piece{value: [16]byte{7}, index: k, count: 3, size: uint64(len(value)), data: value[k*pieceSize : (k+1)*pieceSize]}
		return p.encode()
	}
	raw := func(b []byte) outcome {
		g := n.groups[0]
		if err := g.gate.Acquire(within(t), 1); err != nil {
			t.Fatal(err)
		}
		return g.proposeOne(within(t), b, 1)
	}
	for _, k := range []uint32{0, 1} {
		if o := raw(part(k)); !errors.Is(o.err, errVoid) {
			t.Fatalf("piece %d alone: %+v", k, o)
		}
	}
	if _, _, err := n.Propose(within(t), 0, []byte("between")); err != nil {
		t.Fatal(err)
	}
	if o := raw(part(2)); !errors.Is(o.err, errVoid) {
		t.Fatalf("the last piece of a parted value: %+v", o)
	}
	broken := part(2)
	if o := raw(broken[:50]); !errors.Is(o.err, errVoid) {
		t.Fatalf("half a piece: %+v", o)
	}
	i, _, err := n.Propose(within(t), 0, []byte("behind"))
	if err != nil {
		t.Fatal(err)
	}
	for id, n := range c.nodes {
		if err := n.WaitApplied(within(t), 0, i); err != nil {
			t.Fatal(err)
		}
		if got := all[id].got; len(got) != 2 || got[1] != sumOf([]byte("behind")) {
			t.Fatalf("node %d applied %v", id, got)
		}
	}
}

// TestALeaderThatEndsAmidALargeValueLeavesNothing: the value is applied on all nodes
// or on none, and its proposer knew.
func TestALeaderThatEndsAmidALargeValueLeavesNothing(t *testing.T) {
	c, all := newSums(t)
	lead := c.leader(0)
	value := pattern(48 * pieceSize)
	done := make(chan error, 1)
	go func() {
		_, _, err := lead.Propose(within(t), 0, value)
		done <- err
	}()
	until(t, "first pieces", func() bool { return lead.groups[0].log.Chosen() > 6 })
	if err := lead.Transfer(0, 0); err != nil {
		t.Fatal(err)
	}
	err := <-done
	until(t, "another leader", func() bool { n := c.leading(0); return n != nil && n != lead })
	i, _, perr := c.leader(0).Propose(within(t), 0, []byte("next"))
	if perr != nil {
		t.Fatal(perr)
	}
	var first []sum
	for id, n := range c.nodes {
		if err := n.WaitApplied(within(t), 0, i); err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = all[id].got
		}
		if got := all[id].got; len(got) != len(first) || err == nil && len(got) != 2 || errors.Is(err, ErrNotLeader) && len(got) != 1 {
			t.Fatalf("node %d applied %d values, its proposer got %v", id, len(got), err)
		}
	}
	t.Logf("the proposer got: %v", err)
}

// TestAValueOf200MiB takes what its proposer and three members need, and not much more.
func TestAValueOf200MiB(t *testing.T) {
	if testing.Short() {
		t.Skip("600 MiB of log")
	}
	c, all := newSums(t)
	size := 200 << 20
	if raced {
		size /= 5
	}
	value := pattern(size)
	want := sumOf(value)
	begun := time.Now()
	i := c.put(value)
	lasted := time.Since(begun)
	for id, n := range c.nodes {
		if err := n.WaitApplied(within(t), 0, i); err != nil {
			t.Fatal(err)
		}
		if len(all[id].got) != 1 || all[id].last() != want {
			t.Fatalf("node %d applied something else", id)
		}
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	t.Logf("chosen and applied after %v; heap of proposer and three members: %d MiB from the system", lasted.Round(time.Millisecond), m.HeapSys>>20)
}

func FuzzDecodePiece(f *testing.F) {
	p := piece{count: 1, size: 3, data: []byte("abc")}
	f.Add(p.encode())
	f.Add(pieceMagic)
	f.Add([]byte("whole"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, is := decodePiece(b)
		if is && p.count > 0 && !bytes.Equal(p.encode(), b) {
			t.Fatalf("%x is decoded to %+v", b, p)
		}
	})
}
