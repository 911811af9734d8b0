package agent

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/phxsql/phxsql/internal/api"
	"github.com/phxsql/phxsql/internal/entry"
	"github.com/phxsql/phxsql/internal/events"
	"github.com/phxsql/phxsql/internal/evidence"
	"github.com/phxsql/phxsql/internal/gtid"
	"github.com/phxsql/phxsql/internal/telemetry"
	"github.com/phxsql/phxsql/paxos"
)

// The calls between agents that carry events.
const (
	callNotice  = "notice"  // noticeRequest -> noticeAnswer: to the leader, puts a notice into the log
	callHistory = "history" // nothing -> historyAnswer: the newest events that the node knows
)

type noticeRequest struct {
	Kind entry.Kind `json:"kind"`
	Text string     `json:"text"`
}

type noticeAnswer struct {
	Instance paxos.Instance `json:"instance"`
}

type historyAnswer struct {
	Events []events.Event `json:"events"`
}

// maxHistoryBytes bounds the answer to callHistory; the newest are given.
const maxHistoryBytes = 3 << 20

// buildHistory makes what keeps and judges events. It comes before the loop is made.
func (a *Agent) buildHistory() error {
	h, err := newHistory(a)
	if err != nil {
		return err
	}
	a.history = h
	a.salvage.folder = evidence.Folder{Dir: filepath.Join(filepath.Dir(a.cfg.SocketPath()), "discarded")}
	if waiting, err := a.salvage.folder.Pending(); err == nil && len(waiting) > 0 {
		a.salvage.waiting.Store(true)
	}
	a.journal.Listen(h.notice)
	handle(a, callNotice, a.onNotice)
	handle(a, callHistory, a.onHistory)
	return nil
}

// toldOf gives the loop what it needs to tell what happens.
func (a *Agent) toldOf() told {
	return told{
		record: a.history.record, loss: a.seenLoss, lease: func() time.Duration { return a.settled().Consensus.Lease.D() },
		commit: a.journal.AwaitTransaction, reign: a.history.reign, judge: a.judgeTail,
	}
}

// startHistory sets it going, and says what became of the last life.
func (a *Agent) startHistory(ctx context.Context) {
	a.wg.Go(func() { a.history.serve(ctx) })
	if e, open := a.history.verdict(); open {
		a.loop.rowsDiffer(e.Reason) // the loop does not run yet
	}
	past := a.history.past
	if !past.Open {
		return
	}
	e := events.Event{Kind: events.Returned, Epoch: past.Epoch, Cause: events.CauseAgent, Reason: "the agent's process ended without a word while it was the master: killed, or it failed; see its own log"}
	if now := machineBoot(); past.Machine != "" && now != "" && past.Machine != now {
		e.Cause, e.Reason = events.CauseMachine, "the machine started anew while it was the master: power loss, a kernel panic, or a reboot that killed the agent"
	}
	a.history.record(e)
}

// reign remembers that this node is the master of an epoch, or no longer.
func (h *history) reign(epoch uint64, open bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.present = mastery{Format: 1, Epoch: epoch, Open: open, Machine: h.machine, changed: true}
	h.poke()
}

// lastEpoch is the newest epoch in which this node was the master, in this life or
// the one before; 0 if it is not known.
func (h *history) lastEpoch() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return max(h.present.Epoch, h.past.Epoch)
}

// seenLoss says what the transport knows of a leader that is gone.
func (a *Agent) seenLoss(old paxos.NodeID) (events.Cause, string) {
	for _, s := range a.transport.Status().Peers {
		if s.ID != old {
			continue
		}
		switch {
		case s.Connected:
			return events.CauseSilent, "its connection stands, but it renewed no lease: it hangs, its disk does, or it is cut off since a moment ago"
		case strings.Contains(s.LastError, "connection refused"):
			return events.CauseRefused, "nobody listens there any more: " + s.LastError
		case s.LastError != "":
			return events.CauseCutOff, s.LastError
		}
	}
	return events.CauseSilent, "nothing came from it any more"
}

