package agent

import (
	"testing"
	"time"

	"github.com/phxsql/phxsql/paxos"
)

// The best donor is a follower that is little behind; the master gives its data only
// when nobody else does, and one whose copy has just failed comes last.
func TestDonors(t *testing.T) {
	master := offer{Node: 1, Master: true, Version: "8.4.1"}
	near := offer{Node: 2, Behind: 1, Version: "8.4.2"}
	far := offer{Node: 3, Behind: 9, Version: "8.4.1"}
	old := offer{Node: 4, Version: "8.0.40"}
	busy := offer{Node: 5, Version: "8.4.1", Refusal: "it is starting"}
	now := time.Now()
	for want, c := range map[paxos.NodeID]struct {
		offers []offer
		failed paxos.NodeID
	}{
		2: {[]offer{master, far, near, old, busy}, 0},
		3: {[]offer{master, far, near, old}, 2},
		1: {[]offer{old, master, busy}, 0},
		0: {[]offer{old, busy}, 0},
	} {
		var d donors
		if c.failed != 0 {
			d.failed(c.failed, now)
		}
		last, _ := d.looks(now)
		if o, err := chooseDonor(c.offers, "8.4.9", last); o.Node != want || (err == nil) != (want != 0) {
			t.Errorf("%+v: got node %d, %v, want %d", c, o.Node, err, want)
		}
	}
	var d donors
	d.failed(2, now.Add(-triedFor))
	if last, _ := d.looks(now); last[2] {
		t.Error("a failure is never forgotten")
	}
	if _, waited := d.looks(now.Add(time.Minute)); waited != time.Minute {
		t.Errorf("waited %v", waited)
	}
}
