package relay

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"runtime"
	"testing"
	"time"

	"github.com/phxsql/phxsql/internal/binlog"
	"github.com/phxsql/phxsql/internal/entry"
	"github.com/phxsql/phxsql/internal/gtid"
	"github.com/phxsql/phxsql/internal/semisync"
	"github.com/phxsql/phxsql/paxos"
)

// fakeServer makes the packets of a semi-synchronous dump.
type fakeServer struct {
	out []byte
	seq byte
	pos uint32
	gno int64
	// events are the bytes of all transactions, without packets.
	events []byte
}

func newFakeServer() *fakeServer {
	f := &fakeServer{seq: 1}
	f.packet(binlog.AppendRotate(nil, "binlog.000001", 4, 1), false)
	f.packet(binlog.AppendFormatDescription(nil, "9.7.4", 1, time.Unix(1, 0), time.Time{}, 0, 0), false)
	f.pos = 4
	return f
}

func (f *fakeServer) packet(event []byte, need bool) {
	b := append(semisync.AppendHeader([]byte{packetOK}, need), event...)
	for {
		n := min(len(b), maxFrame)
		f.out = appendFrame(f.out, b[:n], f.seq)
		f.seq++
		b = b[n:]
		if n < maxFrame {
			return
		}
	}
}

// txn sends a transaction whose events after the GTID event have the given
// sizes.
func (f *fakeServer) txn(need bool, sizes ...int) {
	f.gno++
	f.again(f.gno, need, sizes...)
}

func (f *fakeServer) again(gno int64, need bool, sizes ...int) {
	tx := binlog.Transaction{GTID: txid(gno), Length: 1 << 60}
	for _, size := range sizes {
		tx.Length += uint64(size)
	}
	tx.Length += uint64(len(binlog.AppendGTID(nil, tx, 1, time.Unix(1, 0), 0))) - 1<<60
	for len(binlog.AppendGTID(nil, tx, 1, time.Unix(1, 0), 0)) != int(tx.Length)-sum(sizes) {
		tx.Length = uint64(len(binlog.AppendGTID(nil, tx, 1, time.Unix(1, 0), 0)) + sum(sizes))
	}
	event := binlog.AppendGTID(nil, tx, 1, time.Unix(1, 0), f.pos)
	f.send(event, false)
	for i, size := range sizes {
		h := binlog.Header{Type: 30, ServerID: 1}
		if i == len(sizes)-1 {
			h.Type = binlog.XID
		}
		body := make([]byte, size-binlog.HeaderSize-binlog.ChecksumSize)
		f.send(binlog.AppendEvent(nil, h, body, f.pos), need && i == len(sizes)-1)
	}
}

func sum(n []int) (total int) {
	for _, x := range n {
		total += x
	}
	return total
}

func (f *fakeServer) send(event []byte, need bool) {
	f.packet(event, need)
	f.pos += uint32(len(event))
	f.events = append(f.events, event...)
}

// collector keeps what a tail proposes and has it chosen at once or never.
type collector struct {
	values []entry.Value
	choose bool
}

func (c *collector) Propose(data []byte, done func(paxos.Instance, error)) error {
	v, err := entry.Decode(data)
	if err != nil {
		panic(err)
	}
	c.values = append(c.values, v)
	if c.choose {
		done(paxos.Instance(len(c.values)), nil)
	}
	return nil
}

// read runs the bytes of a dump through a tail until they end.
func read(t testing.TB, p Proposer, known *gtid.Set, in io.Reader, groupSize, chunkSize int) (*Tail, error) {
	tail := NewTail(p, nil, TailOptions{Epoch: 1, Node: 1, GroupSize: groupSize, ChunkSize: chunkSize, Logger: quiet()})
	tail.proposed = known
	tail.cancel = func(err error) { t.Errorf("tail ends: %v", err) }
	return tail, newStream(tail, bufio.NewReaderSize(in, tailBuffer)).run()
}

