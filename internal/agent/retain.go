package agent

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/phxsql/phxsql/internal/api"
	"github.com/phxsql/phxsql/internal/cluster"
	"github.com/phxsql/phxsql/internal/config"
	"github.com/phxsql/phxsql/internal/gtid"
	"github.com/phxsql/phxsql/internal/telemetry"
	"github.com/phxsql/phxsql/paxos"
	"github.com/phxsql/phxsql/wal"
)

// The rhythm of the retention of the log.
const (
	retainEvery = 2 * time.Second
	// flushEvery is how often the engine's own log is forced to the disk, so that
	// what it has executed is not needed from the log any more.
	flushEvery = 5 * time.Second
	flushLimit = 30 * time.Second
)

// retention knows what of the log is still needed. The log is trimmed to what the
// engines of all members have on their disks, less log.keep. What an engine shows as
// executed is not yet on its disk: only what it had executed before its last forced
// flush counts. Above log.limit it is trimmed to what the engines of a majority, with
// data that are proved, have on their disks; but never beyond what the own engine lacks, nor a copy under way.
type retention struct {
	held    atomic.Uint64 // everything through it is on the disk of the own engine
	flushed time.Time
	dirty   *gtid.Set // what was executed at the last flush
	holders atomic.Pointer[[]paxos.NodeID]
	full    atomic.Bool // the log is near its limit and cannot be trimmed
}

// retain trims the log until ctx ends.
func (a *Agent) retain(ctx context.Context) {
	t := time.NewTicker(retainEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		if !a.group.Leader().Members.Blank() {
			a.noteHeld(ctx)
			a.trim()
		}
	}
}

// noteHeld finds out what is on the disks here.
func (a *Agent) noteHeld(ctx context.Context) {
	r := &a.retention
	s := a.loop.last.Load()
	if s == nil || time.Since(r.flushed) < flushEvery {
		return
	}
	held := a.group.Chosen()
	if s.view.Role != paxos.Witness {
		if s.view.Engine.State != cluster.EngineRunning || s.view.Restore.Need != cluster.NeedNothing || s.view.Restore.Ready {
			return
		}
		set := s.seen.Executed
		if set == nil || r.dirty != nil && r.dirty.Equal(set) && a.journal.Held(set) <= paxos.Instance(r.held.Load()) {
			return
		}
		ctx, cancel := context.WithTimeout(ctx, flushLimit)
		defer cancel()
		text, err := a.db.Flush(ctx)
		if err == nil {
			set, err = gtid.ParseSet(text)
		}
		if err != nil {
			a.log.Debug("engine not flushed", telemetry.KeyError, err)
			return
		}
		r.dirty, held = set, a.journal.Held(set)
	}
	r.flushed = time.Now()
	if _, err := a.wal.Sync(); err != nil { // that it is chosen is not yet durable
		return
	}
	r.held.Store(uint64(held))
}

// trim gives up what nobody needs.
func (a *Agent) trim() {
	hs := a.holdings()
	size, limit := a.logBytes(), int64(a.settled().Log.Limit)
	through := lowest(hs)
	if size > limit {
		through = max(through, forced(hs))
	}
	through = min(through, a.history.saved())
	base, ok := a.journal.Cut(through, uint64(a.settled().Log.Keep))
	most, more := a.journal.Cut(a.group.Chosen(), uint64(a.settled().Log.Keep))
	a.retention.note(hs, most.Next)
	a.retention.full.Store(alarmed(a.retention.full.Load(), size, limit, more, ok))
	if !ok {
		return
	}
	if err := a.writeBase(base); err != nil {
		a.log.Error("log not trimmed", telemetry.KeyError, err)
		return
	}
	a.wal.TrimBelow(wal.Group(dataGroup), uint64(base.Next))
	if _, err := a.wal.Sync(); err != nil {
		return // the host says it
	}
	a.journal.Forget(base.Next)
	a.log.Info("log trimmed", telemetry.KeyInstance, uint64(base.Next), telemetry.KeyBytes, a.logBytes())
}

