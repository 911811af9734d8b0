package paxos

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

var rewriteGolden = flag.Bool("golden", false, "write the golden files anew; a change of one is a change of the wire format")

func sampleMessages() []Message {
	ballot := Ballot{Round: 0x0102030405060708, Node: 0x1112131415161718}
	entries := []Entry{
		{Instance: 7, Ballot: Ballot{3, 1}, Kind: Noop},
		{Instance: 8, Ballot: Ballot{3, 1}, Kind: Normal, Data: []byte("value")},
		{Instance: 9, Ballot: Ballot{2, 2}, Kind: Membership, Data: []byte(`{"cluster":"c"}`)},
	}
	return []Message{
		{Kind: MsgCanvass, From: 1, To: 2, Ballot: Ballot{4, 1}, First: 10, Chosen: 9},
		{Kind: MsgOpinion, Reject: RejectLease, Able: true, From: 2, To: 1, Ballot: Ballot{4, 1}, Promised: Ballot{5, 3}, Chosen: 11},
		{Kind: MsgPrepare, From: 1, To: 2, Ballot: ballot, Consent: Ballot{3, 2}, First: 10, Chosen: 9},
		{Kind: MsgPromise, From: 2, To: 1, Ballot: ballot, First: 7, Chosen: 6, Entries: entries},
		{Kind: MsgAccept, From: 1, To: 2, Ballot: Ballot{3, 1}, First: 7, Chosen: 6, Sent: 123456789, Entries: entries[:2]},
		{Kind: MsgAccepted, Reject: RejectGap, Able: true, From: 2, To: 1, Ballot: Ballot{3, 1}, First: 9, Through: 5, Received: 6, Chosen: 5, Sent: 123456789},
		{Kind: MsgHandover, From: 1, To: 2, Ballot: Ballot{3, 1}, Promised: Ballot{4, 1}, Chosen: 6},
		{Kind: MsgLearn, From: 1, To: 2, First: 9, Chosen: 12, Entries: entries[2:]},
		{Kind: MsgAsk, From: 2, To: 1, First: 9},
		{Kind: MsgRenew, From: 1, To: 2, Ballot: Ballot{3, 1}, Sent: 1},
		{Kind: MsgRenewed, Able: true, From: 2, To: 1, Ballot: Ballot{3, 1}, Sent: 1},
		{Kind: MsgReadIndex, From: 2, To: 1, Sent: 77},
		{Kind: MsgReadAt, From: 1, To: 2, Ballot: Ballot{3, 1}, Chosen: 9, Sent: 77},
	}
}

// sampleLeases are messages that say how long a lease is: an addition within version 1
// that older releases do not see.
func sampleLeases() []Message {
	return []Message{
		{Kind: MsgAccept, From: 1, To: 2, Ballot: Ballot{3, 1}, First: 7, Chosen: 6, Sent: 123456789, Lease: 900 * time.Millisecond},
		{Kind: MsgAccepted, Able: true, From: 2, To: 1, Ballot: Ballot{3, 1}, First: 9, Through: 8, Received: 8, Chosen: 5, Sent: 123456789, Lease: 1},
		{Kind: MsgRenew, From: 1, To: 2, Ballot: Ballot{3, 1}, Sent: 1, Lease: MaxLease},
		{Kind: MsgRenewed, Able: true, From: 2, To: 1, Ballot: Ballot{3, 1}, Sent: 1, Lease: 3 * time.Second},
	}
}

// TestWireFormatStaysAsItIs compares with bytes that earlier releases wrote.
func TestWireFormatStaysAsItIs(t *testing.T) {
	for name, msgs := range map[string][]Message{"testdata/wire_v1.golden": sampleMessages(), "testdata/wire_v1_lease.golden": sampleLeases()} {
		t.Run(name, func(t *testing.T) { compareWithGolden(t, name, msgs) })
	}
}

