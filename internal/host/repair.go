package host

import (
	"errors"
	"fmt"
	"time"

	"github.com/phxsql/phxsql/internal/replica"
	"github.com/phxsql/phxsql/paxos"
	"github.com/phxsql/phxsql/wal"
)

// repairPatience is how long Read waits for other members to send an entry that is
// damaged here.
const repairPatience = 10 * time.Second

// damages is a log that was opened although parts of it are damaged.
type damages interface{ Damages() []wal.Damage }

// assess finds out what of a damaged log others can replace, and refuses the rest.
func (h *Host) assess(id paxos.Group) ([]paxos.Instance, error) {
	log, ok := h.opt.Log.(damages)
	if !ok {
		return nil, nil
	}
	return replica.Assess(h.opt.Log, wal.Group(id), log.Damages())
}

// readLog reads a chosen entry from the log. One that is damaged is fetched from
// another member and written anew first.
func (g *Group) readLog(i paxos.Instance) (paxos.Entry, error) {
	var patience <-chan time.Time
	for {
		g.waitMu.Lock()
		mended := g.mended
		g.waitMu.Unlock()
		e, err := replica.ReadEntry(g.host.opt.Log, wal.Group(g.id), i)
		var bad *wal.CorruptError
		if !errors.As(err, &bad) {
			return e, err
		}
		if patience == nil {
			patience = time.After(repairPatience)
			g.host.opt.Logger.Warn("entry is damaged, others are asked for it", "group", g.id, "instance", i, "error", err)
			g.inspect(func(*paxos.Core) { g.rep.Repair(g.host.opt.Clock(), i) })
		}
		select {
		case <-mended:
		case <-patience:
			return e, fmt.Errorf("repair instance %d: no other member sent it within %v: %w", i, repairPatience, err)
		case <-g.host.stop:
			return e, ErrClosed
		}
	}
}

// noteMended lets readers look again.
func (g *Group) noteMended(list []paxos.Instance) {
	if len(list) == 0 {
		return
	}
	g.host.opt.Logger.Info("damaged entries are repaired", "group", g.id, "first", list[0], "count", len(list))
	g.waitMu.Lock()
	close(g.mended)
	g.mended = make(chan struct{})
	g.waitMu.Unlock()
}
