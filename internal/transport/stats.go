package transport

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/phxsql/phxsql/paxos"
)

// stats counts what passed between this node and one other since the start.
type stats struct {
	bytesOut, messagesOut atomic.Uint64
	bytesIn, messagesIn   atomic.Uint64
	droppedFull           atomic.Uint64
	droppedDown           atomic.Uint64
	droppedFalse          atomic.Uint64
	rtt                   atomic.Int64 // nanoseconds
}

// PeerStatus is what is known about the connections with one other node.
type PeerStatus struct {
	ID   paxos.NodeID `json:"id"`
	Addr string       `json:"addr,omitempty"` // empty: it connected, but SetPeers does not name it
	// Connected says that this node can send to the peer; Since is when that
	// last changed.
	Connected bool      `json:"connected"`
	Since     time.Time `json:"since,omitzero"`
	// Accepted says that the peer can send to this node; AcceptedSince is when
	// its connection was admitted.
	Accepted      bool      `json:"accepted"`
	AcceptedSince time.Time `json:"accepted_since,omitzero"`
	// Reason is the stable name of LastError, see Reason. It stays when the
	// peer is connected again: LastErrorAt tells how old it is.
	Reason      string    `json:"reason,omitempty"`
	LastError   string    `json:"last_error,omitempty"`
	LastErrorAt time.Time `json:"last_error_at,omitzero"`
	// RTT is the time of the last ping and its answer; 0 if there was none.
	RTT time.Duration `json:"rtt_ns"`

	BytesOut    uint64 `json:"bytes_out"` // frames of messages and announcements
	MessagesOut uint64 `json:"messages_out"`
	BytesIn     uint64 `json:"bytes_in"`
	MessagesIn  uint64 `json:"messages_in"`
	// DroppedFull counts messages refused because the queue was full,
	// DroppedDown those given while there was no connection, DroppedFalse those
	// that arrived with another node's name as sender or receiver.
	DroppedFull  uint64 `json:"dropped_full"`
	DroppedDown  uint64 `json:"dropped_down"`
	DroppedFalse uint64 `json:"dropped_false"`
}

func (s *stats) fill(p *PeerStatus) {
	p.RTT = time.Duration(s.rtt.Load())
	p.BytesOut, p.MessagesOut = s.bytesOut.Load(), s.messagesOut.Load()
	p.BytesIn, p.MessagesIn = s.bytesIn.Load(), s.messagesIn.Load()
	p.DroppedFull, p.DroppedDown = s.droppedFull.Load(), s.droppedDown.Load()
	p.DroppedFalse = s.droppedFalse.Load()
}

// Refusal is a connection that this node refused, or that ended before it was
// known whose it was. Those of one remote, node and reason are counted, not repeated.
type Refusal struct {
	First  time.Time    `json:"first"`
	Last   time.Time    `json:"last"`
	Count  uint64       `json:"count"`
	Remote string       `json:"remote"`         // address without port
	Node   paxos.NodeID `json:"node,omitempty"` // 0 if it is not known
	Reason string       `json:"reason"`
	Error  string       `json:"error"` // of the last one
}

// Status is a picture of the transport.
type Status struct {
	Peers   []PeerStatus `json:"peers"`             // ascending by id
	Refused []Refusal    `json:"refused,omitempty"` // newest last
}

// keepRefusals bounds the list of refusals; the oldest goes.
const keepRefusals = 16

type refusals struct {
	mu   sync.Mutex
	list []Refusal
}

// add counts a refusal and reports whether it is a new one.
func (r *refusals) add(n Refusal) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.list {
		o := r.list[i]
		if o.Remote == n.Remote && o.Node == n.Node && o.Reason == n.Reason {
			o.Last, o.Count, o.Error = n.Last, o.Count+1, n.Error
			r.list = append(append(r.list[:i], r.list[i+1:]...), o)
			return false
		}
	}
	if len(r.list) == keepRefusals {
		r.list = append(r.list[:0], r.list[1:]...)
	}
	n.First, n.Count = n.Last, 1
	r.list = append(r.list, n)
	return true
}

func (r *refusals) snapshot() []Refusal {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]Refusal(nil), r.list...)
}
