package transport

import (
	"crypto/rand"
	"encoding/json"
	"fmt"

	"github.com/phxsql/phxsql/paxos"
)

// Version is the version of the protocol that follows the first frames.
const Version = 1

// Hello is what a node says about itself before anything else.
type Hello struct {
	// Version is the protocol's; the transport fills it in.
	Version int `json:"version"`
	// Cluster is the cluster's identity; empty on a blank node.
	Cluster string `json:"cluster,omitempty"`
	// Node is the sender; the transport fills it in and checks it against the
	// certificate.
	Node paxos.NodeID `json:"node"`
	// Log is the identity of the sender's log.
	Log string `json:"log,omitempty"`
	// Boot is drawn when the transport is made and tells two processes with one
	// node id apart; the transport fills it in.
	Boot string `json:"boot"`
}

// refusal is the payload of a refuse frame.
type refusal struct {
	Code string `json:"code"`
	Text string `json:"text"`
}

// newBoot draws the identity of a process.
func newBoot() string { return rand.Text() }

func appendHello(b []byte, kind frameKind, h Hello) ([]byte, error) {
	p, err := json.Marshal(h)
	if err != nil {
		return nil, fmt.Errorf("encode hello: %w", err)
	}
	if len(p) > maxHello {
		return nil, fmt.Errorf("encode hello: %d bytes, limit %d: %w", len(p), maxHello, ErrTooLarge)
	}
	return appendFrame(b, kind, p), nil
}

func appendRefusal(b []byte, err error) []byte {
	r := refusal{Code: Reason(err), Text: err.Error()}
	if r.Code == "unreachable" {
		r.Code = "refused"
	}
	if len(r.Text) > maxHello/8 { // JSON may need six bytes for one
		r.Text = r.Text[:maxHello/8]
	}
	p, merr := json.Marshal(r)
	if merr != nil {
		panic(fmt.Sprintf("transport: encode refusal: %v", merr)) // two strings: cannot fail
	}
	return appendFrame(b, frameRefuse, p)
}

// parseHello reads the first frame of the other side: its Hello, or its refusal
// as an error.
func parseHello(f frame, want frameKind) (Hello, error) {
	if f.kind == frameRefuse {
		return Hello{}, parseRefusal(f.payload, 0)
	}
	if f.kind != want {
		return Hello{}, fmt.Errorf("read hello: frame of kind %d: %w", f.kind, ErrMalformed)
	}
	var h Hello
	if err := json.Unmarshal(f.payload, &h); err != nil {
		return Hello{}, fmt.Errorf("read hello: %v: %w", err, ErrMalformed)
	}
	if h.Version != Version {
		return Hello{}, fmt.Errorf("read hello: the peer speaks version %d, this node %d (run the same release on all nodes): %w",
			h.Version, Version, ErrVersion)
	}
	return h, nil
}

func parseRefusal(b []byte, by paxos.NodeID) error {
	var r refusal
	if err := json.Unmarshal(b, &r); err != nil {
		return fmt.Errorf("read refusal: %v: %w", err, ErrMalformed)
	}
	return &RefusedError{By: by, Code: r.Code, Text: r.Text}
}
