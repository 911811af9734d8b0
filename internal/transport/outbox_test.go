package transport

import (
	"bytes"
	"testing"

	"github.com/phxsql/phxsql/paxos"
)

// drain takes everything and returns the frames.
func drain(t *testing.T, o *outbox) []frame {
	t.Helper()
	var all []byte
	for b := o.take(); b != nil; b = o.take() {
		all = append(all, bytes.Join(b, nil)...)
	}
	frames, _ := readAll(newFrameReader(bytes.NewReader(all)))
	return frames
}

func vote() []paxos.Message {
	return []paxos.Message{{Kind: paxos.MsgAccepted, From: 1, To: 2}}
}

func TestVotesOvertakeEntriesButHeartbeatsDoNot(t *testing.T) {
	o := newOutbox(1<<20, false)
	o.putMessages(0, accepts(1, 2, 2, 100))
	o.putMessages(0, accepts(1, 2, 1, 0)) // heartbeat
	o.putMessages(0, vote())
	var kinds []paxos.MessageKind
	var entries []int
	for _, f := range drain(t, o) {
		m, err := paxos.DecodeMessage(f.payload)
		if err != nil {
			t.Fatal(err)
		}
		kinds, entries = append(kinds, m.Kind), append(entries, len(m.Entries))
	}
	if len(kinds) != 4 || kinds[0] != paxos.MsgAccepted || entries[1] != 1 || entries[2] != 1 || entries[3] != 0 {
		t.Errorf("order: %v, entries %v", kinds, entries)
	}
}

func TestFullQueueRefusesEntriesOnly(t *testing.T) {
	const limit = 1 << 20
	o := newOutbox(limit, false)
	n, size := o.putMessages(0, accepts(1, 2, 100, 64<<10))
	if n == 0 || n == 100 || size > limit {
		t.Fatalf("took %d messages, %d bytes", n, size)
	}
	if got, _ := o.putMessages(0, accepts(1, 2, 1, 64<<10)); got != 0 {
		t.Error("took entries above the limit")
	}
	if got, _ := o.putMessages(0, accepts(1, 2, 1, 0)); got != 1 {
		t.Error("refused a heartbeat")
	}
	if got, _ := o.putMessages(0, vote()); got != 1 {
		t.Error("refused a vote")
	}
	promise := accepts(1, 2, 1, 64<<10)
	promise[0].Kind = paxos.MsgPromise
	if got, _ := o.putMessages(0, promise); got != 1 {
		t.Error("refused a promise")
	}
	if got := len(drain(t, o)); got != n+3 {
		t.Errorf("%d frames came out, %d went in", got, n+3)
	}
	if o.waiting != 0 {
		t.Errorf("%d bytes waiting in an empty queue", o.waiting)
	}
	// One that is larger than the limit is taken when it is alone.
	big := accepts(1, 2, 1, 2*limit)
	if got, _ := o.putMessages(0, big); got != 1 {
		t.Error("refused a large message on an empty queue")
	}
	if got, _ := o.putMessages(0, big); got != 0 {
		t.Error("took a second large message")
	}
}

func TestSmallMessagesHaveALimitToo(t *testing.T) {
	o := newOutbox(1<<20, false)
	votes := make([]paxos.Message, 2*urgentLimit/emptyMessage)
	for i := range votes {
		votes[i] = vote()[0]
	}
	if n, _ := o.putMessages(0, votes); n == len(votes) || len(o.urgent) > urgentLimit+headerSize*n {
		t.Errorf("took %d votes, %d bytes", n, len(o.urgent))
	}
	full := o.limit + MaxMessage // as if the queue and then the largest promise were on their way out
	o.waiting = full
	beats := accepts(1, 2, 2*smallRoom/emptyMessage, 0)
	if n, _ := o.putMessages(0, beats); n == len(beats) || o.waiting > full+smallRoom+headerSize*n {
		t.Errorf("took %d heartbeats, %d bytes", n, o.waiting)
	}
}

