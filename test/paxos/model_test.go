package paxos

import (
	"math"
	"testing"

	"github.com/anishathalye/porcupine"
)

// TestTheModelTellsGoodFromBad: a judge that accepts everything proves nothing.
func TestTheModelTellsGoodFromBad(t *testing.T) {
	at := func(call, end int64, o op, a answer) porcupine.Operation {
		return porcupine.Operation{ClientId: int(call), Input: o, Call: call, Output: a, Return: end}
	}
	w := op{kind: put, key: "k", value: "a"}
	swap := op{kind: cas, key: "k", value: "b", old: "a"}
	read := func(call int64, v string) porcupine.Operation {
		return at(call, call+1, op{kind: get, key: "k"}, answer{value: v})
	}
	never := int64(math.MaxInt64)
	for name, c := range map[string]struct {
		ops  []porcupine.Operation
		good bool
	}{
		"a read after a write":                    {[]porcupine.Operation{at(1, 2, w, answer{}), read(3, "a")}, true},
		"a stale read":                            {[]porcupine.Operation{at(1, 2, w, answer{}), read(3, "")}, false},
		"a swap":                                  {[]porcupine.Operation{at(1, 2, w, answer{}), at(3, 4, swap, answer{done: true}), read(5, "b")}, true},
		"a swap of what was not there":            {[]porcupine.Operation{at(3, 4, swap, answer{done: true})}, false},
		"a swap refused for no reason":            {[]porcupine.Operation{at(1, 2, w, answer{}), at(3, 4, swap, answer{})}, false},
		"an unknown write seen late":              {[]porcupine.Operation{at(1, never, w, answer{unknown: true}), read(3, ""), read(9, "a")}, true},
		"an unknown write never seen":             {[]porcupine.Operation{at(1, never, w, answer{unknown: true}), read(3, "")}, true},
		"an unknown write seen and undone":        {[]porcupine.Operation{at(1, never, w, answer{unknown: true}), read(3, "a"), read(9, "")}, false},
		"an unknown swap that had its effect":     {[]porcupine.Operation{at(1, 2, w, answer{}), at(3, never, swap, answer{unknown: true}), read(5, "b")}, true},
		"a swap that was acknowledged and lost":   {[]porcupine.Operation{at(1, 2, w, answer{}), at(3, 4, swap, answer{done: true}), read(5, "a")}, false},
		"a value that was read before its writer": {[]porcupine.Operation{read(1, "a"), at(3, 4, w, answer{})}, false},
	} {
		if got := porcupine.CheckOperations(model, c.ops); got != c.good {
			t.Errorf("%s: %v", name, got)
		}
	}
}
