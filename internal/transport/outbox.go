package transport

import (
	"sync"
	"time"

	"github.com/phxsql/phxsql/paxos"
)

const (
	// urgentLimit bounds what waits in the urgent lane; above it frames are
	// dropped.
	urgentLimit = 4 << 20
	// smallRoom is what messages without entries have in the ordered lane after
	// all others.
	smallRoom = 1 << 20
	// chunkSize is about how much of the ordered lane goes out before the urgent
	// lane is looked at again. A larger message is a chunk of its own.
	chunkSize = 256 << 10
	// refData is the mean length of entries from which a message is a chunk of its own
	// too, and from which their data go out from where they are.
	refData = 8 << 10
	// keepChunks is how many chunks a busy outbox keeps for the next messages, and
	// keepBuffer the largest buffer of an idle one.
	keepChunks = 4
	keepBuffer = 16 << 10
)

// outbox holds encoded frames until the one writer takes them. It has two lanes.
// The ordered lane keeps the order of what depends on it: messages with entries,
// and those that speak about entries sent before. The urgent lane goes first:
// votes, acknowledgements, announcements, pings. So a queue full of entries
// delays no vote, and a heartbeat never overtakes the entries that it counts as sent.
//
// Frames are encoded when they are put in: their size is then exact, and what the
// caller owns is free at once. The exception is the data of large messages, which
// nobody changes: they are written from where they are, or copied piece by piece where
// the writer must have them together, and so take no memory of their own however many
// wait.
type outbox struct {
	limit int
	joint bool          // the writer takes one piece at a time: it encrypts
	wake  chan struct{} // holds a token when there may be something to take

	mu      sync.Mutex
	closed  bool
	writing bool // somebody has the pen, and looks for more before giving it back
	urgent  []byte
	ordered []chunk // in order
	waiting int     // bytes in ordered

	// Of who has the pen.
	large [][]byte // what is left of the large frame that is being written
	piece []byte   // what of it was copied for the writer
	burst [][]byte // what the writer has
	rest  [][]byte // what a sender could not write without waiting
	wrote int64    // when the pen was given back last, by Transport.clock

	taken []byte   // the chunk of the ordered lane that the writer has
	spare []byte   // the urgent buffer that the writer has, or had
	free  [][]byte // empty chunks
}

// chunk is a part of the ordered lane: whole frames, or the pieces of one large
// frame.
type chunk struct {
	frames []byte
	large  [][]byte
	size   int // of the large frame
}

func newOutbox(limit int, joint bool) *outbox {
	return &outbox{limit: limit, joint: joint, wake: make(chan struct{}, 1)}
}

// urgentMessage tells whether a message may overtake others. A MsgAccept without
// entries may not: it names the next instance, and would look like a gap. A
// MsgHandover should be the last word of its leader.
func urgentMessage(m *paxos.Message) bool {
	return len(m.Entries) == 0 && m.Kind != paxos.MsgAccept && m.Kind != paxos.MsgHandover
}

// putMessages queues messages and returns how many it took, and how many bytes.
// When the ordered lane is over its limit it refuses messages with entries; the
// sender will send them again when it still has to. The caller sees to it that they are
// written (lend or signal). A promise is taken all the same,
// because an election waits for it, and so is a message that alone is larger than the
// limit when nothing else waits. The messages of one caller keep their order.
func (o *outbox) putMessages(group paxos.Group, msgs []paxos.Message) (taken, bytes int) {
	o.mu.Lock()
	for i := range msgs {
		m := &msgs[i]
		size := m.EncodedSize()
		if o.closed || !o.fits(m, size) {
			continue
		}
		switch {
		case urgentMessage(m):
			o.urgent = appendMessage(o.urgent, group, m, size)
		case headerSize+size > chunkSize || size >= refData*max(1, len(m.Entries)):
			o.putLarge(group, m, size)
		default:
			o.waiting += headerSize + size
			c := o.chunk(headerSize + size)
			*c = appendMessage(*c, group, m, size)
		}
		taken++
		bytes += headerSize + size
	}
	o.mu.Unlock()
	return taken, bytes
}

// putLarge queues a large message; the caller holds mu.
func (o *outbox) putLarge(group paxos.Group, m *paxos.Message, size int) {
	var head [headerSize]byte
	o.waiting += headerSize + size
	o.ordered = append(o.ordered, chunk{large: m.Pieces(appendHeader(head[:0], frameMessage, group, size)), size: headerSize + size})
}

func (o *outbox) fits(m *paxos.Message, size int) bool {
	switch {
	case size > MaxMessage:
		return false
	case urgentMessage(m):
		return len(o.urgent)+size <= urgentLimit
	case len(m.Entries) == 0:
		return o.waiting+size <= o.limit+MaxMessage+smallRoom
	case m.Kind == paxos.MsgPromise:
		return o.waiting+size <= o.limit+MaxMessage
	}
	return o.waiting == 0 || o.waiting+size <= o.limit
}

