package sim

import (
	"slices"
	"time"

	"github.com/phxsql/phxsql/paxos"
)

type troubleKind int

const (
	troublePartition troubleKind = iota
	troubleOneWay
	troubleHealNet
	troubleCrash
	troubleCrashMost
	troubleCrashAll
	troublePause
	troubleTransfer
	troubleCandidacy
	troubleMembers
	troubleClock
	troubleTrim
	troubleCrashLeader
	troubleRestart // the process ends and starts at once
	troubleIsolateLeader
	troubleDuel
	troubleRot
	troubleFull
	troubleSyncError
	troubleLength
	troubles
)

// trouble draws one of the things that happen to clusters.
func (w *world) trouble() {
	sum := 0
	for _, x := range w.p.weights {
		sum += x
	}
	at := w.rng.IntN(sum)
	kind := troubleKind(0)
	for at >= w.p.weights[kind] {
		at -= w.p.weights[kind]
		kind++
	}
	n := w.nodes[w.rng.IntN(len(w.nodes))]
	switch kind {
	case troublePartition:
		w.part()
	case troubleOneWay:
		from, to := w.rng.IntN(len(w.nodes)), w.rng.IntN(len(w.nodes))
		w.cut[from][to] = from != to
	case troubleHealNet:
		w.cut = [8][8]bool{}
	case troubleCrash:
		w.crash(n)
	case troubleCrashMost:
		for _, k := range w.rng.Perm(len(w.nodes))[:len(w.nodes)/2+1] {
			w.crash(w.nodes[k])
		}
	case troubleCrashAll:
		for _, n := range w.nodes {
			w.crash(n)
		}
	case troubleCrashLeader:
		if n := w.leader(); n != nil {
			w.crash(n)
		}
	case troubleRestart:
		w.crashFor(n, false, w.between(0, 5*time.Millisecond))
	case troubleDuel:
		w.startDuel()
	case troubleIsolateLeader:
		w.isolate(w.leader())
	case troublePause:
		if l := w.leader(); l != nil && w.rng.IntN(2) == 0 {
			n = l
		}
		w.pause(n)
	case troubleTransfer:
		w.transfer()
	case troubleCandidacy:
		n.able = w.rng.IntN(3) > 0
		n.command(paxos.Event{Kind: paxos.EventCandidacy, Able: n.able, Delay: w.between(0, w.p.spread)})
	case troubleMembers:
		w.changeMembers()
	case troubleClock:
		n.clock.setRate(w.now, w.rate())
	case troubleTrim:
		w.trim(n)
	case troubleRot:
		w.rotBit()
	case troubleFull:
		w.fill(n)
	case troubleSyncError:
		n.sick = n.up
	case troubleLength:
		if !n.old {
			n.command(paxos.Event{Kind: paxos.EventLease, Lease: w.lengthOfLease()})
		}
	}
	if w.tracing {
		w.tracef("-- trouble %d around n%d; cut %v", kind, n.id, w.cut)
	}
}

// lengthOfLease draws a length.
func (w *world) lengthOfLease() time.Duration {
	return oneOf(w.rng, 300*time.Millisecond, 500*time.Millisecond, w.p.lease, w.p.lease, 2*time.Second, 5*time.Second)
}

// part cuts the nodes into two sides.
func (w *world) part() {
	w.cut = [8][8]bool{}
	side := w.rng.Uint32()
	for i := range w.nodes {
		for j := range w.nodes {
			w.cut[i][j] = side>>i&1 != side>>j&1
		}
	}
}

// ambush parts the nodes while a membership is being decided, for long enough that
// both sides try to lead. If it can, it gives one side a majority of the old members
// and the other side one of the new.
func (w *world) ambush() {
	was := w.judge.members[w.judge.current]
	for range 30 {
		w.part()
		k := w.rng.IntN(len(w.nodes))
		if a, b := w.sides(k); a.majority(was) && b.majority(w.asked) && a.any(w.asked) {
			break
		}
	}
	w.truce = w.now + moment(w.between(time.Second, 2500*time.Millisecond))
	if w.tracing {
		w.tracef("-- ambush; cut %v", w.cut)
	}
}

// side is a set of nodes that can talk with each other.
type side map[paxos.NodeID]bool

// sides returns the nodes that node k can send to, itself included, and the rest.
func (w *world) sides(k int) (with, rest side) {
	with, rest = side{}, side{}
	for i, n := range w.nodes {
		if w.cut[k][i] {
			rest[n.id] = true
		} else {
			with[n.id] = true
		}
	}
	return with, rest
}

