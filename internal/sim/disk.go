package sim

import (
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/phxsql/phxsql/internal/replica"
	"github.com/phxsql/phxsql/paxos"
	"github.com/phxsql/phxsql/vfs"
	"github.com/phxsql/phxsql/wal"
)

// Disks fail in four ways. A power cut loses and tears what was not synced (stop). Bits
// flip, on one node of a schedule, at any time: its log repairs from others what is
// chosen, and otherwise it refuses to run for good. Space runs out for a while. A sync
// fails, which ends the process; what it did not write may be readable and never be
// written.

// noSpacePause is the wait before a sync is tried again on a full disk.
const noSpacePause = 250 * time.Millisecond

var errDisk = fmt.Errorf("bad disk: %w", syscall.EIO)

// failSync is the fault of a sync that fails. What it should have written may stay
// readable without ever being written.
func (n *node) failSync() vfs.Fault {
	n.sick = false
	n.w.stats.SyncFails++
	return vfs.Fault{Err: errDisk, Drop: n.w.rng.IntN(3) > 0}
}

// carrySync syncs. It returns 0 while there is no room, and when the sync has failed.
func (n *node) carrySync() wal.LSN {
	if n.failed {
		return 0
	}
	lsn, err := n.log.Sync()
	n.full = errors.Is(err, wal.ErrNoSpace)
	switch {
	case n.full:
		n.w.stats.Full++
		return 0
	case err == nil:
		return lsn
	case !errors.Is(err, errDisk):
		n.w.fail("log-error", "node %d cannot sync: %v", n.id, err)
	}
	// The process goes on for a moment, as all but one of its goroutines would.
	n.failed = true
	n.w.queue.push(item{at: n.w.now + moment(n.w.between(0, 5*time.Millisecond)), kind: itemEnd, node: n.index, life: n.life})
	return 0
}

// logFailed ends a process that learns at an append that its log has failed.
func (n *node) logFailed(err error) {
	if !errors.Is(err, errDisk) {
		n.w.fail("log-error", "node %d: %v", n.id, err)
	}
	n.end()
}

// end ends a process whose disk has failed. Its machine mostly lives on, and loses its
// power some time later.
func (n *node) end() {
	n.w.crashFor(n, n.w.rng.IntN(4) == 0, n.w.between(0, 300*time.Millisecond))
}

// cannotStart takes in why a process has not come up: for good, or until there is room.
func (n *node) cannotStart(what string, err error) {
	w := n.w
	n.mem.Kill() // lets go of the lock
	bad := new(wal.CorruptError)
	switch {
	case errors.Is(err, wal.ErrNoSpace):
		w.queue.push(item{at: w.now + moment(noSpacePause), kind: itemRestart, node: n.index, life: n.life})
	case n.rotted && (errors.Is(err, replica.ErrDamaged) || errors.As(err, &bad)):
		n.gone = true
		w.stats.Gone++
		if w.tracing {
			w.tracef("-- n%d is lost: %v", n.id, err)
		}
	default:
		w.fail("restart", "node %d cannot %s: %v", n.id, what, err)
	}
}

// rotBit flips a bit on the disk of the victim, or some close to each other.
func (w *world) rotBit() {
	n := w.victim
	names, err := n.mem.List("/log")
	if err != nil || len(names) == 0 || n.gone || !w.founded(n) {
		return
	}
	name := "/log/" + names[w.rng.IntN(len(names))]
	const header = 4096
	size := n.mem.Written(name)
	if size == 0 {
		return
	}
	at := w.rng.Int64N(size)
	if at < header && size > header && w.rng.IntN(8) > 0 {
		at = header + w.rng.Int64N(size-header) // where records are
	}
	for range 1 + w.rng.IntN(2) {
		n.mem.Rot(name, 8*at+w.rng.Int64N(64))
		w.stats.Flips++
	}
	n.rotted = true
	if w.tracing {
		w.tracef("-- n%d rots in %s at %d of %d", n.id, name, at, size)
	}
}

// founded reports whether the first members know of each other without a node: it may be
// the only one yet that does.
func (w *world) founded(without *node) bool {
	for _, m := range w.judge.members[0].List {
		if n := w.node(m.ID); n != without && (n.declared < 1 || !n.disk.durable(1)) {
			return false
		}
	}
	return true
}

// survivable reports whether the members can go on without the node whose disk rots.
func (w *world) survivable(ms paxos.Members) bool {
	if !w.p.rot {
		return true
	}
	votes, voters := 0, 0
	for _, m := range ms.List {
		if m.ID == w.victim.id {
			continue
		}
		if m.Votes() {
			votes++
		}
		if m.Role == paxos.Voter {
			voters++
		}
	}
	return votes >= ms.Quorum() && voters > 0
}

// fill lets the disk of a node run out of space for a while.
func (w *world) fill(n *node) {
	n.mem.SetFreeSpace(w.rng.Int64N(10 << 10))
	w.queue.push(item{at: w.now + moment(w.between(10*time.Millisecond, 2*time.Second)), kind: itemRoom, node: n.index})
}

// mended judges the repair of an entry.
func (j *judge) mended(n *node, i paxos.Instance) {
	j.w.stats.Mended++
	e, err := n.rep.Read(i)
	if err != nil {
		j.w.fail("logs-differ", "node %d has repaired instance %d and cannot read it: %v", n.id, i, err)
	}
	if d := j.decisions[i]; d.kind != e.Kind || d.sum != sumOf(e.Kind, e.Data) {
		j.w.fail("logs-differ", "node %d has repaired instance %d with %v, chosen was %v %#x", n.id, i, e, d.kind, d.sum)
	}
}

// allMended reads through the log of the node whose disk rots, as its application
// would, and has repaired what cannot be read.
func (w *world) allMended() bool {
	n := w.victim
	if !n.rotted || n.gone {
		return true
	}
	whole := true
	first, _ := n.log.Bounds(0)
	for i := paxos.Instance(first); i <= n.declared; i++ {
		if _, err := n.rep.Read(i); err != nil && !w.lostForGood(n, i) {
			n.rep.Repair(n.now(), i)
			whole = false
		}
	}
	n.wake()
	return whole
}

// lostForGood reports whether a chosen instance that a node cannot read is in nobody's
// log any more.
func (w *world) lostForGood(n *node, i paxos.Instance) bool {
	if !n.rotted {
		return false
	}
	for _, o := range w.nodes {
		if o != n && o.up && o.declared >= i {
			if _, err := o.rep.Read(i); err == nil {
				return false
			}
		}
	}
	return true
}
