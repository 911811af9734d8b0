package agent

import (
	"context"
	"path/filepath"
	"sync"
	"time"

	"github.com/phxsql/phxsql/internal/entry"
	"github.com/phxsql/phxsql/internal/events"
	"github.com/phxsql/phxsql/internal/telemetry"
	"github.com/phxsql/phxsql/paxos"
)

const (
	eventsFileName = "events.jsonl"
	// publishEvery is how often what the log has not said yet is offered to it again.
	publishEvery = time.Second
	publishLimit = 3 * time.Second
	// maxBurst bounds the events of one node: so many at once, then one every
	// burstEvery. What is more is only in the node's own log file.
	maxBurst   = 60
	burstEvery = 2 * time.Second
	// maxHeard bounds what waits to be written down; the oldest goes, as it would from
	// the book.
	maxHeard = events.Keep
)

// history carries events: from this node into the log, and from the log onto the
// node's disk. What happens while nobody leads waits on the disk. Its methods may
// be called from any goroutine; serve owns the file.
type history struct {
	a    *Agent
	file *eventsFile
	wake chan struct{} // has room for one

	mu       sync.Mutex
	book     events.Book
	heard    []heardNotice  // came from the log and is not on the disk yet
	happened []events.Event // the same of what this node has to say
	writing  paxos.Instance // the first of heard that serve is writing; 0: none
	n        uint64         // events of this life
	tokens   float64        // see maxBurst
	spent    time.Time      // when tokens was brought up to date
	dropped  uint64
	present  mastery // this life's
	past     mastery // that of the life before
	machine  string
	fetched  paxos.Instance // the older events of others were asked for when the log began here
}

// heardNotice is an event as the log says it.
type heardNotice struct {
	at   paxos.Instance
	text []byte
}

func newHistory(a *Agent) (*history, error) {
	h := &history{a: a, wake: make(chan struct{}, 1), tokens: maxBurst, machine: machineBoot()}
	var list []events.Event
	var err error
	if h.file, list, err = openEventsFile(filepath.Join(a.cfg.Node.DataDir, eventsFileName)); err != nil {
		return nil, err
	}
	for _, e := range list {
		h.book.Add(e)
	}
	h.past, err = readMastery(a.cfg.Node.DataDir)
	return h, err
}

// notice takes a notice of the log in. It is a relay.Listener.
func (h *history) notice(at paxos.Instance, kind entry.Kind, text []byte) {
	if kind != entry.Event {
		return // of a later release, or read where the local server is served
	}
	h.mu.Lock()
	h.heard = append(h.heard, heardNotice{at, text})
	if len(h.heard) > maxHeard {
		h.heard = h.heard[1:]
	}
	h.mu.Unlock()
	h.poke()
}

// record takes in what happened on this node.
func (h *history) record(e events.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	h.tokens = min(maxBurst, h.tokens+float64(now.Sub(h.spent))/float64(burstEvery))
	h.spent = now
	if h.tokens < 1 {
		h.dropped++
		return
	}
	h.tokens--
	h.n++
	e.ID, e.Node = events.ID(h.a.cfg.Node.ID, h.a.boot, h.n), h.a.cfg.Node.ID
	if e.At.IsZero() {
		e.At = now
	}
	e.At = e.At.UTC().Round(0)
	h.happened = append(h.happened, e)
	h.poke()
}

func (h *history) poke() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// saved is the newest instance through which every event of the log is on the disk.
func (h *history) saved() paxos.Instance {
	through := h.a.journal.Through() // before heard: what is followed later is not in question
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.writing != 0 {
		return min(through, h.writing-1)
	}
	if len(h.heard) > 0 {
		return min(through, h.heard[0].at-1)
	}
	return through
}

// newest returns the newest n events that this node knows, 0 for all.
func (h *history) newest(n int) []events.Event {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.book.Newest(n)
}

// serve writes down and publishes until ctx ends, and writes down what is left.
func (h *history) serve(ctx context.Context) {
	t := time.NewTicker(publishEvery)
	defer t.Stop()
	defer func() { h.writeDown(); h.file.close() }()
	for {
		h.writeDown()
		h.publish(ctx)
		h.fetch(ctx)
		select {
		case <-ctx.Done():
			return
		case <-h.wake:
		case <-t.C:
		}
	}
}