func compareWithGolden(t *testing.T, name string, msgs []Message) {
	var lines []string
	for _, m := range msgs {
		lines = append(lines, m.Kind.String()+" "+hex.EncodeToString(m.AppendTo(nil)))
	}
	got := strings.Join(lines, "\n") + "\n"
	if *rewriteGolden {
		if err := os.WriteFile(name, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("the encoding has changed (-want +got):\n%s", d)
	}
	for i, line := range strings.Split(strings.TrimSpace(string(want)), "\n") {
		_, text, _ := strings.Cut(line, " ")
		b, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		m, err := DecodeMessage(b)
		if err != nil {
			t.Fatalf("line %d: %v", i+1, err)
		}
		if d := cmp.Diff(msgs[i], m); d != "" {
			t.Errorf("line %d decodes to something else (-want +got):\n%s", i+1, d)
		}
		if m.EncodedSize() != len(b) {
			t.Errorf("line %d: size %d, want %d", i+1, m.EncodedSize(), len(b))
		}
	}
}

// TestOlderReleasesSeeNoLease: what the length of a lease adds to a message lies where a
// release that does not know it looks at nothing, and without it the bytes are the same.
func TestOlderReleasesSeeNoLease(t *testing.T) {
	for _, m := range sampleLeases() {
		with := m.AppendTo(nil)
		m.Lease = 0
		without := m.AppendTo(nil)
		with[2] &^= flagLease
		copy(with[56:72], without[56:72]) // the consent, which these kinds do not have
		if !bytes.Equal(with, without) {
			t.Errorf("%v differs by more than the flag and the consent:\n%x\n%x", m.Kind, with, without)
		}
	}
}

// TestLeasesOutOfRangeAreMalformed: a member must not count on a length that nobody grants.
func TestLeasesOutOfRangeAreMalformed(t *testing.T) {
	for _, n := range []uint64{0, uint64(MaxLease) + 1, 1 << 63, 1<<64 - 1} {
		b := sampleLeases()[3].AppendTo(nil)
		binary.LittleEndian.PutUint64(b[56:], n)
		if _, err := DecodeMessage(b); !errors.Is(err, ErrMalformed) {
			t.Errorf("a lease of %d ns: %v", n, err)
		}
	}
	m := Message{Kind: MsgPrepare, From: 1, To: 2, Lease: time.Second, Consent: Ballot{3, 2}}
	if got, err := DecodeMessage(m.AppendTo(nil)); err != nil || got.Lease != 0 || got.Consent != m.Consent {
		t.Errorf("a message with a consent carries a lease: %v, %v", got, err)
	}
}

// TestMessagesOfNewerKindsAreNamed: a receiver must tell them from broken ones.
func TestMessagesOfNewerKindsAreNamed(t *testing.T) {
	m := Message{Kind: MsgReadAt + 1, From: 1, To: 2}
	if _, err := DecodeMessage(m.AppendTo(nil)); !errors.Is(err, ErrUnknownKind) || !errors.Is(err, ErrMalformed) {
		t.Errorf("kind %d: %v", m.Kind, err)
	}
	m.Kind = 0
	if _, err := DecodeMessage(m.AppendTo(nil)); errors.Is(err, ErrUnknownKind) || !errors.Is(err, ErrMalformed) {
		t.Errorf("kind 0: %v", err)
	}
}

func TestDecodersRefuseWhatIsCut(t *testing.T) {
	for _, m := range slices.Concat(sampleMessages(), sampleLeases()) {
		b := m.AppendTo(nil)
		for n := range b {
			if _, err := DecodeMessage(b[:n]); !errors.Is(err, ErrMalformed) {
				t.Fatalf("%v cut at %d of %d: %v", m.Kind, n, len(b), err)
			}
		}
		if _, err := DecodeMessage(append(b, 0)); !errors.Is(err, ErrMalformed) {
			t.Fatalf("%v with a byte more: %v", m.Kind, err)
		}
	}
}

func FuzzDecodeMessage(f *testing.F) {
	for _, m := range slices.Concat(sampleMessages(), sampleLeases()) {
		f.Add(m.AppendTo(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := DecodeMessage(b)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatalf("error without ErrMalformed: %v", err)
			}
			return
		}
		// Unknown flags and padding are dropped, everything else is kept.
		again, err := DecodeMessage(m.AppendTo(nil))
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(m, again); d != "" {
			t.Fatal(d)
		}
		_ = m.String()
	})
}