// together is all events of all values, checked to be whole transactions.
func together(t *testing.T, values []entry.Value) []byte {
	t.Helper()
	var f fold
	f.apply(1, &entry.Value{Kind: entry.Epoch, Epoch: 1, Node: 1})
	var all []byte
	for i := range values {
		v := &values[i]
		if f.apply(paxos.Instance(i+2), v) == void {
			t.Fatalf("value %d is void: %+v", i, v)
		}
		all = append(all, v.Events...)
	}
	if f.open {
		t.Fatal("the last transaction is not complete")
	}
	return all
}

func TestStreamKeepsEveryByte(t *testing.T) {
	f := newFakeServer()
	f.txn(false, 100, 31)
	f.txn(true, 70, 31)
	f.txn(true, 5000, 100000, 31)      // chunks of 64 KiB
	f.txn(true, 23, 23, 65536-93)      // just about one chunk
	f.txn(true, 17<<20, 31)            // a split packet
	f.txn(true, maxFrame-3, 31)        // a packet of exactly one full frame
	f.txn(true, 2*maxFrame-3, 31, 200) // and of two
	f.txn(true, 100, 31)
	for _, reader := range []struct {
		name string
		in   io.Reader
	}{
		{"at once", bytes.NewReader(f.out)},
		{"in pieces", &slowReader{b: f.out}},
	} {
		t.Run(reader.name, func(t *testing.T) {
			c := &collector{choose: true}
			tail, err := read(t, c, &gtid.Set{}, reader.in, 64<<10, 64<<10)
			if !errors.Is(err, io.EOF) {
				t.Fatal(err)
			}
			if !bytes.Equal(together(t, c.values), f.events) {
				t.Fatal("the events changed")
			}
			for i := range c.values {
				if n := len(c.values[i].Events); n > 64<<10 {
					t.Errorf("value %d has %d bytes of events", i, n)
				}
			}
			want := semisync.Position{File: "binlog.000001", Pos: uint64(f.pos)}
			if s := tail.Stats(); s.Chosen != want || s.Transactions != 8 || s.Bytes != uint64(len(f.events)) {
				t.Errorf("stats %+v, want position %v", s, want)
			}
		})
	}
}

// slowReader gives a few bytes at a time, of changing number.
type slowReader struct {
	b []byte
	n int
}

func (r *slowReader) Read(p []byte) (int, error) {
	if len(r.b) == 0 {
		return 0, io.EOF
	}
	r.n = r.n%4093 + 7
	n := copy(p[:min(len(p), r.n)], r.b)
	r.b = r.b[n:]
	return n, nil
}

