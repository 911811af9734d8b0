// Package host runs replicas in production: it owns their goroutines, their
// clock and the syncs of the log that they share.
//
// Goroutines: one loop per group; one syncer, which alone calls Sync, so that all
// groups share each fdatasync; one ticker. All end with Close. What arrives for a
// group is carried out in turns, by the loop or by whoever brought it (see poke).
// While the syncer waits for the disk the turns go on: they answer heartbeats, send
// proposals and collect what the next sync will carry.
// This is how batches form: by what queued during the last sync, never by delay.
package host

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/phxsql/phxsql/internal/replica"
	"github.com/phxsql/phxsql/paxos"
	"github.com/phxsql/phxsql/wal"
)

// ErrNotLeader refuses a proposal on a member that does not lead.
var ErrNotLeader = errors.New("this member does not lead")

// ErrDiskFull refuses a proposal while the log waits for room on its disk. What was
// proposed before waits with it, and what is chosen is served.
var ErrDiskFull = errors.New("no room for the log on this disk, not proposed")

// ErrClosed refuses work on a closed host.
var ErrClosed = errors.New("host is closed")

// Log is the part of a wal.Log that a host uses.
type Log interface {
	replica.SyncedLog
	Durable() wal.LSN
}

// Sender passes messages to other members. It must not block.
type Sender interface {
	Send(to paxos.NodeID, group paxos.Group, msgs []paxos.Message)
}

// Options say what a host runs on.
type Options struct {
	Log    Log
	Sender Sender
	Logger *slog.Logger
	// Clock defaults to Boottime.
	Clock func() paxos.Time
	// KeepBytes limits the chosen entries that all groups together keep in memory, for
	// readers that follow closely and for members that lag a little; default 16 MiB. What
	// is older is read from the log. It is exceeded by what one turn brings, and paxos.Config
	// may limit single groups further.
	KeepBytes int64
	// Failed is called once, from a goroutine of its own, when the log has failed
	// for good: the process must stop, for only a new start can tell what is
	// durable.
	Failed func(error)

	tickClock func() paxos.Time // of the ticker; default Clock
}

const (
	// A ticker sleeps until the first group is due, but no less than minSleep and no
	// more than maxSleep.
	minSleep = 2 * time.Millisecond
	maxSleep = 100 * time.Millisecond
	// noSpacePause is the wait before a sync is tried again on a full disk.
	noSpacePause = 250 * time.Millisecond
)

// Host runs the groups of one process.
type Host struct {
	opt    Options
	groups sync.Map // paxos.Group -> *Group
	memory memory

	kick   chan struct{} // asks the syncer for a sync
	rouse  chan struct{} // asks the ticker to look again
	sleeps atomic.Int64  // until when the ticker sleeps
	stop   chan struct{}
	wg     sync.WaitGroup
	once   sync.Once
	failed atomic.Pointer[error]
	full   atomic.Bool // the disk has no room for the next segment
}

// New starts a host without groups.
func New(opt Options) *Host {
	if opt.Clock == nil {
		opt.Clock = Boottime
	}
	if opt.KeepBytes <= 0 {
		opt.KeepBytes = defaultKeep
	}
	if opt.tickClock == nil {
		opt.tickClock = opt.Clock
	}
	h := &Host{opt: opt, kick: make(chan struct{}, 1), rouse: make(chan struct{}, 1), stop: make(chan struct{})}
	h.memory.limit = opt.KeepBytes
	h.wg.Add(2)
	go h.syncer()
	go h.ticker()
	return h
}

// Start runs a member of a group from what the log remembers.
func (h *Host) Start(id paxos.Group, cfg paxos.Config) (*Group, error) {
	return h.StartObserved(id, cfg, nil)
}

// StartObserved is Start with an observer, which is called during
// a turn whenever Chosen has advanced, after the proposers were told. It must
// not wait for anything.
func (h *Host) StartObserved(id paxos.Group, cfg paxos.Config, advanced func(paxos.Instance)) (*Group, error) {
	rotten, err := h.assess(id)
	if err != nil {
		return nil, err
	}
	r, err := replica.Open(h.opt.Log, wal.Group(id), cfg, h.opt.Clock())
	if err != nil {
		return nil, err
	}
	for _, i := range rotten {
		h.opt.Logger.Warn("entry is damaged, others are asked for it", "group", id, "instance", i)
		r.Repair(h.opt.Clock(), i)
	}
	g := newGroup(h, id, cfg, r)
	g.advanced = advanced
	if _, taken := h.groups.LoadOrStore(id, g); taken {
		return nil, fmt.Errorf("start group %d: it runs already", id)
	}
	h.memory.groups.Add(1)
	h.wg.Add(1)
	go g.run()
	h.retime(0)
	return g, nil
}