func FuzzDecodeEntry(f *testing.F) {
	for _, e := range sampleMessages()[3].Entries {
		f.Add(AppendEntry(nil, e))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := DecodeEntry(b)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatalf("error without ErrMalformed: %v", err)
			}
			return
		}
		again, err := DecodeEntry(AppendEntry(nil, e))
		if err != nil || cmp.Diff(e, again) != "" {
			t.Fatalf("%v becomes %v: %v", e, again, err)
		}
	})
}

func FuzzDecodeMembers(f *testing.F) {
	f.Add(Members{Cluster: "c", List: []Member{{ID: 1, Role: Voter}, {ID: 2, Role: Witness, Addr: "a", Log: "l", Name: "n"}}}.Encode())
	f.Add([]byte(`{"members":[{"id":1,"role":1},{"id":1,"role":1}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		ms, err := DecodeMembers(b)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatalf("error without ErrMalformed: %v", err)
			}
			return
		}
		again, err := DecodeMembers(ms.Encode())
		if err != nil || !bytes.Equal(again.Encode(), ms.Encode()) {
			t.Fatalf("%v becomes %v: %v", ms, again, err)
		}
	})
}

func drawMembers(t *rapid.T) Members {
	ms := Members{Cluster: "c"}
	id := NodeID(0)
	for range rapid.IntRange(1, 9).Draw(t, "members") {
		id += NodeID(rapid.IntRange(1, 5).Draw(t, "gap"))
		ms.List = append(ms.List, Member{ID: id, Role: Role(rapid.IntRange(1, 3).Draw(t, "role"))})
	}
	return ms
}

// Any two majorities of voters share a member, and less than a majority never
// suffices against the rest.
func TestMajoritiesMeet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ms := drawMembers(t)
		var voters []NodeID
		for _, m := range ms.List {
			if m.Votes() {
				voters = append(voters, m.ID)
			}
		}
		q := ms.Quorum()
		if len(voters) > 0 && q > len(voters) {
			t.Fatalf("quorum %d of %d voters", q, len(voters))
		}
		if 2*q <= len(voters) {
			t.Fatalf("two quorums of %d fit into %d voters", q, len(voters))
		}
		if q > 1 && 2*(q-1) > len(voters) {
			t.Fatalf("quorum %d of %d voters is more than needed", q, len(voters))
		}
	})
}

func TestMembersSurviveTheirEncoding(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ms := drawMembers(t)
		got, err := DecodeMembers(ms.Encode())
		if ok := ms.Check() == nil; ok != (err == nil) {
			t.Fatalf("check says %v, decoding %v", ms.Check(), err)
		}
		if err == nil && cmp.Diff(ms, got) != "" {
			t.Fatal(cmp.Diff(ms, got))
		}
		for _, m := range ms.List {
			if f, ok := ms.Find(m.ID); !ok || f != m {
				t.Fatalf("member %d is not found", m.ID)
			}
		}
		if _, ok := ms.Find(ms.List[len(ms.List)-1].ID + 1); ok {
			t.Fatal("a member that is not there is found")
		}
	})
}

// TestWindowAgainstModel compares the window with a map.
func TestWindowAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var w window
		model := map[Instance]Entry{}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 4).Draw(t, "step") {
			case 0:
				w.drop(w.base + Instance(rapid.IntRange(0, 3).Draw(t, "drop")))
			default:
				e := Entry{Instance: w.base + Instance(rapid.IntRange(1, 8).Draw(t, "at")), Kind: Normal, Data: make([]byte, rapid.IntRange(0, 9).Draw(t, "size"))}
				w.put(e)
				model[e.Instance] = e
			}
			for i := w.base + 1; i <= w.last()+1; i++ {
				if cmp.Diff(w.get(i), model[i]) != "" {
					t.Fatalf("instance %d is %v, want %v", i, w.get(i), model[i])
				}
			}
			from := w.base + Instance(rapid.IntRange(0, 4).Draw(t, "from"))
			through := from + Instance(rapid.IntRange(0, 6).Draw(t, "through"))
			want := int64(0)
			for i := from + 1; i <= min(through, w.last()); i++ {
				if e := model[i]; e.Kind != 0 {
					want += int64(e.size())
				}
			}
			if got := w.bytes(from, through); got != want {
				t.Fatalf("bytes of (%d, %d] are %d, want %d", from, through, got, want)
			}
		}
	})
}
