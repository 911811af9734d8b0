package node

import (
	"encoding/binary"
	"slices"
	"testing"

	"github.com/phxsql/phxsql/paxos"
)

// TestReadsElsewhereSeeWhatWasAnswered reads the followers' state machines after each
// answer to a proposer.
func TestReadsElsewhereSeeWhatWasAnswered(t *testing.T) {
	c := newTrio(t, func(c *trio) { c.lease = steady })
	lead := c.leader(0)
	var want []uint64
	for v := range uint64(50) {
		if _, _, err := lead.Propose(within(t), 0, binary.LittleEndian.AppendUint64(nil, v)); err != nil {
			t.Fatal(err)
		}
		want = append(want, v)
		for id := paxos.NodeID(1); id <= 3; id++ {
			if err := c.nodes[id].ReadBarrier(within(t), 0); err != nil {
				t.Fatalf("node %d: %v", id, err)
			}
			if got := c.tapes[id][0].snapshot(); !slices.Equal(got, want) {
				t.Fatalf("node %d shows %v after its barrier, want %v", id, got, want)
			}
		}
	}
}