// HandleMessages takes messages from the transport.
func (h *Host) HandleMessages(_ paxos.NodeID, id paxos.Group, msgs []paxos.Message) {
	if g, ok := h.groups.Load(id); ok {
		g.(*Group).receive(msgs)
	}
}

// DiskFull reports whether the log waits for room on its disk.
func (h *Host) DiskFull() bool { return h.full.Load() }

// Err returns why the log has failed, or nil.
func (h *Host) Err() error {
	if p := h.failed.Load(); p != nil {
		return *p
	}
	return nil
}

// Close stops all goroutines. Proposals that are not known to be chosen fail
// with replica.ErrTermLost.
func (h *Host) Close() {
	h.once.Do(func() { close(h.stop) })
	h.wg.Wait()
}

func (h *Host) syncer() {
	defer h.wg.Done()
	for {
		select {
		case <-h.stop:
			return
		case <-h.kick:
		}
		if !h.sync() {
			return
		}
		h.synced()
	}
}

// synced lets the groups go on that wait for the disk. A group that is alone goes
// on at once; while the disk has more to do the groups' loops are woken instead, so
// that the next sync does not wait for them.
func (h *Host) synced() {
	var one *Group
	alone := len(h.kick) == 0
	h.groups.Range(func(_, v any) bool {
		g := v.(*Group)
		switch {
		case !g.owes.Load():
		case one == nil && alone:
			one = g
		default:
			alone = false
			g.wake()
		}
		return true
	})
	switch {
	case one == nil:
	case alone:
		one.poke()
	default:
		one.wake()
	}
}

// sync syncs the log, waiting for room where there is none. It returns false
// when the host is over.
func (h *Host) sync() bool {
	for {
		_, err := h.opt.Log.Sync()
		switch {
		case err == nil:
			if h.full.CompareAndSwap(true, false) {
				h.opt.Logger.Info("log has room again")
				h.wakeAll() // for what queued meanwhile
			}
			return true
		case errors.Is(err, wal.ErrNoSpace):
			if h.full.CompareAndSwap(false, true) {
				h.opt.Logger.Error("log waits for room", "error", err, "hint", "free space on the disk of the log; nothing is lost meanwhile")
				h.refuseAll()
			}
			select {
			case <-h.stop:
				return false
			case <-time.After(noSpacePause):
			}
		default:
			h.fail(err)
			return false
		}
	}
}

func (h *Host) fail(err error) {
	if errors.Is(err, wal.ErrClosed) {
		return
	}
	if h.failed.CompareAndSwap(nil, &err) {
		h.opt.Logger.Error("log failed", "error", err)
		if h.opt.Failed != nil {
			go h.opt.Failed(err)
		}
		h.wakeAll() // to end
	}
}

// refuseAll ends the wait of proposers who do not wait for room on the disk.
func (h *Host) refuseAll() {
	h.groups.Range(func(_, v any) bool {
		g := v.(*Group)
		g.mu.Lock()
		g.room.Broadcast()
		g.mu.Unlock()
		return true
	})
}

func (h *Host) wakeAll() {
	h.groups.Range(func(_, g any) bool { g.(*Group).wake(); return true })
}

// ticker ticks each group when it is due. An idle process is woken by little else.
func (h *Host) ticker() {
	defer h.wg.Done()
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		expired := false
		select {
		case <-h.stop:
			return
		case <-t.C:
			expired = true
		case <-h.rouse:
		}
		now := h.opt.tickClock()
		if expired {
			now = max(now, paxos.Time(h.sleeps.Load())) // the timer keeps the time, if the clock does not
		}
		h.sleeps.Store(math.MaxInt64) // until all have been asked, whoever is due earlier rouses
		next := now.Add(maxSleep)
		h.groups.Range(func(_, v any) bool {
			g := v.(*Group)
			if paxos.Time(g.due.Load()) <= now {
				g.tick()
			}
			if due := paxos.Time(g.due.Load()); due > now {
				next = min(next, due)
			}
			return true
		})
		next = max(next, now.Add(minSleep))
		h.sleeps.Store(int64(next))
		t.Reset(time.Duration(next - now))
	}
}

// retime tells the ticker when a group is due, if that is before it wakes anyway.
func (h *Host) retime(due paxos.Time) {
	if int64(due) >= h.sleeps.Load() {
		return
	}
	select {
	case h.rouse <- struct{}{}:
	default:
	}
}

func (h *Host) requestSync() {
	select {
	case h.kick <- struct{}{}:
	default:
	}
}
