package sim

import (
	"fmt"
	"strings"
)

// standing describes all nodes, for a schedule that does not come to an end.
func (w *world) standing() string {
	var b strings.Builder
	fmt.Fprintf(&b, "the members are %s;", w.judge.members[w.judge.current].Encode())
	for _, n := range w.nodes {
		if !n.up {
			fmt.Fprintf(&b, "\n  n%d is down, for good %v", n.id, n.gone)
			continue
		}
		c := n.rep.Core()
		fmt.Fprintf(&b, "\n  n%d chosen %d heard %d promised %v leads %+v lease %v room %v queue %d members %s progress %+v",
			n.id, c.Chosen(), c.Heard(), c.Promised(), n.lead, n.holdsLease(), n.rep.Room(), len(n.queue), c.Members().Encode(), c.Progress())
	}
	return b.String()
}
