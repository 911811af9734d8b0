package sim

import "github.com/phxsql/phxsql/paxos"

// The state that reads look at is the log itself: a read at an instance sees all
// through it. Such a history is linearizable if and only if each read sees at least
// what was answered, to a proposer or a reader anywhere, before it began, and nothing
// that is not decided when it ends.

// maxReads limits the questions of a node whose answers have not come.
const maxReads = 32

// ask lets some nodes ask for a read index.
func (w *world) ask() {
	for _, n := range w.nodes {
		if !n.up || len(n.reads) >= maxReads || w.rng.IntN(2) == 0 {
			continue
		}
		w.reads++
		n.reads[w.reads] = question{w.now, w.judge.answered}
		n.command(paxos.Event{Kind: paxos.EventReadIndex, Token: w.reads})
	}
}

// read ends a read by its answer; one that was answered, or asked in another life,
// is nobody's.
func (n *node) read(r paxos.ReadIndex) {
	began, ok := n.reads[r.Token]
	if !ok {
		return
	}
	delete(n.reads, r.Token)
	n.w.judge.read(n, began.answered, r.Instance, "by read index")
	n.waiting = append(n.waiting, reader{began.at, r.Instance})
	n.readOn()
}

// question is what was so when a read began.
type question struct {
	at       moment
	answered paxos.Instance // newest instance that somebody outside knew of
}

// reader waits until the state of its node has everything through an instance.
type reader struct {
	began moment
	index paxos.Instance
}

// readOn ends the reads that the state of the node suffices for.
func (n *node) readOn() {
	rest := n.waiting[:0]
	for _, r := range n.waiting {
		if n.declared < r.index {
			rest = append(rest, r)
			continue
		}
		n.w.history.saw(n.w, n, r.began, n.declared)
	}
	n.waiting = rest
}

// readHere reads the own state under the own lease.
func (n *node) readHere() {
	if n.holdsLease() && n.lead.Ready {
		n.w.judge.read(n, n.w.judge.answered, n.declared, "under its lease")
		if n.w.history.on && n.w.rng.IntN(16) == 0 {
			n.w.history.saw(n.w, n, n.w.now, n.declared)
		}
	}
}

// read judges a read at instance i that began when everything through began was
// answered to somebody.
func (j *judge) read(n *node, began, i paxos.Instance, how string) {
	if i < began {
		j.w.fail("stale-read", "node %d reads %s at instance %d; %d was answered to somebody before", n.id, how, i, began)
	}
	if i >= paxos.Instance(len(j.decisions)) {
		j.w.fail("early-read", "node %d reads %s at instance %d, which is not decided", n.id, how, i)
	}
	j.answered = max(j.answered, i)
	j.w.stats.Reads++
}