func (s side) voters(ms paxos.Members) int {
	count := 0
	for _, m := range ms.List {
		if m.Votes() && s[m.ID] {
			count++
		}
	}
	return count
}

func (s side) majority(ms paxos.Members) bool { return s.voters(ms) >= ms.Quorum() }

func (s side) any(ms paxos.Members) bool { return s.voters(ms) > 0 }

// startDuel isolates a leader until somebody has got a promise against it.
func (w *world) startDuel() {
	l := w.leader()
	if l == nil || w.duel != nil {
		return
	}
	w.duel = l
	w.truce = w.now + moment(2500*time.Millisecond)
	for i := range w.nodes {
		w.cut[i][l.index], w.cut[l.index][i] = i != l.index, i != l.index
	}
}

// meet lets the old leader back in at the moment of the promise, and makes the new
// one slow to hear of it.
func (w *world) meet(promiser, candidate *node) {
	old := w.duel
	w.duel = nil
	if old == candidate || old == promiser {
		return
	}
	w.cut[old.index][promiser.index], w.cut[promiser.index][old.index] = false, false
	if w.tracing {
		w.tracef("-- duel of n%d and n%d for n%d", old.id, candidate.id, promiser.id)
	}
	if candidate.up && !candidate.paused {
		candidate.paused = true
		w.queue.push(item{at: w.now + moment(w.between(5*time.Millisecond, 500*time.Millisecond)), kind: itemResume, node: candidate.index, life: candidate.life})
	}
	if old.up && old.lead.Leader == old.id {
		w.give(old)
	}
}

// isolate cuts a node off, in one direction or in both, from all or from some.
func (w *world) isolate(n *node) {
	if n == nil {
		return
	}
	in, out := w.rng.IntN(3) > 0, w.rng.IntN(3) > 0
	some := w.rng.IntN(3) == 0
	for i := range w.nodes {
		if i == n.index || some && w.rng.IntN(2) == 0 {
			continue
		}
		w.cut[i][n.index] = in
		w.cut[n.index][i] = out
	}
}

func (w *world) crash(n *node) {
	down := w.between(0, 300*time.Millisecond)
	if w.rng.IntN(4) == 0 {
		down = w.between(0, 3*time.Second)
	}
	w.crashFor(n, w.rng.IntN(4) > 0, down)
}

func (w *world) crashFor(n *node, power bool, down time.Duration) {
	if !n.up {
		return
	}
	if w.tracing {
		w.tracef("-- n%d crashes, power cut %v, for %v", n.id, power, down)
	}
	w.stats.Crashes++
	n.stop(power)
	if power {
		n.clock = clock{since: w.now, base: paxos.Time(w.between(time.Second, time.Hour)), rate: n.clock.rate}
	}
	w.queue.push(item{at: w.now + moment(down), kind: itemRestart, node: n.index, life: n.life})
}

func (w *world) restart(n *node) {
	if w.tracing {
		w.tracef("-- n%d starts", n.id)
	}
	n.start()
	if w.tracing && n.up {
		w.tracef("-- n%d remembers promise %v, chosen %d, members %s", n.id, n.rep.Core().Promised(), n.declared, n.rep.Core().Members().Encode())
	}
}

// pause stops a node for a while; its clock goes on.
func (w *world) pause(n *node) {
	if !n.up || n.paused {
		return
	}
	n.paused = true
	w.queue.push(item{at: w.now + moment(w.between(10*time.Millisecond, 3*time.Second)), kind: itemResume, node: n.index, life: n.life})
}

func (w *world) transfer() {
	if n := w.leader(); n != nil {
		n.command(paxos.Event{Kind: paxos.EventTransfer, To: paxos.NodeID(w.rng.IntN(len(w.nodes) + 1))})
	}
}

// changeMembers asks a leader for another membership, made from the newest one. A
// new voter has been a member before, as a learner.
func (w *world) changeMembers() {
	n := w.leader()
	if n == nil {
		return
	}
	was := w.judge.members[w.judge.current]
	ms := paxos.Members{Cluster: was.Cluster, List: slices.Clone(was.List)}
	if w.p.reshuffle {
		for k, at := range w.rng.Perm(len(ms.List)) {
			ms.List[at].Role = paxos.Learner
			if k < 3 {
				ms.List[at].Role = paxos.Voter
			}
		}
	}
	for range w.changes() {
		w.changeOne(&ms, was)
	}
	voters := 0
	for _, m := range ms.List {
		if m.Role == paxos.Voter {
			voters++
		}
	}
	if voters < 2 || ms.Check() != nil || !w.survivable(ms) {
		return
	}
	w.judge.wanted[sumOf(paxos.Membership, ms.Encode())] = true
	w.asked = ms
	if w.p.reshuffle && w.rng.IntN(2) == 0 {
		w.later(w.between(0, 3*w.p.delayMax+w.p.syncMax), itemAmbush)
	}
	n.command(paxos.Event{Kind: paxos.EventMembers, Members: &ms})
}