// What arrived together goes together, and nothing waits for what did not.
func TestStreamGroups(t *testing.T) {
	f := newFakeServer()
	for range 10 {
		f.txn(true, 100, 31)
	}
	c := &collector{}
	if _, err := read(t, c, &gtid.Set{}, bytes.NewReader(f.out), 1<<20, 1<<20); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	if len(c.values) != 1 || len(c.values[0].Txns) != 10 {
		t.Errorf("%d values for what arrived at once", len(c.values))
	}
	whole := len(f.out)
	f.txn(true, 100, 31)
	c = &collector{}
	in := io.MultiReader(bytes.NewReader(f.out[:whole+90]), readerFunc(func([]byte) (int, error) {
		if len(c.values) != 1 {
			t.Errorf("%d values when half a transaction has arrived, want 1", len(c.values))
		}
		return 0, io.EOF
	}))
	if _, err := read(t, c, &gtid.Set{}, in, 1<<20, 1<<20); err == nil {
		t.Fatal("no error")
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// What is known already is not proposed again, and its end is acknowledged only
// after what came before it.
func TestStreamSkipsWhatIsKnown(t *testing.T) {
	f := newFakeServer()
	f.txn(true, 100, 31)
	first := f.pos
	f.txn(true, 300000, 31) // known
	f.txn(true, 100, 31)
	known := &gtid.Set{}
	known.Add(txid(2))
	c := &collector{}
	tail, err := read(t, c, known, bytes.NewReader(f.out), 1<<20, 64<<10)
	if !errors.Is(err, io.EOF) || len(c.values) != 2 {
		t.Fatalf("%d values, %v", len(c.values), err)
	}
	if s := tail.Stats(); s.Skipped != 1 || !s.Chosen.IsZero() {
		t.Errorf("stats %+v", s)
	}
	tail.done(1, nil)
	if s := tail.Stats(); s.Chosen.Pos <= uint64(first) || s.Chosen.Pos >= uint64(f.pos) {
		t.Errorf("chosen %v after the first value", s.Chosen)
	}
	if !known.Contains(txid(1)) || !known.Contains(txid(3)) {
		t.Error("what is proposed is not known")
	}
}

// A server that lacks a transaction of the log uses its GTID again. Taking that for a
// repetition would acknowledge what is in no log.
func TestStreamRefusesAGTIDOfTheLog(t *testing.T) {
	f := newFakeServer()
	f.txn(true, 100, 31)
	f.txn(true, 100, 31)
	c := &collector{}
	tail := NewTail(c, nil, TailOptions{Epoch: 1, Node: 1, Logger: quiet()})
	tail.before.Add(txid(2))
	err := newStream(tail, bufio.NewReader(bytes.NewReader(f.out))).run()
	if !errors.Is(err, ErrDiverged) {
		t.Fatalf("ended with %v", err)
	}
	if s := tail.Stats(); s.Skipped != 0 || s.Transactions > 1 {
		t.Errorf("stats %+v", s)
	}
}

// Positions have 32 bits in an event but files may be larger.
func TestPositionsBeyond32Bits(t *testing.T) {
	s := newStream(NewTail(nil, nil, TailOptions{Logger: quiet()}), nil)
	for _, c := range []struct {
		low  uint32
		want uint64
	}{{4, 4}, {1 << 31, 1 << 31}, {0xfffffff0, 0xfffffff0}, {16, 1<<32 + 16}, {16, 1<<32 + 16}, {8, 2<<32 + 8}} {
		s.moveTo(c.low)
		if s.pos != c.want {
			t.Errorf("position %d, want %d", s.pos, c.want)
		}
	}
}

func TestStreamRefuses(t *testing.T) {
	for name, build := range map[string]func(f *fakeServer){
		"anonymous transaction": func(f *fakeServer) {
			f.send(binlog.AppendEvent(nil, binlog.Header{Type: binlog.AnonymousGTID}, make([]byte, 60), f.pos), false)
		},
		"incident": func(f *fakeServer) {
			f.send(binlog.AppendEvent(nil, binlog.Header{Type: 26}, []byte{1, 0, 0}, f.pos), false)
		},
		"event outside a transaction": func(f *fakeServer) {
			f.send(binlog.AppendEvent(nil, binlog.Header{Type: binlog.XID}, make([]byte, 8), f.pos), false)
		},
		"transaction longer than said": func(f *fakeServer) {
			tx := binlog.Transaction{GTID: txid(1), Length: 120}
			f.send(binlog.AppendGTID(nil, tx, 1, time.Unix(1, 0), f.pos), false)
			f.send(binlog.AppendEvent(nil, binlog.Header{Type: binlog.Query}, make([]byte, 100), f.pos), false)
		},
		"no semi-sync header": func(f *fakeServer) {
			f.out = appendFrame(f.out, append([]byte{packetOK}, binlog.AppendRotate(nil, "binlog.000002", 4, 1)...), f.seq)
		},
		"fatal error": func(f *fakeServer) {
			f.out = appendFrame(f.out, []byte{packetError, 0xd4, 0x04, '#', 'H', 'Y', '0', '0', '0', 'x'}, f.seq)
		},
	} {
		f := newFakeServer()
		build(f)
		if _, err := read(t, &collector{}, &gtid.Set{}, bytes.NewReader(f.out), 1<<20, 1<<20); !errors.Is(err, ErrUnfit) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// endless is a transaction of any size without the memory for it.
type endless struct {
	head []byte
	left int64
}

func (e *endless) Read(p []byte) (int, error) {
	if len(e.head) > 0 {
		n := copy(p, e.head)
		e.head = e.head[n:]
		return n, nil
	}
	if e.left == 0 {
		return 0, io.EOF
	}
	n := min(int64(len(p)), e.left)
	e.left -= n
	return int(n), nil
}

type discardProposer struct{ bytes int }

func (d *discardProposer) Propose(data []byte, done func(paxos.Instance, error)) error {
	d.bytes += len(data)
	done(1, nil)
	return nil
}

// A transaction of 1 GB in events of 15 MB passes without more memory than a few
// chunks.
func TestHugeTransactionNeedsLittleMemory(t *testing.T) {
	const events, size = 70, 15 << 20
	f := newFakeServer()
	tx := binlog.Transaction{GTID: txid(1), Length: 1 << 30}
	tx.Length = uint64(len(binlog.AppendGTID(nil, tx, 1, time.Unix(1, 0), 0)) + events*size)
	f.send(binlog.AppendGTID(nil, tx, 1, time.Unix(1, 0), f.pos), false)
	parts := []io.Reader{bytes.NewReader(f.out)}
	for range events {
		payload := semisync.HeaderSize + 1 + size
		head := []byte{byte(payload), byte(payload >> 8), byte(payload >> 16), 0, packetOK, semisync.Magic, 0}
		event := binlog.AppendEvent(nil, binlog.Header{Type: 30}, nil, 0)[:binlog.HeaderSize]
		event[9], event[10], event[11], event[12] = 0, 0, size>>16, 0
		parts = append(parts, &endless{head: append(head, event...), left: size - binlog.HeaderSize})
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	p := &discardProposer{}
	if _, err := read(t, p, &gtid.Set{}, io.MultiReader(parts...), 1<<20, 1<<20); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if p.bytes < events*size {
		t.Errorf("%d bytes proposed", p.bytes)
	}
	if grown := int64(after.HeapSys) - int64(before.HeapSys); grown > 32<<20 {
		t.Errorf("the heap grew by %d MiB", grown>>20)
	}
}

func FuzzStream(f *testing.F) {
	s := newFakeServer()
	s.txn(false, 100, 31)
	s.txn(true, 5000, 31)
	s.packet(binlog.AppendHeartbeatV2(nil, "binlog.000001", 1<<33, 1), false)
	f.Add(s.out)
	f.Add(appendFrame(nil, []byte{packetError, 1, 2}, 0))
	f.Add(appendFrame(nil, []byte{packetEOF, 0, 0, 0, 0}, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		c := &collector{choose: true}
		if _, err := read(t, c, &gtid.Set{}, bytes.NewReader(b), 2000, 2000); err == nil {
			t.Fatal("a stream that ends has no error")
		}
	})
}

func BenchmarkTailFraming(b *testing.B) {
	f := newFakeServer()
	head := len(f.out)
	const txns = 200
	for range txns {
		f.txn(true, 80, 60, 300, 31) // about an oltp_insert
	}
	p := &discardProposer{}
	tail := NewTail(p, nil, TailOptions{Epoch: 1, Node: 1, Logger: quiet()})
	tail.proposed = &gtid.Set{}
	const group = 8 // transactions that arrive together
	src := &repeat{b: f.out[head:], step: (len(f.out) - head) / txns * group}
	s := newStream(tail, bufio.NewReaderSize(io.MultiReader(bytes.NewReader(f.out[:head]), src), tailBuffer))
	b.SetBytes(int64(len(f.events) / txns))
	b.ReportAllocs()
	for range 2 {
		if err := s.next(); err != nil {
			b.Fatal(err)
		}
	}
	for n := 0; b.Loop(); n++ { // one transaction of five events each
		if n%txns == 0 { // the same ones come again
			tail.proposed, tail.tracker = &gtid.Set{}, semisync.Tracker{}
		}
		for range 5 {
			if s.idle() {
				if err := s.proposeGroup(); err != nil {
					b.Fatal(err)
				}
			}
			if err := s.next(); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// repeat gives the same bytes for ever, at most step at a time.
type repeat struct {
	b        []byte
	at, step int
}

func (r *repeat) Read(p []byte) (int, error) {
	n := copy(p, r.b[r.at:r.at+min(r.step-r.at%r.step, len(r.b)-r.at)])
	r.at = (r.at + n) % len(r.b)
	return n, nil
}
