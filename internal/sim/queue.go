package sim

import "github.com/phxsql/phxsql/paxos"

// moment is a reading of the true time in nanoseconds, which no node can see.
type moment int64

type itemKind uint8

const (
	itemMessage itemKind = iota + 1
	itemTick
	itemTurn
	itemSynced
	itemRestart
	itemResume
	itemTrouble
	itemPropose
	itemHeal
	itemJudge
	itemAmbush
	itemSeek
	itemEnd  // of a process whose disk has failed
	itemRoom // on a full disk
	itemCopied
)

// item is something that will happen.
type item struct {
	at   moment
	seq  uint64 // items of one moment happen in the order in which they were made
	kind itemKind
	node int    // index of the node
	life int    // of the node; an item of an earlier life does not happen
	arg  uint64 // itemSynced: LSN
	msg  *paxos.Message
}

func (a *item) before(b *item) bool {
	if a.at != b.at {
		return a.at < b.at
	}
	return a.seq < b.seq
}

// queue is a binary heap of items.
type queue struct {
	items []item
	seq   uint64
}

func (q *queue) push(it item) {
	q.seq++
	it.seq = q.seq
	q.items = append(q.items, it)
	i := len(q.items) - 1
	for i > 0 {
		up := (i - 1) / 2
		if q.items[up].before(&it) {
			break
		}
		q.items[i] = q.items[up]
		i = up
	}
	q.items[i] = it
}

func (q *queue) pop() item {
	top := q.items[0]
	n := len(q.items) - 1
	last := q.items[n]
	q.items[n] = item{}
	q.items = q.items[:n]
	if n == 0 {
		return top
	}
	i := 0
	for {
		down := 2*i + 1
		if down >= n {
			break
		}
		if down+1 < n && q.items[down+1].before(&q.items[down]) {
			down++
		}
		if last.before(&q.items[down]) {
			break
		}
		q.items[i] = q.items[down]
		i = down
	}
	q.items[i] = last
	return top
}
