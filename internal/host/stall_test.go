package host

import (
	"sync"
	"testing"
	"time"

	"github.com/phxsql/phxsql/paxos"
)

// TestBulkDoesNotStarveTheLease proposes for several leases as much as the disks take. A
// machine that is busy with other things may take the lease away, but not each time.
func TestBulkDoesNotStarveTheLease(t *testing.T) {
	net := newNetwork(time.Second)
	_, nodes := startOn(t, net, onDisk(t))
	for range 5 {
		if bulk(t, waitLeader(t, nodes...), 3*time.Second) {
			return
		}
	}
	t.Fatal("the lease is lost under a bulk of proposals")
}

// bulk reports whether a leader keeps its term under a bulk that lasts so long.
func bulk(t *testing.T, lead *node, long time.Duration) bool {
	term := lead.group.Leader().Term
	value := make([]byte, 1<<20)
	var flying sync.WaitGroup
	count := 0
	for start := time.Now(); time.Since(start) < long || count < 100; count++ {
		flying.Add(1)
		if err := lead.group.Propose(value, func(paxos.Instance, error) { flying.Done() }); err != nil {
			flying.Done()
			break
		}
	}
	flying.Wait()
	v := lead.group.Leader()
	t.Logf("%d values, the term was %v and is %v", count, term, v.Term)
	return v.Term == term
}
