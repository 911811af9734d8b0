package host

import (
	"bytes"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/phxsql/phxsql/internal/replica"
	"github.com/phxsql/phxsql/paxos"
	"github.com/phxsql/phxsql/vfs"
	"github.com/phxsql/phxsql/wal"
)

// alone is a host whose groups have one member each, which leads them. Its log may be
// wrapped.
func alone(t *testing.T, groups int, keep int64, wrap func(*wal.Log) Log) (*Host, []*node) {
	t.Helper()
	l, err := wal.Open(wal.Options{FS: vfs.NewMem(), Dir: "/log", SegmentSize: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	h := New(Options{Log: wrap(l), Sender: port{net: &network{}, from: 1}, Logger: slog.New(slog.DiscardHandler), KeepBytes: keep})
	t.Cleanup(func() { h.Close(); l.Close() })
	var list []*node
	for id := range groups {
		if err := replica.Bootstrap(l, wal.Group(id), 1, threeMembers(1)); err != nil {
			t.Fatal(err)
		}
		g, err := h.Start(paxos.Group(id), paxos.Defaults(1, rand.Int64N))
		if err != nil {
			t.Fatal(err)
		}
		g.SetCandidacy(true, 0)
		list = append(list, &node{h, l, g})
	}
	for _, n := range list {
		waitLeader(t, n)
	}
	return h, list
}

func bare(l *wal.Log) Log { return l }

// fill has values chosen, the i-th of them with bytes of i.
func fill(t *testing.T, g *Group, count, size int) (through paxos.Instance) {
	t.Helper()
	var wg sync.WaitGroup
	for i := range count {
		wg.Add(1)
		err := g.Propose(bytes.Repeat([]byte{byte(i)}, size), func(at paxos.Instance, err error) {
			if err != nil {
				t.Error(err)
			}
			through = max(through, at)
			wg.Done()
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	wg.Wait()
	return through
}

// TestGroupsShareTheMemory: a group that is busy alone has all of it, and many keep
// no more than that together. Whatever is kept, everything can be read.
func TestGroupsShareTheMemory(t *testing.T) {
	const size, keep = 20 << 10, 1 << 20
	h, list := alone(t, 5, keep, bare)
	ends := make([]paxos.Instance, len(list))
	ends[0] = fill(t, list[0].group, 45, size) // fits, with the overhead
	if _, ok := list[0].group.recent.get(ends[0] - 44); !ok {
		t.Errorf("a group alone keeps %d bytes of %d only", h.memory.used.Load(), int64(keep))
	}
	for i := range list {
		ends[i] = fill(t, list[i].group, 45, size)
	}
	for _, n := range list { // each goes down in its own next turn
		if _, err := n.group.Status(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for i, n := range list {
		for k := range 45 {
			e, err := n.group.Read(ends[i] - 44 + paxos.Instance(k))
			if err != nil || !bytes.Equal(e.Data, bytes.Repeat([]byte{byte(k)}, size)) {
				t.Fatalf("group %d, value %d: %d bytes, %v", i, k, len(e.Data), err)
			}
		}
	}
	sum := int64(0)
	for _, n := range list {
		n.group.turning.Lock()
		sum += n.group.rep.Core().Kept()
		if n.group.kept != n.group.rep.Core().Kept() {
			t.Errorf("a group counts %d bytes, its core has %d", n.group.kept, n.group.rep.Core().Kept())
		}
		n.group.turning.Unlock()
	}
	if used := h.memory.used.Load(); sum > keep || used > keep {
		t.Errorf("%d bytes are kept, %d counted, limit %d", sum, used, int64(keep))
	}
}
