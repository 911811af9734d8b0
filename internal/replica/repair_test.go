package replica

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/phxsql/phxsql/paxos"
	"github.com/phxsql/phxsql/vfs"
	"github.com/phxsql/phxsql/wal"
)

const firstSegment = "/log/000000000001.wal"

// find returns the offset of bytes in the first segment.
func find(t *testing.T, mem *vfs.Mem, want []byte) int64 {
	t.Helper()
	f, err := mem.Open(firstSegment)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, mem.Written(firstSegment))
	if _, err := f.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	at := bytes.Index(b, want)
	if at < 0 {
		t.Fatalf("%q is not on the disk", want)
	}
	return int64(at)
}

func ballotBytes(round uint64) []byte {
	b := binary.LittleEndian.AppendUint64(nil, round)
	return binary.LittleEndian.AppendUint64(b, 7)
}

// value is a text that is in one record only.
func value(i uint64) []byte { return fmt.Appendf(nil, "this is value %04d", i) }

func entryRecord(g wal.Group, i uint64, data []byte) wal.Record {
	e := paxos.Entry{Instance: paxos.Instance(i), Ballot: paxos.Ballot{Round: 77, Node: 7}, Kind: paxos.Normal, Data: data}
	return wal.Record{Group: g, Kind: wal.KindEntry, Index: i, Payload: paxos.AppendEntry(nil, e)}
}

// damagedLog writes a log of one batch with five entries, of which three are chosen,
// and another batch, and ends the process.
func damagedLog(t *testing.T, more ...wal.Record) *vfs.Mem {
	t.Helper()
	mem := vfs.NewMem()
	l := openLog(t, mem)
	recs := []wal.Record{{Kind: wal.KindState, Key: stateBallot, Payload: ballotBytes(0x5077)}}
	for i := uint64(1); i <= 5; i++ {
		recs = append(recs, entryRecord(0, i, value(i)))
	}
	recs = append(recs, wal.Record{Kind: wal.KindState, Key: stateChosen, Payload: binary.LittleEndian.AppendUint64(nil, 3)})
	recs = append(recs, entryRecord(1, 1, value(1001)))
	for _, batch := range [][]wal.Record{recs, append(more, entryRecord(2, 1, nil))} {
		if _, err := l.Append(batch...); err != nil {
			t.Fatal(err)
		}
		if _, err := l.Sync(); err != nil {
			t.Fatal(err)
		}
	}
	mem.Kill()
	return mem
}

