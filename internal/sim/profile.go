package sim

import (
	"math/rand/v2"
	"time"
)

// profile is the character of one schedule.
type profile struct {
	members    int // that the group starts with
	spares     int // blank nodes that may be added
	lease      time.Duration
	lengths    bool // nodes grant leases of different lengths, and change them
	mixed      bool // some nodes run a release whose messages say no lengths
	heartbeat  time.Duration
	spread     time.Duration
	tick       time.Duration
	clockError float64
	bound      bool // clock rates are at the bound instead of within it

	loss, dup, stale   float64 // probabilities, per message
	hold               float64 // probability that a cut link keeps a message for later instead of losing it
	reshuffle          bool    // the first members change roles all the time
	delayMin, delayMax time.Duration
	ordered            bool          // a link keeps the order of messages that are not stale
	staleMax           time.Duration // how old a stale message may become
	syncMin, syncMax   time.Duration
	syncSlow           float64       // probability of a slow sync
	slowMax            time.Duration // how long that takes

	inflight, message, keep int64
	segment                 int64
	turn                    int  // bytes of entries that a turn takes; 0: no limit
	forget                  bool // nodes trim what others may lack
	always                  bool // ticks come whether due or not
	reads                   bool // nodes ask for read indexes
	rot                     bool // bits flip on the disk of one node
	codec                   bool // messages are encoded and decoded on their way
	length                  time.Duration
	every                   time.Duration // mean time between troubles
	weights                 [troubles]int
}

func between(rng *rand.Rand, a, b time.Duration) time.Duration {
	if b <= a {
		return a
	}
	return a + time.Duration(rng.Int64N(int64(b-a)))
}

func oneOf[T any](rng *rand.Rand, list ...T) T { return list[rng.IntN(len(list))] }

// Reshuffle says which seeds change the membership all the time: its multiples.
// Those of Forget, other than that, are about snapshots: nodes are away for long and
// the others forget the log. In those of Reads nodes ask for read indexes.
// Those of Disk are about disks: bits flip, space runs out, syncs fail.
// In those of Far, and no other, the nodes are far from each other.
// In those of Lengths, and no other, nodes grant leases of different lengths.
const (
	Reshuffle = 6
	Forget    = 5
	Reads     = 7
	Disk      = 4
	Lengths   = 11
	Far       = 13
)

// draw makes a profile. Most have some trouble of each kind; some have one kind
// only, and much of it.
func draw(seed uint64, rng *rand.Rand) profile {
	p := profile{
		members: oneOf(rng, 3, 3, 3, 5), spares: oneOf(rng, 0, 0, 0, 1, 2),
		lease: 900 * time.Millisecond, heartbeat: 100 * time.Millisecond, spread: 150 * time.Millisecond, tick: 25 * time.Millisecond,
		clockError: oneOf(rng, 0.01, 0.1, 0.25), bound: rng.IntN(2) == 0,
		loss: oneOf(rng, 0, 0.01, 0.05, 0.2), dup: oneOf(rng, 0, 0.02, 0.1), stale: oneOf(rng, 0, 0.01, 0.05),
		hold:     oneOf(rng, 0, 0, 0.1, 0.9),
		delayMin: 100 * time.Microsecond, delayMax: oneOf(rng, time.Millisecond, 5*time.Millisecond, 60*time.Millisecond),
		staleMax: oneOf(rng, 200*time.Millisecond, 2*time.Second, 5*time.Second),
		syncMin:  50 * time.Microsecond, syncMax: oneOf(rng, time.Millisecond, 10*time.Millisecond, 40*time.Millisecond),
		syncSlow: oneOf(rng, 0, 0, 0.02, 0.1), slowMax: oneOf(rng, 100*time.Millisecond, time.Second, 3*time.Second),
		inflight: oneOf[int64](rng, 700, 4<<10, 1<<20), message: oneOf[int64](rng, 200, 1<<10, 64<<10), keep: oneOf[int64](rng, 0, 500, 4<<10),
		segment: 8 << 10, codec: rng.IntN(8) == 0,
		length: between(rng, time.Second, 5*time.Second), every: oneOf(rng, 80*time.Millisecond, 200*time.Millisecond, 500*time.Millisecond),
	}
	if p.ordered = rng.IntN(2) == 0; !p.ordered {
		// Acceptors take no entry out of order: who reorders everything by far
		// more than the time between messages sees next to no progress.
		p.delayMax = min(p.delayMax, 5*time.Millisecond)
	}
	for k := range p.weights[:troubleLength] {
		p.weights[k] = oneOf(rng, 0, 1, 1, 4)
	}
	if rng.IntN(4) == 0 {
		p.weights[rng.IntN(int(troubleLength))] = 30
	}
	if p.spares > 0 {
		p.weights[troubleMembers] += 4
	}
	p.turn = oneOf(rng, 0, 100, 1000)
	if p.forget = rng.IntN(3) == 0; p.forget {
		p.weights[troubleTrim] += 6
	}
	p.weights[troubleHealNet] += 2
	p.reads, p.always = seed%Reads == 0, seed%3 == 0
	if p.rot = rng.IntN(4) == 0; !p.rot {
		p.weights[troubleRot] = 0
	}
	switch {
	case seed%Far == 0:
		p.makeFar(rng)
	case seed%Lengths == 0:
		p.makeLengths(rng)
	case seed%Reshuffle == 0:
		p.makeReshuffle(rng)
	case seed%Forget == 0:
		p.makeForget(rng)
	case seed%Disk == 0:
		p.makeDisk(rng)
	}
	return p
}

