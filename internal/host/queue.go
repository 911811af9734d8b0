package host

import (
	"slices"

	"github.com/phxsql/phxsql/internal/replica"
)

// proposal is a value that waits for room in the core.
type proposal struct {
	data []byte
	done replica.Done
}

// proposalOverhead is what a proposal counts in the queue beyond its data.
const proposalOverhead = 64

func (p *proposal) size() int64 { return int64(len(p.data)) + proposalOverhead }

// proposals is a queue: first in, first out.
type proposals struct {
	list  []proposal
	head  int   // what is before it was taken
	bytes int64 // of what is queued
}

func (q *proposals) put(p proposal) {
	switch {
	case q.head == len(q.list):
		q.list, q.head = q.list[:0], 0
	case len(q.list) == cap(q.list) && q.head > len(q.list)/2: // so each is moved once at most
		n := copy(q.list, q.list[q.head:])
		clear(q.list[n:])
		q.list, q.head = q.list[:n], 0
	}
	q.list = append(q.list, p)
	q.bytes += p.size()
}

// take appends the oldest proposals to a batch, count of them at most and no more when
// there are limit bytes, and reports whether some are left.
func (q *proposals) take(batch []proposal, count, limit int) (taken []proposal, more bool) {
	for bytes := 0; q.head < len(q.list) && len(batch) < count && bytes < limit; q.head++ {
		p := q.list[q.head]
		q.list[q.head] = proposal{}
		q.bytes -= p.size()
		bytes += len(p.data)
		batch = append(batch, p)
	}
	return batch, q.head < len(q.list)
}

// putBack queues proposals again before all others.
func (q *proposals) putBack(list []proposal) {
	q.list = slices.Insert(q.list, q.head, list...)
	for i := range list {
		q.bytes += list[i].size()
	}
}

// drain takes all.
func (q *proposals) drain() []proposal {
	all := q.list[q.head:]
	*q = proposals{}
	return all
}
