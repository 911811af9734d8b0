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
	for _, c := range []struct {
		what   string
		offers []offer
		failed []paxos.NodeID
		want   paxos.NodeID
	}{
		{"least behind", []offer{master, far, near, old, busy}, nil, 2},
		{"one has failed", []offer{master, far, near, old}, []paxos.NodeID{2}, 3},
		{"both have", []offer{master, far, near, old}, []paxos.NodeID{2, 3, 3}, 2},
		{"the only follower has failed", []offer{master, near}, []paxos.NodeID{2, 2}, 2},
		{"it fails again and again", []offer{master, near}, []paxos.NodeID{2, 2, 2}, 1},
		{"the master does, too", []offer{master, near}, []paxos.NodeID{2, 2, 2, 1, 1, 1}, 2},
		{"no follower gives", []offer{old, master, busy}, nil, 1},
		{"nobody gives", []offer{old, busy}, nil, 0},
	} {
		var d donors
		for _, id := range c.failed {
			d.failed(id, now)
		}
		failures, _ := d.looks(now)
		if o, err := chooseDonor(c.offers, "8.4.9", failures); o.Node != c.want || (err == nil) != (c.want != 0) {
			t.Errorf("%s: got node %d, %v, want %d", c.what, o.Node, err, c.want)
		}
	}
	var d donors
	d.failed(2, now.Add(-triedFor))
	if failures, _ := d.looks(now); failures[2] != 0 {
		t.Error("a failure is never forgotten")
	}
	if d.refused(2, now); d.tried[2].times != triedOut {
		t.Errorf("a donor whose rows were wrong has failed %d times", d.tried[2].times)
	}
	if _, waited := d.looks(now.Add(masterAfter)); waited != masterAfter {
		t.Errorf("waited %v", waited)
	}
	if _, waited := d.looks(now.Add(masterAfter + searchOver + 1)); waited != 0 {
		t.Errorf("another search has waited %v already", waited)
	}
	d.got()
	if failures, waited := d.looks(now.Add(time.Minute)); waited != 0 || failures[2] != triedOut {
		t.Errorf("after a copy: waited %v, failures %v", waited, failures)
	}
}
