package transport

import (
	"sync"

	"github.com/phxsql/phxsql/paxos"
)

const (
	// urgentLimit bounds what waits in the urgent lane; above it frames are
	// dropped.
	urgentLimit = 4 << 20
	// smallRoom is how far messages without entries may exceed the limit of the
	// ordered lane.
	smallRoom = 1 << 20
	// segment is about how much of the ordered lane goes out before the urgent
	// lane is looked at again.
	segment = 256 << 10
	// keepBuffer is the largest buffer that an idle outbox keeps.
	keepBuffer = 64 << 10
)

// outbox holds encoded frames until the one writer takes them. It has two lanes.
// The ordered lane keeps the order of what depends on it: messages with entries,
// and those that speak about entries sent before. The urgent lane goes first:
// votes, acknowledgements, announcements, pings. So a queue full of entries
// delays no vote, and a heartbeat never overtakes the entries that it counts as sent.
//
// Frames are encoded when they are put in: their size is then exact, what the
// caller owns is free at once, and the writer swaps buffers instead of copying.
type outbox struct {
	limit int
	wake  chan struct{} // holds a token when there may be something to take

	mu      sync.Mutex
	urgent  []byte
	ordered []byte
	cuts    []int // ends of frames in ordered, about a segment apart
	closed  bool

	// What the writer took: spare is the urgent buffer last handed out, batch the
	// ordered one being handed out in segments.
	spare     []byte
	batch     []byte
	batchCuts []int
	batchAt   int
}

func newOutbox(limit int) *outbox {
	return &outbox{limit: limit, wake: make(chan struct{}, 1)}
}

// urgentMessage tells whether a message may overtake others. A MsgAccept without
// entries may not: it names the next instance, and would look like a gap. A
// MsgHandover should be the last word of its leader.
func urgentMessage(m *paxos.Message) bool {
	return len(m.Entries) == 0 && m.Kind != paxos.MsgAccept && m.Kind != paxos.MsgHandover
}

// putMessages queues messages and returns how many it took, and how many bytes.
// When the ordered lane is over its limit it refuses messages with entries; the
// sender will send them again when it still has to. A message that alone is
// larger than the limit is taken when nothing else waits.
func (o *outbox) putMessages(group paxos.Group, msgs []paxos.Message) (taken, bytes int) {
	o.mu.Lock()
	if o.closed {
		o.mu.Unlock()
		return 0, 0
	}
	for i := range msgs {
		m := &msgs[i]
		size := m.EncodedSize()
		if !o.fits(m, size) {
			continue
		}
		if urgentMessage(m) {
			o.urgent = appendMessage(o.urgent, group, m, size)
		} else {
			o.ordered = appendMessage(o.ordered, group, m, size)
			o.cut()
		}
		taken++
		bytes += headerSize + size
	}
	o.mu.Unlock()
	if taken > 0 {
		o.signal()
	}
	return taken, bytes
}

func (o *outbox) fits(m *paxos.Message, size int) bool {
	if size > MaxMessage {
		return false
	}
	if urgentMessage(m) {
		return len(o.urgent)+size <= urgentLimit
	}
	waiting := len(o.ordered) + len(o.batch) - o.batchAt
	if len(m.Entries) == 0 {
		return waiting+size <= max(o.limit, MaxMessage)+smallRoom
	}
	return waiting == 0 || waiting+size <= o.limit
}

// cut notes the end of a frame if a segment has grown long enough.
func (o *outbox) cut() {
	last := 0
	if n := len(o.cuts); n > 0 {
		last = o.cuts[n-1]
	}
	if len(o.ordered)-last >= segment {
		o.cuts = append(o.cuts, len(o.ordered))
	}
}

// putUrgent lets f append whole frames to the urgent lane unless it is full or
// the outbox closed.
func (o *outbox) putUrgent(f func(b []byte) []byte) bool {
	o.mu.Lock()
	ok := !o.closed && len(o.urgent) < urgentLimit
	if ok {
		o.urgent = f(o.urgent)
	}
	o.mu.Unlock()
	if ok {
		o.signal()
	}
	return ok
}

// putOrdered is putUrgent for the other lane, and one frame at a time.
func (o *outbox) putOrdered(f func(b []byte) []byte) bool {
	o.mu.Lock()
	ok := !o.closed && len(o.ordered) < o.limit
	if ok {
		o.ordered = f(o.ordered)
		o.cut()
	}
	o.mu.Unlock()
	if ok {
		o.signal()
	}
	return ok
}

func (o *outbox) signal() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// take returns the next bytes to write, nil if there are none. They are valid
// until the next take.
func (o *outbox) take() []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.urgent) > 0 {
		o.urgent, o.spare = o.spare[:0], o.urgent
		return o.spare
	}
	if o.batchAt == len(o.batch) {
		if len(o.ordered) == 0 {
			o.batch, o.batchAt = o.batch[:0], 0
			return nil
		}
		o.ordered, o.batch = o.batch[:0], o.ordered
		o.cuts, o.batchCuts = o.batchCuts[:0], o.cuts
		o.batchAt = 0
	}
	start, end := o.batchAt, len(o.batch)
	if len(o.batchCuts) > 0 {
		end = o.batchCuts[0]
		o.batchCuts = o.batchCuts[1:]
	}
	o.batchAt = end
	return o.batch[start:end]
}

// trim gives back the memory of large buffers; called when the writer is idle.
func (o *outbox) trim() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.urgent)+len(o.ordered) > 0 || o.batchAt != len(o.batch) {
		return
	}
	for _, b := range []*[]byte{&o.urgent, &o.ordered, &o.spare, &o.batch} {
		if cap(*b) > keepBuffer {
			*b = nil
		}
	}
	o.batchAt = len(o.batch)
}

// close drops what waits and refuses what comes.
func (o *outbox) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	o.urgent, o.ordered, o.cuts = nil, nil, nil
}
