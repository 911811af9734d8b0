package sim

import (
	"bytes"
	"encoding/binary"

	"github.com/phxsql/phxsql/internal/replica"
	"github.com/phxsql/phxsql/paxos"
)

// decision is what was chosen at an instance.
type decision struct {
	sum     uint64
	kind    paxos.EntryKind
	members int // index of the membership that decided on it, in judge.members
}

type proposed struct {
	size int
	told paxos.Instance // where the proposer was told it is chosen, 0 before
}

// judge knows what has been decided. It learns it from the first node that
// declares it, and holds everybody to it.
type judge struct {
	w         *world
	decisions []decision // by instance; 0 is not used
	members   []paxos.Members
	current   int
	values    []proposed // by number of proposal
	wanted    map[uint64]bool
	answered  paxos.Instance // newest instance that somebody outside knows of
}

func newJudge(w *world, first paxos.Members) *judge {
	j := &judge{w: w, decisions: make([]decision, 1), members: []paxos.Members{first}, values: make([]proposed, 1), wanted: map[uint64]bool{}}
	j.wanted[sumOf(paxos.Membership, first.Encode())] = true
	return j
}

// value makes a proposal that no other equals.
func (j *judge) value(size int) []byte {
	b := make([]byte, 8+size)
	binary.LittleEndian.PutUint64(b, uint64(len(j.values)))
	for k := 8; k < len(b); k++ {
		b[k] = b[0]
	}
	j.values = append(j.values, proposed{size: len(b)})
	return b
}

// declared judges an entry that a node says is chosen.
func (j *judge) declared(n *node, e *paxos.Entry) {
	if e.Instance != n.declared+1 {
		j.w.fail("order", "node %d declares instance %d chosen after %d", n.id, e.Instance, n.declared)
	}
	n.declared = e.Instance
	sum := sumOf(e.Kind, e.Data)
	if e.Instance > paxos.Instance(len(j.decisions)) {
		j.w.fail("order", "node %d declares instance %d chosen, nobody knows %d", n.id, e.Instance, len(j.decisions))
	}
	if e.Instance == paxos.Instance(len(j.decisions)) {
		j.decide(n, e, sum)
		return
	}
	if d := j.decisions[e.Instance]; d.sum != sum || d.kind != e.Kind {
		j.w.fail("two-values", "node %d says that %v %#x is chosen at instance %d, it was %v %#x", n.id, e.Kind, sum, e.Instance, d.kind, d.sum)
	}
}

// decide takes the first declaration of an instance.
func (j *judge) decide(n *node, e *paxos.Entry, sum uint64) {
	switch e.Kind {
	case paxos.Normal:
		if sum == 0 || sum >= uint64(len(j.values)) || j.values[sum].size != len(e.Data) || bytes.Count(e.Data[8:], e.Data[:1]) != len(e.Data)-8 {
			j.w.fail("invented", "node %d: instance %d has a value that nobody proposed: %x", n.id, e.Instance, e.Data)
		}
	case paxos.Membership:
		if !j.wanted[sum] {
			j.w.fail("invented", "node %d: instance %d has a membership that nobody proposed: %s", n.id, e.Instance, e.Data)
		}
	}
	votes, quorum := 0, j.members[j.current].Quorum()
	for _, m := range j.members[j.current].List {
		if m.Votes() && j.w.node(m.ID).disk.holds(e.Instance, sum) {
			votes++
		}
	}
	if votes < quorum {
		j.w.fail("not-durable", "node %d declares instance %d chosen, which is on the disks of %d members, not %d", n.id, e.Instance, votes, quorum)
	}
	j.decisions = append(j.decisions, decision{sum: sum, kind: e.Kind, members: j.current})
	if e.Kind == paxos.Normal {
		j.w.history.decided(sum, e.Instance)
	}
	if e.Kind == paxos.Membership {
		ms, err := paxos.DecodeMembers(e.Data)
		if err != nil {
			j.w.fail("invented", "instance %d: %v", e.Instance, err)
		}
		j.members = append(j.members, ms)
		j.current = len(j.members) - 1
	}
	j.w.stats.Chosen++
}

