package api

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/phxsql/phxsql/internal/entry"
	"github.com/phxsql/phxsql/internal/gtid"
	"github.com/phxsql/phxsql/paxos"
)

func TestDescribe(t *testing.T) {
	uuid := gtid.UUID{0xaa}
	const name = "aa000000-0000-0000-0000-000000000000"
	txns := func(epoch uint64) []byte {
		v := entry.Value{Kind: entry.Transactions, Epoch: epoch, Node: 2, Events: make([]byte, 30),
			Txns: []entry.Txn{{GTID: gtid.GTID{Source: gtid.Source{UUID: uuid}, GNO: 5}, Size: 30}}}
		return v.AppendTo(nil)
	}
	epoch := func(n uint64) []byte {
		v := entry.Value{Kind: entry.Epoch, Epoch: n, Node: 2, ServerUUID: uuid}
		return v.AppendTo(nil)
	}
	members := paxos.Members{Cluster: "c1", List: []paxos.Member{{ID: 1, Role: paxos.Voter, Addr: "a:1"}, {ID: 2, Role: paxos.Voter, Addr: "b:1"}}}
	in := []paxos.Entry{
		{Kind: paxos.Membership, Data: members.Encode()},
		{Kind: paxos.Noop},
		{Kind: paxos.Normal, Data: txns(1)},
		{Kind: paxos.Normal, Data: epoch(2)},
		{Kind: paxos.Normal, Data: txns(2)},
		{Kind: paxos.Normal, Data: txns(1)},
		{Kind: paxos.Normal, Data: []byte("not a value")},
	}
	yes, no := true, false
	one := []LogTxn{{GTID: name + ":5", Bytes: 30}}
	want := []LogEntry{
		{Instance: 1, Ballot: "3.1", Kind: "membership", Bytes: len(members.Encode()), Detail: "cluster c1 1=a:1 2=b:1"},
		{Instance: 2, Ballot: "3.1", Kind: "noop"},
		{Instance: 3, Ballot: "3.1", Kind: "transactions", Bytes: len(txns(1)), Epoch: 1, Node: 2, Transactions: one},
		{Instance: 4, Ballot: "3.1", Kind: "epoch", Bytes: len(epoch(2)), Epoch: 2, Node: 2, ServerUUID: name},
		{Instance: 5, Ballot: "3.1", Kind: "transactions", Bytes: len(txns(2)), Epoch: 2, Node: 2, Void: &no, Transactions: one},
		{Instance: 6, Ballot: "3.1", Kind: "transactions", Bytes: len(txns(1)), Epoch: 1, Node: 2, Void: &yes, Transactions: one},
		{Instance: 7, Ballot: "3.1", Kind: "unreadable", Bytes: 11, Detail: "decode value: 11 bytes are less than a header: malformed value"},
	}
	var d Describer
	for i, e := range in {
		e.Instance, e.Ballot = paxos.Instance(i+1), paxos.Ballot{Round: 3, Node: 1}
		if diff := cmp.Diff(want[i], d.Describe(e)); diff != "" {
			t.Errorf("entry %d (-want +got):\n%s", i+1, diff)
		}
	}
}