// writeDown puts onto the disk what came in.
func (h *history) writeDown() {
	h.mu.Lock()
	heard, happened, life, dropped := h.heard, h.happened, h.present, h.dropped
	h.heard, h.happened, h.dropped, h.present.changed = nil, nil, 0, false
	if len(heard) > 0 {
		h.writing = heard[0].at
	}
	h.mu.Unlock()
	if dropped > 0 {
		h.a.log.Warn("events dropped", telemetry.KeyCount, dropped, telemetry.KeyReason, "too many at once")
	}
	var fresh []events.Event
	for _, n := range heard {
		e, err := events.Decode(n.text, n.at)
		if err != nil {
			h.a.log.Warn("event cannot be read", telemetry.KeyInstance, uint64(n.at), telemetry.KeyError, err)
			continue
		}
		fresh = append(fresh, e)
	}
	h.take(append(fresh, happened...))
	if err := life.write(h.a.cfg.Node.DataDir); err != nil {
		h.a.log.Warn("mastery not written down", telemetry.KeyError, err)
	}
	h.mu.Lock()
	h.writing = 0
	h.mu.Unlock()
}

// take adds events to the book and to its file.
func (h *history) take(list []events.Event) {
	h.mu.Lock()
	var fresh []events.Event
	for _, e := range list {
		if h.book.Add(e) {
			fresh = append(fresh, e)
		}
	}
	all := h.book.Newest(0)
	h.mu.Unlock()
	if len(fresh) == 0 {
		return
	}
	for _, e := range fresh {
		h.judged(e)
	}
	if err := h.file.append(fresh, all); err != nil {
		h.a.log.Warn("events not written down", telemetry.KeyError, err)
	}
}

// readable reports whether every member reads notices: it has said so, or there is
// one in the log, which no older one could have got past.
func (h *history) readable() bool {
	h.mu.Lock()
	known := h.book.Through() != 0
	h.mu.Unlock()
	if known {
		return true
	}
	for _, m := range h.a.group.Leader().Members.List {
		if m.ID == h.a.cfg.Node.ID {
			continue
		}
		if an, _, ok := h.a.peers.get(m.ID, time.Now()); !ok || !an.Notices {
			return false
		}
	}
	return true
}

// publish offers to the log what it has not said yet, in order. What fails, or of
// which nobody knows whether it was chosen, is offered again: its id tells that it is
// the same.
func (h *history) publish(ctx context.Context) {
	h.mu.Lock()
	pending := h.book.Pending()
	h.mu.Unlock()
	if len(pending) == 0 || !h.readable() {
		return
	}
	for _, e := range pending {
		leader := h.a.group.Leader().Leader
		if leader == 0 {
			return
		}
		ctx, cancel := context.WithTimeout(ctx, publishLimit)
		err := h.a.call(ctx, leader, callNotice, noticeRequest{Kind: entry.Event, Text: string(e.Encode())}, nil)
		cancel()
		if err != nil {
			h.a.log.Debug("event not published", telemetry.KeyTo, uint64(leader), telemetry.KeyError, err)
			return
		}
	}
	// They come back from the log, and are no longer pending then.
}

// fetch asks another member for older events where the own log begins too late for
// them: on a new node, and where the log began anew.
func (h *history) fetch(ctx context.Context) {
	first := h.a.group.First()
	h.mu.Lock()
	done := h.fetched >= first
	h.mu.Unlock()
	leader := h.a.group.Leader().Leader
	if done || leader == 0 || leader == h.a.cfg.Node.ID {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, publishLimit)
	defer cancel()
	var res historyAnswer
	if err := h.a.call(ctx, leader, callHistory, nothing{}, &res); err != nil {
		h.a.log.Debug("older events not fetched", telemetry.KeyFrom, uint64(leader), telemetry.KeyError, err)
		return
	}
	through := h.a.journal.Through()
	var older []events.Event
	for _, e := range res.Events {
		if e.Instance != 0 && e.Instance <= through {
			older = append(older, e)
		}
	}
	h.take(older)
	h.mu.Lock()
	h.fetched = first
	h.mu.Unlock()
}
