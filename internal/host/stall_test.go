package host

import (
	"testing"
	"time"

	"github.com/phxsql/phxsql/paxos"
)

// TestBulkDoesNotStarveTheLease proposes far more than the disks take in a lease.
func TestBulkDoesNotStarveTheLease(t *testing.T) {
	_, nodes := startThree(t, onDisk(t))
	lead := waitLeader(t, nodes...)
	term := lead.group.Leader().Term
	const count = 200
	done := make(chan error, count)
	value := make([]byte, 1<<20)
	go func() {
		for range count {
			if err := lead.group.Propose(value, func(_ paxos.Instance, err error) { done <- err }); err != nil {
				done <- err
			}
		}
	}()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	shortest := time.Hour
	for n := 0; n < count; {
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			n++
		case <-tick.C:
			shortest = min(shortest, lead.group.LeaseRemaining())
		}
	}
	t.Logf("the lease never had less than %v of %v left", shortest, lead.group.cfg.Lease)
	if lead.group.Leader().Term != term || shortest == 0 {
		t.Fatal("the lease was lost under a bulk of proposals")
	}
}