func (w *world) changes() int {
	if w.p.reshuffle {
		return 0
	}
	return 1 + w.rng.IntN(3)
}

func (w *world) changeOne(ms *paxos.Members, was paxos.Members) {
	id := paxos.NodeID(w.rng.IntN(len(w.nodes)) + 1)
	k, found := slices.BinarySearchFunc(ms.List, id, func(m paxos.Member, id paxos.NodeID) int { return int(m.ID) - int(id) })
	if !found {
		ms.List = slices.Insert(ms.List, k, paxos.Member{ID: id, Role: paxos.Learner})
		return
	}
	if _, old := was.Find(id); !old {
		return
	}
	switch w.rng.IntN(6) {
	case 0, 1:
		ms.List = slices.Delete(ms.List, k, k+1)
	case 2:
		ms.List[k].Role = paxos.Learner
	case 3:
		ms.List[k].Role = paxos.Witness
	default:
		ms.List[k].Role = paxos.Voter
	}
}

// trim lets a node forget what all others have on disk as chosen.
func (w *world) trim(n *node) {
	if !n.up {
		return
	}
	if w.p.forget {
		w.trimOwn(n)
		return
	}
	low := n.rep.Core().Chosen()
	for _, o := range w.nodes {
		if o == n {
			continue // what it knows itself need not be on its disk yet
		}
		if o.up {
			o.disk.settle()
		}
		low = min(low, o.disk.chosen)
	}
	if low > 1 {
		keep := w.rng.Int64N(int64(low)/2 + 1)
		if w.rng.IntN(2) == 0 {
			keep = 0
		}
		n.app = w.judge.snapshotAt(low)
		n.disk.TrimBelow(0, uint64(low)+1-uint64(keep))
		if w.rng.IntN(2) == 0 {
			n.sync()
		}
	}
}

// final is the end of a schedule: all is well again, and must become so.
type final struct {
	deadline moment
	asked    uint64 // number of the last value proposed
	sum      uint64
	done     bool
}

const (
	lookEvery   = 20 * time.Millisecond
	patience    = 30 * time.Second
	finalValues = 3
)

func (w *world) heal() {
	w.calm, w.duel = true, nil
	w.cut = [8][8]bool{}
	for _, n := range w.nodes {
		n.paused, n.sick = false, false
		n.mem.SetFreeSpace(-1)
		if !n.up && !n.gone {
			w.restart(n)
		}
		n.able = true
		n.command(paxos.Event{Kind: paxos.EventCandidacy, Able: true})
	}
	if w.tracing {
		w.tracef("-- all is healed")
	}
	w.final.deadline = w.now + moment(patience)
	w.later(lookEvery, itemJudge)
}

// look proposes a value when there is a leader, and ends the schedule when all
// members know that it was chosen.
func (f *final) look(w *world) {
	if w.now > f.deadline {
		w.fail("liveness", "%v after all was healed %s", patience, w.standing())
	}
	w.later(lookEvery, itemJudge)
	if f.asked != 0 {
		at := w.judge.values[f.asked].told
		if at != 0 {
			f.done = w.allKnow(at) && w.allMended()
			return
		}
		if n := w.leader(); n != nil && n.lead.Term.Round == f.sum {
			return // still to come
		}
	}
	n := w.leader()
	if n == nil || !n.lead.Ready || !n.holdsLease() {
		return
	}
	for range finalValues {
		b := w.judge.value(10)
		f.asked = sumOf(paxos.Normal, b)
		n.queue = append(n.queue, proposal{f.asked, b})
		w.history.proposed(w, n, f.asked)
	}
	f.sum = n.lead.Term.Round
	n.wake()
}

func (w *world) allKnow(i paxos.Instance) bool {
	for _, m := range w.judge.members[w.judge.current].List {
		if n := w.node(m.ID); n.declared < i && !n.gone {
			return false
		}
	}
	return true
}