// onNotice puts a notice into the log.
func (a *Agent) onNotice(ctx context.Context, from paxos.NodeID, req noticeRequest) (noticeAnswer, error) {
	if !req.Kind.Notice() || len(req.Text) == 0 || len(req.Text) > entry.MaxNotice {
		return noticeAnswer{}, api.BadRequest("bad_notice", fmt.Sprintf("a notice of kind %d with %d bytes", req.Kind, len(req.Text)), "")
	}
	v := entry.Value{Kind: req.Kind, Epoch: a.journal.Epoch().Number, Node: uint64(from), Events: []byte(req.Text)}
	type outcome struct {
		at  paxos.Instance
		err error
	}
	chosen := make(chan outcome, 1)
	if err := a.group.ProposeHere(v.Encode(), func(i paxos.Instance, err error) { chosen <- outcome{i, err} }); err != nil {
		return noticeAnswer{}, err
	}
	select {
	case o := <-chosen:
		return noticeAnswer{o.at}, o.err
	case <-ctx.Done():
		return noticeAnswer{}, ctx.Err()
	}
}

func (a *Agent) onHistory(context.Context, paxos.NodeID, nothing) (historyAnswer, error) {
	list := a.history.newest(0)
	size, from := 0, len(list)
	for from > 0 && size < maxHistoryBytes {
		from--
		size += len(list[from].Encode()) + 64
	}
	return historyAnswer{list[from:]}, nil
}

// Why returns the newest events that this node knows, oldest first.
func (a *Agent) Why(_ context.Context, n int) ([]events.Event, error) {
	return a.history.newest(n), nil
}

// salvage keeps and judges what the restart recipe removes.
type salvage struct {
	folder  evidence.Folder
	waiting atomic.Bool // there is something to judge
	mu      sync.Mutex  // one judgement at a time
}

// keepBinlog is called before a start of the server with its newest binary log.
func (a *Agent) keepBinlog(file string) error {
	l := evidence.Life{Taken: time.Now().UTC(), Epoch: a.history.lastEpoch()}
	if p := a.tail.acked(); p.File == filepath.Base(file) {
		l.Acked = int64(p.Pos)
	}
	took, err := a.salvage.folder.Take(file, l)
	if took {
		a.salvage.waiting.Store(true)
	}
	return err
}

// judgeTail judges the binary logs that were kept. What a master wrote in its reign
// counts only if it stands in the log before the next epoch: when that is known, so
// is the fate of all of it, and never changes. It is judged before this server is a
// master again: it would use the numbers of what it took back for other transactions.
func (a *Agent) judgeTail(newest uint64, through paxos.Instance, log, engine *gtid.Set) {
	if !a.salvage.waiting.Load() || newest <= a.history.lastEpoch() {
		return
	}
	a.salvage.waiting.Store(false)
	go func() {
		a.salvage.mu.Lock()
		defer a.salvage.mu.Unlock()
		waiting, err := a.salvage.folder.Pending()
		if err != nil {
			a.log.Warn("evidence not listed", telemetry.KeyError, err)
		}
		for _, p := range waiting {
			if p.Epoch >= newest {
				a.salvage.waiting.Store(true) // taken a moment ago
				continue
			}
			if err := a.judgeOne(p, through, evidence.Known{Log: log, Engine: engine}); err != nil {
				a.log.Warn("evidence not judged", telemetry.KeyError, err)
			}
		}
	}()
}

func (a *Agent) judgeOne(p evidence.Pending, through paxos.Instance, known evidence.Known) error {
	k, path, err := a.salvage.folder.Judge(p, known, uint64(through), time.Now().UTC())
	if err != nil {
		return err
	}
	d := &events.Discard{
		Count: k.Count, GTIDs: k.GTIDs, Chosen: k.Chosen, Through: through, InEngine: k.InEngine, EngineKnown: known.Engine != nil,
		AckKnown: p.Acked > 0, BeforeAck: k.BeforeAck, Evidence: path, Cut: k.Cut,
	}
	a.log.Info("binary log judged", telemetry.KeyFile, p.File, telemetry.KeyCount, k.Count, telemetry.KeyGTIDs, d.GTIDs, telemetry.KeyDir, path)
	if !d.Clean() {
		a.log.Error("transactions taken back that may have been acknowledged", telemetry.KeyGTIDs, d.GTIDs, telemetry.KeyReason, d.Sentence(), telemetry.KeyDir, path, telemetry.KeyHint, "keep the folder and report it")
	}
	a.history.record(events.Event{Kind: events.Discarded, Epoch: p.Epoch, Discard: d})
	return nil
}