func salvage(t *testing.T, fs vfs.FS) *wal.Log {
	t.Helper()
	l, err := wal.Open(wal.Options{FS: fs, Dir: "/log", SegmentSize: 8 << 10, Inline: true, Salvage: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// TestWhatDamageIsRepaired flips one bit in each kind of place.
func TestWhatDamageIsRepaired(t *testing.T) {
	const recordHead = 32 // its last eight bytes are the index
	in := func(what []byte, off int64) func(*testing.T, *vfs.Mem) {
		return func(t *testing.T, mem *vfs.Mem) { mem.Rot(firstSegment, 8*(find(t, mem, what)+off)) }
	}
	mark := append([]byte{byte(wal.KindState), stateChosen, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 3) // end of the record's head, and its payload
	for _, test := range []struct {
		name   string
		more   []wal.Record
		rot    func(*testing.T, *vfs.Mem)
		list   []paxos.Instance // repaired; nil and refuse false: nothing to do
		refuse bool
	}{
		{name: "chosen entry", rot: in(value(2), 0), list: []paxos.Instance{2}},
		{name: "last chosen entry", rot: in(value(3), 3), list: []paxos.Instance{3}},
		{name: "vote", rot: in(value(4), 0), refuse: true},
		{name: "last vote", rot: in(value(5), 0), refuse: true},
		{name: "record header of a chosen entry", rot: in(value(2), -recordHead-8), refuse: true},
		{name: "promise", rot: in(ballotBytes(0x5077), 0), refuse: true},
		{name: "promise, renewed behind", rot: in(ballotBytes(0x5077), 0),
			more: []wal.Record{{Kind: wal.KindState, Key: stateBallot, Payload: ballotBytes(0x6077)}}},
		{name: "renewed promise", rot: in(ballotBytes(0x6077), 0), refuse: true,
			more: []wal.Record{{Kind: wal.KindState, Key: stateBallot, Payload: ballotBytes(0x6077)}}},
		{name: "chosen mark", rot: in(mark, 12), refuse: true},
		{name: "entry of another group", rot: in(value(1001), 0)},
		{name: "entry with a newer record", rot: in(value(2), 0), more: []wal.Record{entryRecord(0, 2, []byte("again"))}},
		{name: "newer record of a chosen entry", rot: in([]byte("again"), 0), more: []wal.Record{entryRecord(0, 2, []byte("again"))}, list: []paxos.Instance{2}},
		{name: "newer record of a vote", rot: in([]byte("again"), 0), more: []wal.Record{entryRecord(0, 5, []byte("again"))}, refuse: true},
		{name: "vote with a newer record", rot: in(value(5), 0), more: []wal.Record{entryRecord(0, 5, []byte("again"))}},
	} {
		t.Run(test.name, func(t *testing.T) {
			mem := damagedLog(t, test.more...)
			test.rot(t, mem)
			l := salvage(t, mem)
			if len(l.Damages()) == 0 && (test.refuse || test.list != nil) {
				t.Fatal("the log is not damaged as planned")
			}
			list, err := Assess(l, 0, l.Damages())
			if errors.Is(err, ErrDamaged) != test.refuse || !slices.Equal(list, test.list) {
				t.Fatalf("Assess = %v, %v", list, err)
			}
			if test.refuse {
				return
			}
			if st, err := Recover(l, 0); err != nil || st.Chosen != 3 || len(st.Entries) != 2 || st.Promised.Round < 0x5077 {
				t.Fatalf("Recover = %+v, %v", st, err)
			}
		})
	}
}

// TestAVoteOfAnotherGroupIsRefusedThere: groups of one log are judged apart.
func TestAVoteOfAnotherGroupIsRefusedThere(t *testing.T) {
	mem := damagedLog(t)
	mem.Rot(firstSegment, 8*find(t, mem, value(1001)))
	l := salvage(t, mem)
	if _, err := Assess(l, 0, l.Damages()); err != nil {
		t.Error(err)
	}
	if _, err := Assess(l, 1, l.Damages()); !errors.Is(err, ErrDamaged) {
		t.Errorf("the group that lost its vote starts: %v", err)
	}
}

// TestALogThatBeginsTooLateProvesNothing: entries that are missing at the begin of a
// log were chosen if they were trimmed, and only then.
func TestALogThatBeginsTooLateProvesNothing(t *testing.T) {
	l := openLog(t, vfs.NewMem())
	for i := uint64(6); i <= 9; i++ {
		if _, err := l.Append(entryRecord(0, i, value(i))); err != nil {
			t.Fatal(err)
		}
	}
	if st, err := Recover(l, 0); !errors.Is(err, ErrDamaged) {
		t.Fatalf("Recover = %+v, %v", st, err)
	}
	l.TrimBelow(0, 6)
	if st, err := Recover(l, 0); err != nil || st.Chosen != 5 {
		t.Fatalf("Recover of a trimmed log = %+v, %v", st, err)
	}
}

// rotting is a member that knows five instances to be chosen, with damage in the log.
func rotting(t *testing.T, lost ...uint64) (*Replica, *wal.Log) {
	t.Helper()
	mem := vfs.NewMem()
	l := openLog(t, mem)
	r := open(t, l)
	now := paxos.Time(2 * time.Second)
	m := paxos.Message{Kind: paxos.MsgLearn, From: 2, To: 1, First: 1, Chosen: 5, Entries: []paxos.Entry{{Instance: 1, Kind: paxos.Membership, Data: three().Encode()}}}
	for i := uint64(2); i <= 5; i++ {
		m.Entries = append(m.Entries, paxos.Entry{Instance: paxos.Instance(i), Kind: paxos.Normal, Data: value(i)})
	}
	r.Step(now, paxos.Event{Kind: paxos.EventMessage, Message: &m})
	flush(t, r, now)
	syncAll(t, l, r, now)
	for _, i := range lost {
		mem.Rot(firstSegment, 8*find(t, mem, value(i)))
	}
	return r, l
}

func asks(out Output) (first []paxos.Instance) {
	for _, m := range out.Messages {
		if m.Kind == paxos.MsgAsk && m.To == 2 {
			first = append(first, m.First)
		}
	}
	return first
}

// TestDamagedEntriesTakeTurns: nobody has instance 2 any more, which must not keep 4
// from being mended.
func TestDamagedEntriesTakeTurns(t *testing.T) {
	r, l := rotting(t, 2, 4)
	now := paxos.Time(3 * time.Second)
	r.Repair(now, 2)
	r.Repair(now, 4)
	var order []paxos.Instance
	for range 4 {
		order = append(order, asks(flush(t, r, now))...)
		now = now.Add(2 * repairEvery)
		r.Step(now, paxos.Event{Kind: paxos.EventTick})
	}
	if !slices.Contains(order, 2) || !slices.Contains(order, 4) {
		t.Fatalf("others are asked for %v", order)
	}
	four := paxos.Message{Kind: paxos.MsgLearn, From: 2, To: 1, First: 4, Chosen: 5, Entries: []paxos.Entry{{Instance: 4, Kind: paxos.Normal, Data: value(4)}}}
	r.Step(now, paxos.Event{Kind: paxos.EventMessage, Message: &four})
	if out := flush(t, r, now); !slices.Equal(out.Mended, []paxos.Instance{4}) || !out.Sync {
		t.Fatalf("after the answer: %+v", out)
	}
	syncAll(t, l, r, now)
	if e, err := r.Read(4); err != nil || !bytes.Equal(e.Data, value(4)) {
		t.Fatalf("read the mended entry: %v, %v", e, err)
	}
	if _, err := r.Read(2); err == nil {
		t.Error("the entry that nobody sent can be read")
	}
}

// TestWhatIsDamagedHereIsLackedThere: a member asks for what is damaged here. It hears
// what it can have, so that it asks others, or for a snapshot.
func TestWhatIsDamagedHereIsLackedThere(t *testing.T) {
	r, l := rotting(t, 3)
	cfg := paxos.Defaults(1, func(int64) int64 { return 0 })
	cfg.KeepBytes = 0
	again, err := Open(l, 0, cfg, paxos.Time(3*time.Second)) // which has nothing in memory
	if err != nil {
		t.Fatal(err)
	}
	now := paxos.Time(4 * time.Second)
	ask := paxos.Message{Kind: paxos.MsgAsk, From: 2, To: 1, First: 3}
	again.Step(now, paxos.Event{Kind: paxos.EventMessage, Message: &ask})
	var answers []paxos.Message
	for _, m := range flush(t, again, now).Messages {
		if m.Kind == paxos.MsgLearn && m.To == 2 {
			answers = append(answers, m)
		}
	}
	if len(answers) != 1 || len(answers[0].Entries) != 0 || answers[0].First != 4 || r.Core().Chosen() != 5 {
		t.Fatalf("who asks for a damaged entry hears %+v", answers)
	}
}

// TestOnlyWhatIsChosenMends: a deposed leader goes on proposing, at an instance that is
// damaged here.
func TestOnlyWhatIsChosenMends(t *testing.T) {
	r, _ := rotting(t, 3)
	now := paxos.Time(3 * time.Second)
	r.Repair(now, 3)
	flush(t, r, now)
	wrong := []paxos.Entry{{Instance: 3, Ballot: paxos.Ballot{Round: 1, Node: 3}, Kind: paxos.Normal, Data: []byte("not chosen")}}
	for _, kind := range []paxos.MessageKind{paxos.MsgAccept, paxos.MsgPromise} {
		m := paxos.Message{Kind: kind, From: 3, To: 1, Ballot: paxos.Ballot{Round: 1, Node: 3}, First: 3, Entries: wrong}
		r.Step(now, paxos.Event{Kind: paxos.EventMessage, Message: &m})
	}
	if out := flush(t, r, now); len(out.Mended) != 0 {
		t.Fatalf("mended by a proposal: %v", out.Mended)
	}
	right := paxos.Message{Kind: paxos.MsgLearn, From: 2, To: 1, First: 3, Chosen: 5, Entries: []paxos.Entry{{Instance: 3, Kind: paxos.Normal, Data: value(3)}}}
	r.Step(now, paxos.Event{Kind: paxos.EventMessage, Message: &right})
	right.Entries = wrong // and nothing mends twice
	r.Step(now, paxos.Event{Kind: paxos.EventMessage, Message: &right})
	flush(t, r, now)
	if e, err := r.Read(3); err != nil || !bytes.Equal(e.Data, value(3)) {
		t.Fatalf("read the mended entry: %v, %v", e, err)
	}
}

// TestASnapshotIsInstalledOnceThereIsRoom: a full disk refuses it, nothing changes, and
// the next attempt goes through.
func TestASnapshotIsInstalledOnceThereIsRoom(t *testing.T) {
	mem := vfs.NewMem()
	l := openLog(t, mem)
	r := open(t, l)
	now := paxos.Time(2 * time.Second)
	mem.SetFreeSpace(100)
	for i := uint64(1); l.Size() < 16<<10; i++ { // into a segment for which there is no room
		if _, err := l.Append(entryRecord(1, i, make([]byte, 1000))); err != nil {
			t.Fatal(err)
		}
	}
	cfg := paxos.Defaults(1, func(int64) int64 { return 0 })
	for range 2 {
		if _, _, err := r.Install(l, cfg, 20, three(), now); !errors.Is(err, wal.ErrNoSpace) {
			t.Fatalf("Install on a full disk: %v", err)
		}
	}
	mem.SetFreeSpace(-1)
	next, _, err := r.Install(l, cfg, 20, three(), now)
	if err != nil || next.Core().Chosen() != 20 {
		t.Fatalf("Install with room: %v", err)
	}
}
