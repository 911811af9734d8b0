package agent

import (
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/phxsql/phxsql/internal/api"
	"github.com/phxsql/phxsql/paxos"
)

// announceEvery is the longest silence of a node towards the others, and
// aliveFor how long an announcement keeps a node alive in their eyes.
const (
	announceEvery = time.Second
	aliveFor      = 3500 * time.Millisecond
	// maxAnnouncement limits what is read from a peer.
	maxAnnouncement = 1 << 20
)

// announcement is what a node tells the others about itself, about once a second
// and at every change. It is JSON: it is small, rare, and people read it.
type announcement struct {
	// Seq grows with every announcement of one process; Boot tells processes apart.
	Boot string `json:"boot"`
	Seq  uint64 `json:"seq"`
	Able bool   `json:"able"`
	Wary bool   `json:"wary,omitempty"` // it would lead only when nobody else does
	// Counted is the instance through which its lag is counted; 0 when it is not known.
	Counted paxos.Instance `json:"counted,omitempty"`
	// Near says that what the server has executed is no older than nearLag.
	Near bool `json:"near,omitempty"`
	// Arriving says that the sender follows the log on its way to where it can be relied
	// on: the master lets it catch up.
	Arriving bool `json:"arriving,omitempty"`
	// Cluster and Log are the identities of the sender's cluster and log.
	Cluster string `json:"cluster"`
	// Notices says that the sender reads notices of the log.
	Notices bool `json:"notices,omitempty"`
	// Leases says that the sender can change the length of leases while it runs.
	Leases bool             `json:"leases,omitempty"`
	Log    string           `json:"log"`
	Member api.MemberStatus `json:"member"`
}

func (a *announcement) encode() ([]byte, error) {
	b, err := json.Marshal(a)
	if err != nil {
		return nil, fmt.Errorf("encode announcement: %w", err)
	}
	return b, nil
}

func decodeAnnouncement(b []byte) (announcement, error) {
	var a announcement
	if len(b) > maxAnnouncement {
		return a, fmt.Errorf("decode announcement: %d bytes, limit %d", len(b), maxAnnouncement)
	}
	if err := json.Unmarshal(b, &a); err != nil {
		return a, fmt.Errorf("decode announcement: %w", err)
	}
	return a, nil
}

// peers keeps what the other nodes announced last. It is safe for concurrent use.
type peers struct {
	mu sync.Mutex
	by map[paxos.NodeID]heard
}

type heard struct {
	announcement
	at time.Time
}

func newPeers() *peers { return &peers{by: map[paxos.NodeID]heard{}} }

// put takes in an announcement. One that was overtaken by a later one of the same
// process is dropped.
func (p *peers) put(from paxos.NodeID, a announcement, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if old, ok := p.by[from]; ok && old.Boot == a.Boot && old.Seq >= a.Seq {
		return false
	}
	p.by[from] = heard{announcement: a, at: now}
	return true
}

// get returns the last announcement of a node and its age.
func (p *peers) get(id paxos.NodeID, now time.Time) (announcement, time.Duration, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	h, ok := p.by[id]
	return h.announcement, now.Sub(h.at), ok
}
