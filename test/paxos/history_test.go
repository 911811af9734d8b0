package paxos

import (
	"math"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"
)

// kind is what an operation does.
type kind int

const (
	get kind = iota
	put
	cas
)

// op is one operation on one key, as a client asked for it. Every value is written
// once, so that a read says which write it saw.
type op struct {
	kind  kind
	key   string
	value string // of put and cas
	old   string // what cas wants to find
}

// answer is what the client was told.
type answer struct {
	value   string // of get; "" for none
	done    bool   // of cas
	unknown bool   // nobody knows whether the operation had an effect
}

// history records when operations began and ended and what they said.
type history struct {
	begun time.Time

	mu      sync.Mutex
	ops     []porcupine.Operation
	unknown int
	acked   int64 // when the newest acknowledged change began
}

func (h *history) now() int64 { return int64(time.Since(h.begun)) }

// add records an operation of a client that began at call. One of unknown outcome
// may take effect at any time from call on, or never: it ends behind all others,
// and its client goes on under another name.
func (h *history) add(client int, call int64, o op, a answer) {
	h.mu.Lock()
	defer h.mu.Unlock()
	end := h.now()
	switch {
	case a.unknown:
		end = math.MaxInt64
		h.unknown++
		client = 1000 + len(h.ops)
	case o.kind == put, o.kind == cas && a.done:
		h.acked = max(h.acked, call)
	}
	h.ops = append(h.ops, porcupine.Operation{ClientId: client, Input: o, Call: call, Output: a, Return: end})
}

// ackedSince reports whether a change was acknowledged that began at since or later.
func (h *history) ackedSince(since int64) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.acked >= since
}

// model is a map of registers with compare and set.
var model = porcupine.Model{
	Partition: func(all []porcupine.Operation) [][]porcupine.Operation {
		keys := map[string]int{}
		var parts [][]porcupine.Operation
		for _, o := range all {
			k, ok := keys[o.Input.(op).key]
			if !ok {
				k = len(parts)
				keys[o.Input.(op).key], parts = k, append(parts, nil)
			}
			parts[k] = append(parts[k], o)
		}
		return parts
	},
	Init: func() any { return "" },
	Step: func(state, input, output any) (bool, any) {
		o, a := input.(op), output.(answer)
		switch o.kind {
		case get:
			return a.value == state.(string), state
		case put:
			return true, o.value
		}
		holds := o.old == state.(string)
		if !a.unknown && a.done != holds {
			return false, state
		}
		if holds {
			return true, o.value
		}
		return true, state
	},
	DescribeOperation: func(input, output any) string {
		o, a := input.(op), output.(answer)
		tail := ""
		switch {
		case a.unknown:
			tail = " ?"
		case o.kind == cas && !a.done:
			tail = " refused"
		}
		switch o.kind {
		case get:
			return o.key + " is " + a.value
		case put:
			return o.key + " := " + o.value + tail
		}
		return o.key + ": " + o.old + " -> " + o.value + tail
	},
}