// makeDisk makes a schedule of failing disks, with the restarts that tell.
func (p *profile) makeDisk(rng *rand.Rand) {
	p.rot = rng.IntN(2) == 0
	p.loss, p.keep = oneOf(rng, 0, 0.01), oneOf[int64](rng, 0, 0, 500)
	p.forget = rng.IntN(4) == 0
	p.weights = [troubles]int{
		troubleRot: 12, troubleFull: 8, troubleSyncError: 8, troubleCrash: 6, troubleRestart: 6, troubleCrashLeader: 2, troubleTrim: 3,
		troubleHealNet: 4, troublePartition: 2, troubleIsolateLeader: 2, troubleTransfer: 2, troubleMembers: 2, troublePause: 1,
	}
	if !p.rot {
		p.weights[troubleRot] = 0
	}
	p.every = oneOf(rng, 40*time.Millisecond, 80*time.Millisecond, 200*time.Millisecond)
	p.length = between(rng, 2*time.Second, 6*time.Second)
}

// makeLengths makes a schedule of leases of different lengths, with leaders that are cut
// off under them and members that start again and have forgotten what they granted.
func (p *profile) makeLengths(rng *rand.Rand) {
	p.lengths, p.mixed = true, rng.IntN(3) == 0
	p.loss, p.forget, p.rot = oneOf(rng, 0, 0.01, 0.05), false, false
	p.weights = [troubles]int{
		troubleLength: 16, troubleIsolateLeader: 8, troublePartition: 6, troubleHealNet: 6, troubleCrash: 3, troubleRestart: 10,
		troubleCrashLeader: 2, troublePause: 3, troubleTransfer: 2, troubleClock: 3, troubleOneWay: 2,
	}
	p.every = oneOf(rng, 80*time.Millisecond, 200*time.Millisecond, 500*time.Millisecond)
	p.length = between(rng, 4*time.Second, 12*time.Second)
}

// makeFar makes a schedule of slow links: a message takes up to four tenths of what a leader
// counts of a lease, so that a question and its answer fit into it.
func (p *profile) makeFar(rng *rand.Rand) {
	p.clockError, p.ordered, p.loss, p.stale = oneOf(rng, 0.01, 0.01, 0.1), true, oneOf(rng, 0, 0.01), 0
	p.syncMax, p.syncSlow = oneOf(rng, time.Millisecond, 10*time.Millisecond), 0
	counted := time.Duration(float64(p.lease) * (1 - p.clockError) / (1 + p.clockError))
	p.delayMax = between(rng, 130*time.Millisecond, counted*4/10)
	p.delayMin = p.delayMax - oneOf(rng, 0, 5*time.Millisecond, 40*time.Millisecond)
	p.forget, p.rot = false, false
	p.weights[troubleRot] = 0
	p.inflight, p.message = 1<<20, 64<<10 // who has a small window makes no way with long ones
	p.every = oneOf(rng, 500*time.Millisecond, time.Second)
	p.length = between(rng, 4*time.Second, 12*time.Second)
}

// makeForget makes a schedule in which all nodes forget their logs as soon as they
// can, so that who was away needs a snapshot.
func (p *profile) makeForget(rng *rand.Rand) {
	p.forget = true
	p.loss, p.keep = oneOf(rng, 0, 0.01), oneOf[int64](rng, 0, 500)
	p.weights = [troubles]int{
		troubleTrim: 20, troubleCrash: 6, troublePartition: 4, troubleHealNet: 6, troubleMembers: 4, troubleTransfer: 2,
		troubleRestart: 3, troubleCrashLeader: 2, troubleIsolateLeader: 3, troublePause: 3, troubleDuel: 1,
	}
	p.every = oneOf(rng, 40*time.Millisecond, 80*time.Millisecond)
	p.length = between(rng, 3*time.Second, 8*time.Second)
}

// makeReshuffle makes a schedule of changing members, and of leaders that are cut
// off while they change: three of five nodes vote, and others soon do.
func (p *profile) makeReshuffle(rng *rand.Rand) {
	p.reshuffle, p.members, p.spares = true, 5, 0
	p.loss, p.dup = oneOf(rng, 0, 0.01), 0
	p.weights = [troubles]int{troublePartition: 6, troubleIsolateLeader: 6, troubleHealNet: 6, troubleMembers: 8, troubleTransfer: 1, troubleRestart: 2, troubleOneWay: 2}
	p.every = oneOf(rng, 150*time.Millisecond, 400*time.Millisecond, 800*time.Millisecond)
	p.length = between(rng, 3*time.Second, 10*time.Second)
}
