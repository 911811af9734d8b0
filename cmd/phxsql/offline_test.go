package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/phxsql/phxsql/internal/entry"
	"github.com/phxsql/phxsql/internal/gtid"
	"github.com/phxsql/phxsql/paxos"
	"github.com/phxsql/phxsql/vfs"
	"github.com/phxsql/phxsql/wal"
)

// writeLog writes a small log: a membership, an epoch, two values of which the
// second was written twice, and one that is not known to be chosen.
func writeLog(t *testing.T, dataDir string) {
	t.Helper()
	l, err := wal.Open(wal.Options{FS: vfs.OS{}, Dir: filepath.Join(dataDir, "log")})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	uuid := gtid.UUID{0xaa}
	epoch := entry.Value{Kind: entry.Epoch, Epoch: 1, Node: 1, ServerUUID: uuid}
	txn := func(epoch uint64, gno int64) []byte {
		v := entry.Value{Kind: entry.Transactions, Epoch: epoch, Node: 1, Events: make([]byte, 30),
			Txns: []entry.Txn{{GTID: gtid.GTID{Source: gtid.Source{UUID: uuid}, GNO: gno}, Size: 30}}}
		return v.AppendTo(nil)
	}
	members := paxos.Members{Cluster: "c1", List: []paxos.Member{{ID: 1, Role: paxos.Voter, Addr: "a:1"}}}
	put := func(i, round uint64, kind paxos.EntryKind, data []byte) {
		e := paxos.Entry{Instance: paxos.Instance(i), Ballot: paxos.Ballot{Round: round, Node: 1}, Kind: kind, Data: data}
		if _, err := l.Append(wal.Record{Group: dataGroup, Kind: wal.KindEntry, Index: i, Payload: paxos.AppendEntry(nil, e)}); err != nil {
			t.Fatal(err)
		}
	}
	put(1, 0, paxos.Membership, members.Encode())
	put(2, 1, paxos.Normal, epoch.AppendTo(nil))
	put(3, 1, paxos.Normal, txn(1, 1))
	put(4, 1, paxos.Normal, txn(1, 99)) // loses to the next
	put(4, 2, paxos.Normal, txn(9, 2))
	put(5, 2, paxos.Normal, txn(1, 3))
	const stateChosen = 2 // as package replica writes it
	if _, err := l.Append(wal.Record{Group: dataGroup, Kind: wal.KindState, Key: stateChosen, Payload: []byte{4, 0, 0, 0, 0, 0, 0, 0}}); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Sync(); err != nil {
		t.Fatal(err)
	}
}

func TestOfflineDump(t *testing.T) {
	dir := t.TempDir()
	writeLog(t, dir)
	code, out, errOut := phxsql(t, "", "log", "dump", "--dir", dir)
	if code != 0 || errOut != "" {
		t.Fatalf("exit %d: %s", code, errOut)
	}
	golden(t, "log_offline.golden", out)
	if _, out, _ = phxsql(t, "", "log", "dump", "--dir", dir, "--from", "4", "--to", "4"); strings.Count(out, "\n") != 1 || !strings.Contains(out, "VOID") {
		t.Errorf("one entry: %s", out)
	}
}

func TestOfflineDumpOfNoLogMakesNone(t *testing.T) {
	dir := t.TempDir()
	code, _, errOut := phxsql(t, "", "log", "dump", "--dir", dir)
	if code != exitFailed || !strings.Contains(errOut, "hint: name the data directory") {
		t.Errorf("exit %d: %s", code, errOut)
	}
	if es, err := os.ReadDir(dir); err != nil || len(es) != 0 {
		t.Errorf("left %v, %v", es, err)
	}
}
