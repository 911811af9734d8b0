package telemetry

import (
	"sync"
	"time"
)

// The limits of the ring.
const (
	DefaultEvents = 1000 // events kept; the oldest is dropped
	maxEventAttrs = 32   // attributes of an event; further ones are dropped
	maxEventText  = 1024 // bytes of an attribute's value; the rest is cut
)

// Event is something that happened on a node: a log record of level Info or above.
type Event struct {
	// Seq numbers the events of one process from 1.
	Seq     uint64      `json:"seq"`
	Time    time.Time   `json:"time"`
	Level   string      `json:"level"` // info, warn, error
	Message string      `json:"message"`
	Attrs   []EventAttr `json:"attrs,omitempty"`
}

// EventAttr is one key and value of an event.
type EventAttr struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// Events is the ring of a node's latest events. It is safe for concurrent use.
type Events struct {
	mu      sync.Mutex
	ring    []Event
	last    uint64
	changed chan struct{}
}

// NewEvents returns a ring of the given size; 0 takes DefaultEvents.
func NewEvents(size int) *Events {
	if size <= 0 {
		size = DefaultEvents
	}
	return &Events{ring: make([]Event, size), changed: make(chan struct{})}
}

func (es *Events) add(e Event) {
	es.mu.Lock()
	defer es.mu.Unlock()
	es.last++
	e.Seq = es.last
	es.ring[e.Seq%uint64(len(es.ring))] = e
	close(es.changed)
	es.changed = make(chan struct{})
}

// After returns the kept events with a number above seq, oldest first, and a
// channel that is closed when there is one more.
func (es *Events) After(seq uint64) ([]Event, <-chan struct{}) {
	es.mu.Lock()
	defer es.mu.Unlock()
	first := seq + 1
	if n := uint64(len(es.ring)); es.last >= n {
		first = max(first, es.last-n+1)
	}
	var out []Event
	for s := first; s <= es.last; s++ {
		out = append(out, es.ring[s%uint64(len(es.ring))])
	}
	return out, es.changed
}

func clip(s string) string {
	if len(s) <= maxEventText {
		return s
	}
	return s[:maxEventText] + "..."
}
