package host

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/phxsql/phxsql/internal/replica"
	"github.com/phxsql/phxsql/paxos"
	"github.com/phxsql/phxsql/vfs"
)

func (net *network) setCut(id paxos.NodeID, cut bool) {
	net.mu.Lock()
	defer net.mu.Unlock()
	net.cut[id] = cut
}

func status(t *testing.T, n *node) Status {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	st, err := n.group.Status(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// TestAMemberBehindTheTrimmedLogGoesOnFromASnapshot: nobody has the log that a
// member lacks; it says so, the application brings a snapshot, and it follows,
// also after a restart.
func TestAMemberBehindTheTrimmedLogGoesOnFromASnapshot(t *testing.T) {
	dir := t.TempDir()
	net := newNetwork(steady)
	net.keep = 1024
	net, nodes := startOn(t, net, func(id int) (vfs.FS, string) { return vfs.OS{}, dir + string(rune('0'+id)) })
	lead := waitLeader(t, nodes...)
	var late *node
	var lateID paxos.NodeID
	for k, n := range nodes {
		if n != lead {
			late, lateID = n, paxos.NodeID(k+1)
		}
	}
	propose(t, lead, 0, 10)
	values(t, late, lead.group.Chosen())
	net.setCut(lateID, true)
	ms := lead.group.Leader().Members
	ms.List = slices.Clone(ms.List)
	ms.List[0].Name = "changed"
	if err := lead.group.ProposeMembers(lead.group.Leader().Members, ms); err != nil {
		t.Fatal(err)
	}
	propose(t, lead, 10, 200)
	through := lead.group.Chosen()
	for _, n := range nodes {
		if n == late {
			continue
		}
		values(t, n, through)
		n.log.TrimBelow(0, uint64(through)+1)
		if _, err := n.log.Sync(); err != nil {
			t.Fatal(err)
		}
	}
	propose(t, lead, 210, 5)
	late.close()
	again := startNode(t, net, lateID, vfs.OS{}, dir+string(rune('0'+lateID)), nil)
	net.setCut(lateID, false)

	deadline := time.After(60 * time.Second)
	for status(t, again).Lacking != through+1 {
		select {
		case <-time.After(10 * time.Millisecond):
		case <-deadline:
			t.Fatalf("the member does not notice that its log is trimmed elsewhere: %+v", status(t, again))
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	if err := again.group.Install(ctx, through, ms); err != nil {
		t.Fatal(err)
	}
	if err := again.group.Install(ctx, through, ms); !errors.Is(err, replica.ErrOldSnapshot) {
		t.Fatalf("a snapshot was installed twice: %v", err)
	}
	if got := again.group.Leader().Members; got.List[0].Name != "changed" {
		t.Fatalf("after the snapshot the members are %s", got.Encode())
	}
	if got := values(t, again, lead.group.Chosen()); len(got) != 5 || got[0] != 210 {
		t.Fatalf("the member goes on with %v, want 210 to 214", got)
	}
	if st := status(t, again); st.Lacking != 0 || st.First != through+1 {
		t.Fatalf("after the snapshot: %+v", st)
	}
	again.close()
	last := startNode(t, net, lateID, vfs.OS{}, dir+string(rune('0'+lateID)), nil)
	propose(t, waitLeader(t, lead, last), 300, 5)
	if got := values(t, last, lead.group.Chosen()); len(got) != 10 {
		t.Fatalf("after a restart the member has %v", got)
	}
}
