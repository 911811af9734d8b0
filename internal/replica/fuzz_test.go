package replica

import (
	"testing"

	"github.com/phxsql/phxsql/paxos"
	"github.com/phxsql/phxsql/wal"
)

// states is a log that has states only.
type states map[uint8][]byte

func (s states) Read(wal.Group, uint64) ([]byte, error)           { return nil, wal.ErrNotFound }
func (s states) Bounds(wal.Group) (first, last uint64)            { return 1, 0 }
func (s states) Trimmed(wal.Group) uint64                         { return 0 }
func (s states) State(_ wal.Group, key uint8) (b []byte, ok bool) { b, ok = s[key]; return b, ok }

// FuzzRecover: whatever the states of a log say, a member starts on something that makes
// sense or not at all.
func FuzzRecover(f *testing.F) {
	ms := paxos.Members{Cluster: "c", List: []paxos.Member{{ID: 1, Role: paxos.Voter}}}.Encode()
	at := []byte{9, 0, 0, 0, 0, 0, 0, 0}
	f.Add(make([]byte, 16), at, append(at, ms...), append(at, ms...), []byte{0, 0xca, 0x9a, 0x3b, 0, 0, 0, 0})
	f.Add([]byte{1}, []byte{}, at[:7], at, []byte{0, 0, 0, 0, 0, 0, 0, 0x80})
	f.Fuzz(func(t *testing.T, ballot, chosen, members, snapshot, lease []byte) {
		log := states{}
		for key, b := range map[uint8][]byte{stateBallot: ballot, stateChosen: chosen, stateMembers: members, stateSnapshot: snapshot, stateLease: lease} {
			if len(b) > 0 {
				log[key] = b
			}
		}
		st, err := Recover(log, 0)
		if err != nil {
			return
		}
		if st.Lease < 0 || st.Lease > paxos.MaxLease || (st.Lease == 0) != (len(lease) == 0) {
			t.Fatalf("recovered leases of %v from %x", st.Lease, lease)
		}
		if !st.Members.Blank() && st.Members.Check() != nil {
			t.Fatalf("recovered members %s: %v", st.Members.Encode(), st.Members.Check())
		}
		if _, found := log[stateSnapshot]; found && len(snapshot) < 8 {
			t.Fatalf("recovered from a snapshot record of %d bytes", len(snapshot))
		}
	})
}
