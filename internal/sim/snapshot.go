package sim

import (
	"errors"
	"time"

	"github.com/phxsql/phxsql/internal/replica"
	"github.com/phxsql/phxsql/paxos"
	"github.com/phxsql/phxsql/wal"
)

// snapshot stands for the application's state through an instance.
type snapshot struct {
	through paxos.Instance
	members paxos.Members // valid at through
}

// The application of a node is only this: how much of its state is on its disk
// (node.app), and the snapshot that it has brought from elsewhere (node.base). It may
// give up the log that it has the effect of. The log must never begin behind what it
// has.

// trimOwn lets a node make its application's state durable and forget the log below,
// whatever others lack.
func (w *world) trimOwn(n *node) {
	low := n.declared
	if w.rng.IntN(2) == 0 {
		n.disk.settle()
		low = min(low, n.disk.chosen)
	}
	if low <= n.app.through {
		return
	}
	n.app = w.judge.snapshotAt(low)
	keep := paxos.Instance(0)
	if w.rng.IntN(3) == 0 {
		keep = paxos.Instance(w.rng.Int64N(int64(low) + 1))
	}
	n.disk.TrimBelow(0, uint64(low-keep)+1)
	if w.rng.IntN(2) == 0 {
		n.sync()
	}
}

// snapshotAt returns a right snapshot.
func (j *judge) snapshotAt(i paxos.Instance) snapshot {
	return snapshot{i, j.members[j.membersAfter(i)]}
}

// seek looks for a snapshot when others no longer have the log that a node lacks.
func (n *node) seek() {
	if n.seeking || n.rep.Core().Lacking() == 0 {
		return
	}
	n.seeking = true
	n.w.queue.push(item{at: n.w.now + moment(n.w.between(time.Millisecond, 300*time.Millisecond)), kind: itemSeek, node: n.index, life: n.life})
}

// copyFrom begins to copy the snapshot of another node, which may be an old one. It
// takes its time; meanwhile the one or the other may crash, lead or learn.
func (w *world) copyFrom(n *node) {
	from := w.nodes[w.rng.IntN(len(w.nodes))]
	if from == n || !from.up || from.declared == 0 {
		n.seeking = false // and look again
		n.wake()
		return
	}
	n.copied = w.judge.snapshotAt(from.declared)
	if old := from.app.through; old > 0 && !w.calm && w.rng.IntN(3) == 0 {
		n.copied = from.app
	}
	w.queue.push(item{at: w.now + moment(w.between(time.Millisecond, 500*time.Millisecond)), kind: itemCopied, node: n.index, life: n.life})
}

// bring hands a copied snapshot to the node. The application's copy is durable
// first; a crash may come right behind.
func (w *world) bring(n *node) {
	n.seeking = false
	if n.app.through < n.copied.through {
		n.app = n.copied
	}
	if !w.calm && w.rng.IntN(5) == 0 {
		w.crash(n)
		return
	}
	n.brought = &n.copied
	n.wake()
}

// install is the twin of the installation of a snapshot in package host. It reports
// false when the node has crashed on the way.
func (n *node) install(now paxos.Time) (alive bool) {
	w, s := n.w, *n.brought
	n.brought = nil
	if !w.calm && w.rng.IntN(3) == 0 {
		n.fuse = w.rng.IntN(4) // power may go in the midst of the sync
	}
	was := n.declared
	r, told, err := n.rep.Install(&n.disk, w.config(n.id), s.through, s.members, now)
	if w.tracing {
		w.tracef("-- n%d installs a snapshot through %d of %s: %v", n.id, s.through, s.members.Encode(), err)
	}
	n.fuse = -1
	switch {
	case errors.Is(err, replica.ErrOldSnapshot):
		w.stats.Refused++
		return true
	case n.burnt:
		w.crashFor(n, true, w.between(0, 300*time.Millisecond))
		return false
	case errors.Is(err, wal.ErrNoSpace):
		return true // it is brought again
	case err != nil:
		n.logFailed(err)
		return false
	}
	w.stats.Snapshots++
	n.rep = r
	n.disk.settle()
	w.judge.restarted(n, r)
	if n.declared < was {
		w.fail("order", "node %d goes back from instance %d to %d with a snapshot", n.id, was, n.declared)
	}
	for k := range told {
		told[k].Tell()
	}
	n.command(paxos.Event{Kind: paxos.EventCandidacy, Able: n.able})
	return true
}

// complete finishes an installation that a crash has interrupted: the application
// has the snapshot, the log does not know.
func (n *node) complete() error {
	st, err := replica.Recover(&n.disk, 0)
	if err != nil || st.Chosen >= n.app.through {
		return err
	}
	if err := replica.Install(&n.disk, 0, n.app.through, n.app.members); err != nil {
		return err
	}
	n.disk.settle()
	n.w.stats.Snapshots++
	return nil
}
