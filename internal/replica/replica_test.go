package replica

import (
	"errors"
	"testing"
	"time"

	"github.com/phxsql/phxsql/paxos"
	"github.com/phxsql/phxsql/vfs"
	"github.com/phxsql/phxsql/wal"
)

func openLog(t *testing.T, fs vfs.FS) *wal.Log {
	t.Helper()
	l, err := wal.Open(wal.Options{FS: fs, Dir: "/log", SegmentSize: 8 << 10, Inline: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func open(t *testing.T, l *wal.Log) *Replica {
	t.Helper()
	r, err := Open(l, 0, paxos.Defaults(1, func(int64) int64 { return 0 }), paxos.Time(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func single() paxos.Members {
	return paxos.Members{Cluster: "c", List: []paxos.Member{{ID: 1, Role: paxos.Voter}}}
}

// leadAlone opens a group of one member that leads.
func leadAlone(t *testing.T, l *wal.Log) *Replica {
	t.Helper()
	if err := Bootstrap(l, 0, 1, single()); err != nil {
		t.Fatal(err)
	}
	r := open(t, l)
	now := paxos.Time(2 * time.Second)
	r.Step(now, paxos.Event{Kind: paxos.EventCandidacy, Able: true})
	for range 10 {
		r.Step(now, paxos.Event{Kind: paxos.EventTick})
		flush(t, r, now)
		syncAll(t, l, r, now)
		if r.Core().Leadership().Ready {
			return r
		}
	}
	t.Fatal("no leader")
	return nil
}

func flush(t *testing.T, r *Replica, now paxos.Time) Output {
	t.Helper()
	out, err := r.Flush(now)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func syncAll(t *testing.T, l *wal.Log, r *Replica, now paxos.Time) Output {
	t.Helper()
	lsn, err := l.Sync()
	if err != nil {
		t.Fatal(err)
	}
	r.Synced(now, lsn)
	return flush(t, r, now)
}

func TestProposersHearAfterTheDisk(t *testing.T) {
	l := openLog(t, vfs.NewMem())
	r := leadAlone(t, l)
	now := paxos.Time(3 * time.Second)
	var at paxos.Instance
	r.Propose(now, []byte("value"), func(i paxos.Instance, err error) {
		if err != nil {
			t.Error(err)
		}
		at = i
	})
	if out := flush(t, r, now); len(out.Told) != 0 || len(out.Chosen) != 0 || !out.Sync {
		t.Fatalf("before the sync: %+v", out)
	}
	out := syncAll(t, l, r, now)
	if len(out.Told) != 1 {
		t.Fatalf("after the sync: %+v", out)
	}
	out.Told[0].Tell()
	if e, err := r.Read(at); err != nil || string(e.Data) != "value" {
		t.Fatalf("instance %d is %v, %v", at, e, err)
	}
}

func TestAbandonedProposersHearThatNothingIsKnown(t *testing.T) {
	r := leadAlone(t, openLog(t, vfs.NewMem()))
	var got error
	r.Propose(paxos.Time(3*time.Second), []byte("value"), func(_ paxos.Instance, err error) { got = err })
	for _, told := range r.Abandon() {
		told.Tell()
	}
	if !errors.Is(got, ErrTermLost) {
		t.Fatalf("got %v", got)
	}
}

// TestTrimProvesChosen trims before the chosen mark is written: what is left must
// be enough to go on.
func TestTrimProvesChosen(t *testing.T) {
	mem := vfs.NewMem()
	l := openLog(t, mem)
	for i := uint64(1); i <= 9; i++ {
		e := paxos.Entry{Instance: paxos.Instance(i), Ballot: paxos.Ballot{Round: 2, Node: 1}, Kind: paxos.Noop}
		if _, err := l.Append(wal.Record{Kind: wal.KindEntry, Index: i, Payload: paxos.AppendEntry(nil, e)}); err != nil {
			t.Fatal(err)
		}
	}
	l.TrimBelow(0, 7)
	if _, err := l.Sync(); err != nil {
		t.Fatal(err)
	}
	mem.Kill()
	st, err := Recover(openLog(t, mem), 0)
	if err != nil {
		t.Fatal(err)
	}
	if st.Chosen != 6 || len(st.Entries) != 3 {
		t.Fatalf("chosen %d with %d entries above, want 6 with 3", st.Chosen, len(st.Entries))
	}
}

// TestMembershipProvesChosen recovers from a log whose chosen mark is older than
// its membership.
func TestMembershipProvesChosen(t *testing.T) {
	mem := vfs.NewMem()
	l := openLog(t, mem)
	leadAlone(t, l) // chosen through 2; the mark of 1 came with the membership
	mem.Kill()
	st, err := Recover(openLog(t, mem), 0)
	if err != nil {
		t.Fatal(err)
	}
	if st.Chosen < 1 || len(st.Members.List) != 1 {
		t.Fatalf("chosen %d under %v", st.Chosen, st.Members)
	}
}

func TestPromiseIsWhatWasPromised(t *testing.T) {
	mem := vfs.NewMem()
	l := openLog(t, mem)
	r := leadAlone(t, l)
	promised := r.Core().Promised()
	e := paxos.Entry{Instance: 9, Ballot: paxos.Ballot{Round: 1000, Node: 7}, Kind: paxos.Noop} // as if learned
	if _, err := l.Append(wal.Record{Kind: wal.KindEntry, Index: 9, Payload: paxos.AppendEntry(nil, e)}); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Sync(); err != nil {
		t.Fatal(err)
	}
	mem.Kill()
	st, err := Recover(openLog(t, mem), 0)
	if err != nil {
		t.Fatal(err)
	}
	if st.Promised != promised {
		t.Fatalf("promised %v, want %v", st.Promised, promised)
	}
}

func TestBootstrapRefusesALogThatIsNotEmpty(t *testing.T) {
	l := openLog(t, vfs.NewMem())
	if err := Bootstrap(l, 0, 1, single()); err != nil {
		t.Fatal(err)
	}
	if err := Bootstrap(l, 0, 1, single()); err == nil {
		t.Fatal("a second bootstrap succeeds")
	}
	if err := Bootstrap(l, 1, 1, paxos.Members{}); err == nil {
		t.Fatal("a bootstrap without voters succeeds")
	}
}

func three() paxos.Members {
	ms := paxos.Members{Cluster: "c"}
	for id := range paxos.NodeID(3) {
		ms.List = append(ms.List, paxos.Member{ID: id + 1, Role: paxos.Voter})
	}
	return ms
}

// TestAnOldSnapshotIsRefused: what counts is what the member knows, not what it has
// noted on its disk.
func TestAnOldSnapshotIsRefused(t *testing.T) {
	l := openLog(t, vfs.NewMem())
	r := open(t, l)
	now := paxos.Time(2 * time.Second)
	m := paxos.Message{Kind: paxos.MsgLearn, From: 2, To: 1, First: 1, Chosen: 5}
	m.Entries = append(m.Entries, paxos.Entry{Instance: 1, Kind: paxos.Membership, Data: three().Encode()})
	for i := paxos.Instance(2); i <= 5; i++ {
		m.Entries = append(m.Entries, paxos.Entry{Instance: i, Kind: paxos.Noop})
	}
	r.Step(now, paxos.Event{Kind: paxos.EventMessage, Message: &m})
	if c := r.Core().Chosen(); c != 5 {
		t.Fatalf("chosen %d", c)
	}
	for through := paxos.Instance(1); through <= 5; through++ {
		if _, _, err := r.Install(l, paxos.Config{}, through, three(), now); !errors.Is(err, ErrOldSnapshot) {
			t.Fatalf("a snapshot through %d is taken: %v", through, err)
		}
	}
}

// TestASnapshotIsInstalledAsAWhole: the power goes during the sync, at any place of
// the log's segments. The member has the snapshot, and nothing of the log below, or
// it has neither.
func TestASnapshotIsInstalledAsAWhole(t *testing.T) {
	with, without := 0, 0
	for pad := 0; pad < 1200; pad += 16 {
		for fuse := range 6 {
			mem := installAndCrash(t, pad, fuse)
			l := openLog(t, mem)
			r := open(t, l)
			first, _ := l.Bounds(0)
			switch c := r.Core().Chosen(); {
			case c == 0 && first == 1:
				without++
			case c == 20 && first == 21:
				with++
			default:
				t.Fatalf("pad %d, fuse %d: chosen %d, the log begins at %d", pad, fuse, c, first)
			}
		}
	}
	if with == 0 || without == 0 {
		t.Errorf("the power never went in between: %d with the snapshot, %d without", with, without)
	}
}

// installAndCrash returns what is left when the disk stops after some operations of
// an installation. The pad moves the place in the segment.
func installAndCrash(t *testing.T, pad, fuse int) *vfs.Mem {
	t.Helper()
	mem := vfs.NewMem()
	lit := false
	l := openLog(t, &vfs.Faulty{FS: mem, Inject: func(op vfs.Op) vfs.Fault {
		if !lit || fuse > 0 || op.Kind == vfs.OpRead {
			if lit && op.Kind != vfs.OpRead {
				fuse--
			}
			return vfs.Fault{}
		}
		return vfs.Fault{Err: errors.New("power cut")}
	}})
	for i := uint64(1); i <= 8; i++ { // accepted, not chosen
		e := paxos.Entry{Instance: paxos.Instance(i), Kind: paxos.Normal, Data: make([]byte, 750)}
		if _, err := l.Append(wal.Record{Kind: wal.KindEntry, Index: i, Payload: paxos.AppendEntry(nil, e)}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := l.Append(wal.Record{Kind: wal.KindState, Key: 9, Payload: make([]byte, pad)}); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Sync(); err != nil {
		t.Fatal(err)
	}
	lit = true
	if err := Install(l, 0, 20, three()); err == nil {
		fuse = 0
	}
	mem.Kill()
	return mem
}
