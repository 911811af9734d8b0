package sim

import (
	"slices"

	"github.com/anishathalye/porcupine"
	"github.com/phxsql/phxsql/paxos"
)

// The application keeps lists: each value goes to the end of one of them. What clients
// did with a list, and saw of it, must be linearizable, in the true time of the world.
// Porcupine judges that at the end of a schedule; it knows nothing of logs, instances
// and leases.

// lists is the number of lists: few values in each keep the search small.
const lists = 16

// glance is what a read of a list sees: how long it is, and a sum of all in it.
type glance struct {
	length int
	sum    uint64
}

func (g glance) with(id uint64) glance {
	return glance{g.length + 1, (g.sum ^ id) * 1099511628211}
}

// listOp is the input of an operation: a read when id is 0, else an append. Both give
// back the list, as a state machine's Apply would; it keeps the search for an order from
// trying all orders of appends.
type listOp struct{ id uint64 }

var listModel = porcupine.Model{
	Init: func() any { return glance{} },
	Step: func(state, input, output any) (bool, any) {
		if op := input.(listOp); op.id != 0 {
			state = state.(glance).with(op.id)
		}
		return state == output, state
	},
}

// element is a value in a list.
type element struct {
	instance paxos.Instance
	upTo     glance // the list through this element
}

// history is what clients did in a schedule with reads.
type history struct {
	on      bool
	appends map[uint64]*porcupine.Operation // by value
	results map[uint64]glance               // of those that are chosen
	reads   [lists][]porcupine.Operation
	content [lists][]element
}

func (h *history) begin(on bool) {
	h.on = on
	h.appends, h.results = map[uint64]*porcupine.Operation{}, map[uint64]glance{}
}

// never is when an operation returns whose outcome its client was not told.
const never = 1 << 62

func (h *history) proposed(w *world, n *node, id uint64) {
	if h.on {
		h.appends[id] = &porcupine.Operation{ClientId: n.index, Input: listOp{id}, Call: int64(w.now), Return: never}
	}
}

func (h *history) told(w *world, id uint64, err error) {
	if op := h.appends[id]; op != nil && err == nil {
		op.Return = int64(w.now)
	}
}

// decided adds a value to its list.
func (h *history) decided(id uint64, i paxos.Instance) {
	if !h.on {
		return
	}
	list := &h.content[id%lists]
	var before glance
	if len(*list) > 0 {
		before = (*list)[len(*list)-1].upTo
	}
	h.results[id] = before.with(id)
	*list = append(*list, element{i, h.results[id]})
}

// at is what a list is for somebody who has applied everything through an instance.
func (h *history) at(key int, i paxos.Instance) glance {
	list := h.content[key]
	k, _ := slices.BinarySearchFunc(list, i+1, func(e element, i paxos.Instance) int { return int(int64(e.instance) - int64(i)) })
	if k == 0 {
		return glance{}
	}
	return list[k-1].upTo
}

// saw notes a read that began at some moment and ends now, on a node that has applied
// everything through an instance.
func (h *history) saw(w *world, n *node, began moment, through paxos.Instance) {
	if !h.on {
		return
	}
	key := w.rng.IntN(lists)
	h.reads[key] = append(h.reads[key], porcupine.Operation{
		ClientId: n.index, Input: listOp{}, Output: h.at(key, through), Call: int64(began), Return: int64(w.now),
	})
}

// judge looks at each list. A value that was never chosen is in no list, so that an
// append of unknown outcome may be left out.
func (h *history) judge(w *world) {
	if !h.on {
		return
	}
	ops := h.reads
	for id := uint64(1); id < uint64(len(w.judge.values)); id++ {
		if op := h.appends[id]; op != nil && h.results[id] != (glance{}) {
			op.Output = h.results[id]
			ops[id%lists] = append(ops[id%lists], *op)
		}
	}
	for key := range ops {
		if len(ops[key]) == 0 {
			continue
		}
		w.stats.Histories++
		w.stats.Ops += len(ops[key])
		if !porcupine.CheckOperations(listModel, ops[key]) {
			w.fail("linearizability", "the history of list %d, of %d operations, has no order", key, len(ops[key]))
		}
	}
}