// chunk returns the chunk that a frame of the given size goes to.
func (o *outbox) chunk(size int) *[]byte {
	n := len(o.ordered)
	if n > 0 && o.ordered[n-1].large == nil && len(o.ordered[n-1].frames)+size <= chunkSize {
		return &o.ordered[n-1].frames
	}
	var c []byte
	if f := len(o.free); f > 0 {
		c, o.free = o.free[f-1], o.free[:f-1]
	} else if n > 0 { // busy: no use in growing step by step
		c = make([]byte, 0, chunkSize)
	}
	o.ordered = append(o.ordered, chunk{frames: c})
	return &o.ordered[n].frames
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

// putOrdered is putUrgent for the other lane, and for one frame.
func (o *outbox) putOrdered(size int, f func(b []byte) []byte) bool {
	o.mu.Lock()
	ok := !o.closed && (o.waiting == 0 || o.waiting+size <= o.limit)
	if ok {
		o.waiting += size
		c := o.chunk(size)
		*c = f(*c)
	}
	o.mu.Unlock()
	if ok {
		o.signal()
	}
	return ok
}

const (
	// lendGap is how long a connection must have been quiet for a sender to write itself.
	// On a busier one the writer makes fewer system calls: it takes all that has queued.
	lendGap = int64(50 * time.Microsecond)
	// lendLimit bounds what a sender writes itself, which holds it up.
	lendLimit = 32 << 10
)

// lend gives the pen to a sender that can write without waiting, which saves waking the
// writer. Where it does not, it sees to it that the writer writes.
func (o *outbox) lend(now int64) bool {
	o.mu.Lock()
	busy := o.writing // who has the pen looks again
	ok := !busy && !o.closed && len(o.rest) == 0 && len(o.large) == 0 &&
		now-o.wrote >= lendGap && len(o.urgent)+o.waiting <= lendLimit
	if ok {
		o.writing = true
	}
	o.mu.Unlock()
	if !ok && !busy {
		o.signal()
	}
	return ok
}

// grab gives the pen to the writer, unless a sender has it.
func (o *outbox) grab() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	ok := !o.writing
	o.writing = true
	return ok
}

// release gives the pen back, and wakes the writer if something is left.
func (o *outbox) release(now int64) {
	o.mu.Lock()
	o.writing, o.wrote = false, now
	more := len(o.rest) > 0 || len(o.large) > 0 || len(o.urgent) > 0 || len(o.ordered) > 0
	o.mu.Unlock()
	if more {
		o.signal()
	}
}

func (o *outbox) signal() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// take returns the next bytes to write, one piece behind the other; nil if there are
// none. They are valid until the next take, and chunkSize at most unless they are one
// piece. The caller has the pen.
func (o *outbox) take() [][]byte {
	if b := o.rest; len(b) > 0 {
		o.rest = nil
		return b
	}
	if len(o.large) == 0 { // a frame is never interrupted
		if b := o.takeChunk(); b != nil {
			o.burst = append(o.burst[:0], b)
			return o.burst
		}
	}
	if len(o.large) > 0 {
		return o.takePieces()
	}
	return nil
}

// takePieces takes the next part of the large frame. Small pieces are copied together.
func (o *outbox) takePieces() [][]byte {
	if o.piece == nil {
		o.piece = make([]byte, 0, chunkSize)
	}
	o.burst = o.burst[:0]
	copied, from, size := o.piece[:0], 0, 0
	for len(o.large) > 0 && (size < chunkSize || len(o.large[0]) == 0) { // empty ones must not be left alone
		n := min(chunkSize-size, len(o.large[0]))
		part := o.large[0][:n]
		if o.joint || n < refData {
			copied = append(copied, part...) // never moves: its capacity is chunkSize
		} else {
			if from < len(copied) {
				o.burst = append(o.burst, copied[from:])
				from = len(copied)
			}
			o.burst = append(o.burst, part)
		}
		size += n
		if o.large[0] = o.large[0][n:]; len(o.large[0]) == 0 {
			o.large[0] = nil
			o.large = o.large[1:]
		}
	}
	if from < len(copied) {
		o.burst = append(o.burst, copied[from:])
	}
	return o.burst
}

// takeChunk takes the next chunk: it returns its frames, or makes it the large
// frame to be written.
func (o *outbox) takeChunk() []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.urgent) > 0 {
		o.urgent, o.spare = o.spare[:0], o.urgent
		return o.spare
	}
	if cap(o.taken) > 0 && cap(o.taken) <= 2*chunkSize && len(o.free) < keepChunks {
		o.free = append(o.free, o.taken[:0])
	}
	o.taken = nil
	if len(o.ordered) == 0 {
		return nil
	}
	c := o.ordered[0]
	n := copy(o.ordered, o.ordered[1:])
	o.ordered[n] = chunk{}
	o.ordered = o.ordered[:n]
	o.waiting -= len(c.frames) + c.size
	o.taken, o.large = c.frames, c.large
	return o.taken
}

// trim gives back most memory; called when the writer has found nothing for a while.
func (o *outbox) trim() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.writing || len(o.urgent) > 0 || o.waiting > 0 || o.taken != nil || len(o.large) > 0 || len(o.rest) > 0 {
		return
	}
	o.piece, o.burst = nil, nil
	if cap(o.urgent) > keepBuffer {
		o.urgent = nil
	}
	if cap(o.spare) > keepBuffer {
		o.spare = nil
	}
	if len(o.free) > 0 && cap(o.free[0]) <= keepBuffer {
		clear(o.free[1:])
		o.free = o.free[:1]
	} else {
		o.free = nil
	}
}

// close drops what waits and refuses what comes.
func (o *outbox) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	o.urgent, o.ordered, o.free, o.waiting = nil, nil, nil, 0
}
