package host

import (
	"testing"

	"github.com/phxsql/phxsql/paxos"
	"pgregory.net/rapid"
)

// TestQueueKeepsTheOrder compares the queue with a plain slice.
func TestQueueKeepsTheOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var q proposals
		var want []int // lengths of the data, which tell them apart
		next := 1
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			for range rapid.IntRange(0, 20).Draw(t, "put") {
				q.put(proposal{data: make([]byte, next)})
				want, next = append(want, next), next+1
			}
			count, limit := rapid.IntRange(0, 30).Draw(t, "count"), rapid.IntRange(1, 5000).Draw(t, "limit")
			batch, more := q.take(nil, count, limit)
			bytes := 0
			for i, p := range batch {
				if len(p.data) != want[i] || bytes >= limit {
					t.Fatalf("took %d bytes behind %d, want %d", len(p.data), bytes, want[i])
				}
				bytes += len(p.data)
			}
			if more != (len(batch) < len(want)) || len(batch) < min(count, len(want)) && bytes < limit {
				t.Fatalf("took %d of %d, %d bytes, limits %d and %d, more: %v", len(batch), len(want), bytes, count, limit, more)
			}
			back := rapid.IntRange(0, len(batch)).Draw(t, "back")
			q.putBack(batch[back:])
			want = want[back:]
			sum := int64(0)
			for _, n := range want {
				sum += int64(n) + proposalOverhead
			}
			if q.bytes != sum {
				t.Fatalf("%d bytes are queued, want %d", q.bytes, sum)
			}
		}
		if got := q.drain(); len(got) != len(want) || q.bytes != 0 {
			t.Fatalf("%d left, want %d", len(got), len(want))
		}
	})
}

// TestAnInboxKeepsNoMessages: what was taken from an inbox, in one portion or several, is
// nowhere in the memory that is used again, and a burst takes its memory with it.
func TestAnInboxKeepsNoMessages(t *testing.T) {
	for _, count := range []int{10, maxSpare + 1} {
		var g Group
		data := make([]byte, maxTurnBytes/3)
		for range count {
			g.inbox = append(g.inbox, paxos.Message{Kind: paxos.MsgAccept, Entries: []paxos.Entry{{Data: data}}})
		}
		got := 0
		for len(g.inbox) > 0 {
			in := g.takeInbox()
			got += len(in.msgs)
			g.reuse(in.msgs)
			for _, kept := range [][]paxos.Message{g.inbox[len(g.inbox):cap(g.inbox)], g.spare[:cap(g.spare)]} {
				for i := range kept {
					if kept[i].Entries != nil {
						t.Fatalf("of %d messages, %d taken, some are kept", count, got)
					}
				}
			}
		}
		g.takeInbox()
		if c := max(cap(g.inbox), cap(g.spare)); got != count || c > maxSpare {
			t.Errorf("took %d of %d messages, room for %d is kept", got, count, c)
		}
	}
}