// alarmed reports that a log is so near its limit that somebody should know: more could
// be trimmed, but for members that need it, and nothing can now. It lasts until the log is
// smaller, or nobody keeps it: members that need a little less every time do not end it.
func alarmed(was bool, size, limit int64, more, now bool) bool {
	return more && size > limit/4*3 && (was || !now)
}

// holding is how far one member does without the log.
type holding struct {
	id      paxos.NodeID
	self    bool
	engine  bool // it votes and has an engine
	witness bool // it votes and has none
	copying bool // it is alive and its data are being filled: it needs what follows
	// unproved says that its data are no copy yet that anybody may rely on.
	unproved bool
	held     paxos.Instance
}

func (a *Agent) holdings() []holding {
	now := time.Now()
	var hs []holding
	for _, m := range a.group.Leader().Members.List {
		h := holding{id: m.ID, engine: m.Role == paxos.Voter, witness: m.Role == paxos.Witness, self: m.ID == a.cfg.Node.ID}
		if h.self {
			h.held = paxos.Instance(a.retention.held.Load())
			h.unproved = !a.proven()
		} else if an, age, ok := a.peers.get(m.ID, now); ok {
			h.held = an.Member.Log.Held
			h.copying = age < aliveFor && an.Member.Copy != nil
			h.unproved = an.Member.Copy != nil || an.Member.State == api.StateProving
		}
		hs = append(hs, h)
	}
	return hs
}

func lowest(hs []holding) paxos.Instance {
	if len(hs) == 0 {
		return 0
	}
	return slices.MinFunc(hs, func(x, y holding) int { return cmpInstance(x.held, y.held) }).held
}

// forced is how far the log may be trimmed when it is too large: the engines of a
// majority of all that vote must hold it, or the loss of one disk would lose what
// was acknowledged.
func forced(hs []holding) paxos.Instance {
	var engines []paxos.Instance
	bound := paxos.Instance(1<<63 - 1)
	votes := 0
	for _, h := range hs {
		if h.engine && !h.unproved {
			engines = append(engines, h.held)
		}
		if h.engine || h.witness {
			votes++
		}
		if h.self || h.copying {
			bound = min(bound, h.held)
		}
	}
	need := votes/2 + 1
	if len(engines) < need {
		return 0
	}
	slices.SortFunc(engines, func(x, y paxos.Instance) int { return cmpInstance(y, x) })
	return min(bound, engines[need-1])
}

func cmpInstance(x, y paxos.Instance) int {
	switch {
	case x < y:
		return -1
	case x > y:
		return 1
	}
	return 0
}

// note remembers who holds the log back: those that need something before the instance
// that it could be trimmed to but for them.
func (r *retention) note(hs []holding, most paxos.Instance) {
	var ids []paxos.NodeID
	for _, h := range hs {
		if h.held+1 < most {
			ids = append(ids, h.id)
		}
	}
	r.holders.Store(&ids)
}

// logFull is the alarm of a log that is near its limit.
func (a *Agent) logFull(l api.Log) api.Problem {
	p := api.Problem{
		Name:   "log_large",
		Reason: fmt.Sprintf("the log has %v, its limit is %v; it is needed by members %v", config.Size(l.Bytes), a.settled().Log.Limit, l.HeldBy),
		Hint:   "start these members or remove them; at the limit the log is trimmed all the same once a majority holds the data, and they get a copy",
	}
	if at := a.journal.Undecided(); at != 0 {
		p.Reason += fmt.Sprintf("; a transaction that was prepared by XA at instance %d waits for its decision", at)
		p.Hint = "XA RECOVER on the master lists what is prepared: XA COMMIT or XA ROLLBACK ends it. Or: " + p.Hint
	}
	return p
}