func TestLargeQueueGoesOutInPieces(t *testing.T) {
	o := newOutbox(64<<20, false)
	o.putMessages(0, accepts(1, 2, 100, 32<<10))
	first := bytes.Join(o.take(), nil)
	if len(first) > chunkSize {
		t.Errorf("first piece has %d bytes", len(first))
	}
	o.putMessages(0, vote())
	if got := bytes.Join(o.take(), nil); len(got) != headerSize+emptyMessage {
		t.Errorf("a vote had to wait behind %d bytes", len(got))
	}
}

// TestLargeDataIsNotCopied: it goes out from where it is, in order with what is small,
// and in one piece where the writer encrypts.
func TestLargeDataIsNotCopied(t *testing.T) {
	for _, joint := range []bool{false, true} {
		o := newOutbox(64<<20, joint)
		ms := accepts(1, 2, 1, 100<<10)
		mixed := accepts(1, 2, 1, 3*chunkSize)
		for _, n := range []int{10, refData, 0, refData - 1, 5} {
			e := paxos.Entry{Instance: 7, Kind: paxos.Normal, Data: bytes.Repeat([]byte{byte(n)}, n)}
			mixed[0].Entries = append(mixed[0].Entries, e)
		}
		ms = append(ms, mixed...)
		ms = append(ms, accepts(1, 2, 1, 50)...)
		o.putMessages(3, ms)
		var want, got []byte
		for i := range ms {
			want = appendMessage(want, 3, &ms[i], ms[i].EncodedSize())
		}
		lent := 0
		for b := o.take(); b != nil; b = o.take() {
			size := 0
			for _, p := range b {
				if &p[0] == &ms[0].Entries[0].Data[0] {
					lent++
				}
				size += len(p)
				got = append(got, p...)
			}
			if size > chunkSize || joint && len(b) != 1 {
				t.Errorf("joint %v: %d bytes in %d pieces", joint, size, len(b))
			}
		}
		if !bytes.Equal(got, want) {
			t.Errorf("joint %v: %d bytes came out, %d went in, or they differ", joint, len(got), len(want))
		}
		if joint != (lent == 0) {
			t.Errorf("joint %v: the data was lent %d times", joint, lent)
		}
	}
}

func TestIdleOutboxGivesMemoryBack(t *testing.T) {
	o := newOutbox(64<<20, false)
	o.putMessages(0, accepts(1, 2, 1000, 32<<10))
	drain(t, o)
	o.trim()
	kept := cap(o.urgent) + cap(o.spare) + cap(o.taken)
	for _, c := range o.free {
		kept += cap(c)
	}
	if kept > 4*keepBuffer {
		t.Errorf("keeps %d bytes", kept)
	}
}

func TestClosedOutboxTakesNothing(t *testing.T) {
	o := newOutbox(1<<20, false)
	o.putMessages(0, accepts(1, 2, 1, 10))
	o.close()
	if n, _ := o.putMessages(0, accepts(1, 2, 1, 10)); n != 0 || o.take() != nil {
		t.Error("a closed outbox is not empty")
	}
	if o.putUrgent(func(b []byte) []byte { return b }) || o.putOrdered(1, func(b []byte) []byte { return b }) {
		t.Error("a closed outbox took a frame")
	}
}

// TestNoBurstIsEmpty: a large message that ends where a burst ends, whose last pieces are
// empty, leaves nothing to be written after it.
func TestNoBurstIsEmpty(t *testing.T) {
	for _, joint := range []bool{false, true} {
		for spare := -1; spare <= 1; spare++ {
			for noops := range 2 {
				list := accepts(1, 2, 1, 0)
				list[0].Entries = []paxos.Entry{{Instance: 1, Kind: paxos.Normal}, {Instance: 2, Kind: paxos.Noop}}[:1+noops]
				list[0].Entries[0].Data = make([]byte, 2*chunkSize-headerSize-list[0].EncodedSize()+spare)
				o := newOutbox(1<<24, joint)
				o.putMessages(0, list)
				size := 0
				for b := o.take(); b != nil; b = o.take() {
					n := len(bytes.Join(b, nil))
					if n == 0 {
						t.Fatalf("joint %v, %d bytes more than two bursts: an empty burst after %d bytes", joint, spare, size)
					}
					size += n
				}
				if size != 2*chunkSize+spare {
					t.Fatalf("%d bytes, want %d", size, 2*chunkSize+spare)
				}
			}
		}
	}
}