// told judges the answer to a proposer.
func (j *judge) told(n *node, id uint64, i paxos.Instance, err error) {
	if err != nil {
		return // unknown: both outcomes are right
	}
	if i >= paxos.Instance(len(j.decisions)) || j.decisions[i].kind != paxos.Normal || j.decisions[i].sum != id {
		j.w.fail("told", "node %d tells a proposer that value %d is chosen at instance %d, which it is not", n.id, id, i)
	}
	if j.values[id].told != 0 {
		j.w.fail("told", "node %d tells a proposer twice about value %d", n.id, id)
	}
	j.values[id].told = i
	j.answered = max(j.answered, i)
	j.w.stats.Told++
}

// lease checks that nobody else holds a lease when this node does.
func (j *judge) lease(n *node) {
	if !n.holdsLease() {
		return
	}
	for _, o := range j.w.nodes {
		if o != n && o.holdsLease() {
			j.w.fail("two-leases", "nodes %d and %d hold a lease at once", n.id, o.id)
		}
	}
}

// sent checks that what a message vows is on disk.
func (j *judge) sent(n *node, m *paxos.Message) {
	if m.Reject != paxos.RejectNone && m.Reject != paxos.RejectGap {
		return
	}
	switch m.Kind {
	case paxos.MsgPromise, paxos.MsgAccepted:
		n.disk.settle()
		if n.disk.promise.Less(m.Ballot) {
			j.w.fail("answer-before-sync", "node %d sends %v; its promise on disk is %v", n.id, m, n.disk.promise)
		}
		if m.Kind == paxos.MsgAccepted && m.Through > 0 && !n.disk.durable(m.Through) {
			j.w.fail("answer-before-sync", "node %d sends %v; instance %d is not on its disk", n.id, m, m.Through)
		}
	}
}

// restarted checks what a node remembers.
func (j *judge) restarted(n *node, r *replica.Replica) {
	if p := r.Core().Promised(); p.Less(n.disk.promise) {
		j.w.fail("promise-shrinks", "node %d has promised %v after its restart, %v before", n.id, p, n.disk.promise)
	}
	if c := r.Core().Chosen(); c < n.disk.chosen {
		j.w.fail("chosen-shrinks", "node %d knows of %d chosen instances after its restart, of %d before", n.id, c, n.disk.chosen)
	}
	n.declared = r.Core().Chosen()
	if n.declared >= paxos.Instance(len(j.decisions)) {
		j.w.fail("invented", "node %d knows after its restart that instance %d is chosen; nobody knew", n.id, n.declared)
	}
	j.membersFit(n, r.Core().Members(), "after its restart")
	if first, _ := n.disk.Bounds(0); paxos.Instance(first) > n.app.through+1 && first > 1 {
		j.w.fail("log-gap", "the log of node %d begins at instance %d; its application has the effect of %d instances", n.id, first, n.app.through)
	}
}

// membersAfter is the index of the membership that is valid behind an instance.
func (j *judge) membersAfter(i paxos.Instance) int {
	k := j.decisions[i].members
	if j.decisions[i].kind == paxos.Membership {
		k++
	}
	return k
}

// membersFit checks that a node's membership is that of what it knows to be chosen.
func (j *judge) membersFit(n *node, ms paxos.Members, when string) {
	if n.declared == 0 {
		return // blank, or the bootstrap's, before it is chosen
	}
	want := j.membersAfter(n.declared)
	if !bytes.Equal(ms.Encode(), j.members[want].Encode()) {
		j.w.fail("members", "node %d has %s at instance %d the members %s, want %s", n.id, when, n.declared, ms.Encode(), j.members[want].Encode())
	}
}

// compareLogs checks all that the nodes have in their logs against the decisions.
func (j *judge) compareLogs() {
	for _, n := range j.w.nodes {
		if n.gone {
			continue
		}
		first, _ := n.log.Bounds(0)
		for i := paxos.Instance(first); i <= n.declared; i++ {
			e, err := n.rep.Read(i)
			if err != nil && j.w.lostForGood(n, i) {
				continue
			}
			if err != nil {
				j.w.fail("logs-differ", "node %d cannot read instance %d: %v", n.id, i, err)
			}
			if d := j.decisions[i]; d.kind != e.Kind || d.sum != sumOf(e.Kind, e.Data) {
				j.w.fail("logs-differ", "node %d has %v at instance %d, chosen was %v %#x", n.id, e, i, d.kind, d.sum)
			}
		}
	}
}
