package relay

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/phxsql/phxsql/internal/binlog"
	"github.com/phxsql/phxsql/internal/entry"
	"github.com/phxsql/phxsql/internal/gtid"
	"github.com/phxsql/phxsql/paxos"
)

// unpack takes events out of the packets of a dump.
func unpack(t testing.TB, b []byte) []byte {
	t.Helper()
	var events []byte
	for len(b) > 0 {
		first := true
		for {
			n := int(b[0]) | int(b[1])<<8 | int(b[2])<<16
			payload := b[frameHeader : frameHeader+n]
			b = b[frameHeader+n:]
			if first {
				payload, first = payload[1:], false
			}
			events = append(events, payload...)
			if n < maxFrame {
				break
			}
		}
	}
	return events
}

func TestEventWriterPacksAnyPieces(t *testing.T) {
	f := newFakeServer()
	f.txn(true, 100, 31)
	f.txn(true, maxFrame-1, 2*maxFrame-1, maxFrame, 40)
	for _, piece := range []int{1 << 30, 1 << 20, 65537, 1000} {
		var out bytes.Buffer
		w := eventWriter{w: bufio.NewWriter(&out)}
		for b := f.events; len(b) > 0; {
			n := min(piece, len(b))
			if piece == 1000 { // the first events a byte at a time
				if len(f.events)-len(b) < 300 {
					n = 1
				}
			}
			if err := w.write(b[:n]); err != nil {
				t.Fatal(err)
			}
			b = b[n:]
		}
		if err := w.flush(); err != nil || w.inside() {
			t.Fatalf("flush: %v, inside %v", err, w.inside())
		}
		if !bytes.Equal(unpack(t, out.Bytes()), f.events) {
			t.Errorf("in pieces of %d the events change", piece)
		}
		if w.pos != uint64(len(f.events)) {
			t.Errorf("position %d, want %d", w.pos, len(f.events))
		}
	}
}

// values makes log values of what a fake server sends.
func values(t testing.TB, f *fakeServer, chunkSize int) []entry.Value {
	c := &collector{choose: true}
	if _, err := read(t, c, &gtid.Set{}, bytes.NewReader(f.out), 1<<20, chunkSize); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	return c.values
}

// replica is the wire of a replica that has logged in.
func dialReplica(t *testing.T, s *Source) *wire {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, ln) }()
	conn, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = conn.Close()
		if err := <-served; !errors.Is(err, context.Canceled) {
			t.Errorf("serve ended with %v", err)
		}
	})
	_ = conn.SetDeadline(time.Now().Add(deadline))
	w := newWire(conn, 4096)
	if err := w.login(s.o.User, s.o.Password); err != nil {
		t.Fatal(err)
	}
	return w
}

func newTestSource(l *memLog, o SourceOptions) *Source {
	o.User, o.Password, o.ServerID, o.ServerVersion, o.Logger = "repl", "secret", 4242, "9.7.4", quiet()
	if o.CaughtUp == nil {
		o.CaughtUp = func() (paxos.Instance, bool) { return l.Chosen(), true }
	}
	return NewSource(l, NewJournal(l, Base{}, quiet()), o)
}

// nextEvent reads one event of a dump, whole.
func nextEvent(t *testing.T, w *wire) []byte {
	t.Helper()
	b, err := w.read()
	if err != nil {
		t.Fatal(err)
	}
	if b[0] != packetOK {
		t.Fatal(parseServerError(b))
	}
	if !binlog.Verify(b[1:]) {
		t.Fatalf("the checksum of a %v event is wrong", binlog.Type(b[5]))
	}
	return b[1:]
}

// A replica gets exactly the chosen transactions that it lacks, as soon as they
// are complete, and heartbeats with a position that it can believe.
func TestSourceSendsWhatTheReplicaLacks(t *testing.T) {
	l := newMemLog(t)
	s := newTestSource(l, SourceOptions{})
	f := newFakeServer()
	for range 20 {
		f.txn(true, 100, 31)
	}
	f.txn(true, 5000, 5000, 31) // in chunks
	f.txn(true, 100, 31)
	all := values(t, f, 3000)
	l.add(&entry.Value{Kind: entry.Epoch, Epoch: 1, Node: 1})
	for i := range all[:len(all)-1] {
		l.add(&all[i])
	}
	l.add(txnsValue(9, 10, 77)) // void
	w := dialReplica(t, s)
	if err := w.exec("SET @source_heartbeat_period = 20000000"); err != nil {
		t.Fatal(err)
	}
	have := &gtid.Set{}
	have.AddInterval(txid(1).Source, gtid.Interval{First: 1, Last: 15})
	if err := w.command(appendDumpRequest(nil, 5, have)); err != nil {
		t.Fatal(err)
	}
	if e := nextEvent(t, w); binlog.Type(e[4]) != binlog.Rotate {
		t.Fatalf("first event is %v", binlog.Type(e[4]))
	}
	if e := nextEvent(t, w); binlog.Type(e[4]) != binlog.FormatDescription {
		t.Fatalf("second event is %v", binlog.Type(e[4]))
	}
	var got []byte
	want := f.events[bytes.Index(f.events, gtidEventOf(t, f, 16)):]
	added := false
	for len(got) < len(want) {
		e := nextEvent(t, w)
		if binlog.Type(e[4]) != binlog.HeartbeatV2 {
			got = append(got, e...)
			continue
		}
		if _, pos, err := binlog.ParseHeartbeat(e); err != nil || pos != uint64(4+len(got)) {
			t.Fatalf("heartbeat at %d (%v) after %d bytes", pos, err, len(got))
		}
		if !added {
			l.add(&all[len(all)-1])
			added = true
		}
	}
	if !bytes.Equal(got, want) || !added {
		t.Error("the events differ from what was chosen")
	}
}

// gtidEventOf returns the bytes of the n-th GTID event.
func gtidEventOf(t *testing.T, f *fakeServer, n int64) []byte {
	for b := f.events; len(b) > 0; {
		h, err := binlog.ParseHeader(b)
		if err != nil {
			t.Fatal(err)
		}
		if h.Type == binlog.GTID {
			if tx, err := binlog.ParseGTID(b[:h.Size]); err == nil && tx.GTID.GNO == n {
				return b[:h.Size]
			}
		}
		b = b[h.Size:]
	}
	t.Fatalf("no GTID event %d", n)
	return nil
}

// Before the log has caught up nobody is called diverged.
func TestDivergenceIsJudgedOnlyWhenCaughtUp(t *testing.T) {
	l := newMemLog(t)
	asked := make(chan struct{}, 100)
	refused := make(chan error, 1)
	s := newTestSource(l, SourceOptions{
		CaughtUp: func() (paxos.Instance, bool) {
			select {
			case asked <- struct{}{}:
			default:
			}
			return 3, true
		},
		OnRefuse: func(err error) { refused <- err },
	})
	l.add(&entry.Value{Kind: entry.Epoch, Epoch: 1, Node: 1})
	w := dialReplica(t, s)
	have := &gtid.Set{}
	have.Add(txid(1))
	have.Add(txid(2))
	if err := w.command(appendDumpRequest(nil, 5, have)); err != nil {
		t.Fatal(err)
	}
	<-asked
	select {
	case err := <-refused:
		t.Fatalf("refused early: %v", err)
	default:
	}
	l.add(txnsValue(1, 10, 1))
	l.add(txnsValue(1, 10, 3))
	err := <-refused
	var d *DivergenceError
	if !errors.As(err, &d) || d.Extra.Count() != 1 || !d.Extra.Contains(txid(2)) {
		t.Errorf("refused with %v", err)
	}
	b, err := w.read()
	if err != nil || b[0] != packetError {
		t.Errorf("the replica got %x, %v", b, err)
	}
}

func TestSourceAnswersReplicas(t *testing.T) {
	l := newMemLog(t)
	s := newTestSource(l, SourceOptions{ServerUUID: gtid.UUID{0xab}})
	w := dialReplica(t, s)
	for q, want := range map[string]string{
		"SELECT @@GLOBAL.SERVER_ID":      "4242",
		"SELECT @@GLOBAL.SERVER_UUID":    "ab000000-0000-0000-0000-000000000000",
		"SELECT @@GLOBAL.GTID_MODE":      "ON",
		"SELECT @source_binlog_checksum": "CRC32",
		"SELECT @master_binlog_checksum": "CRC32",
	} {
		row, err := w.row(q)
		if err != nil || row[0] != want {
			t.Errorf("%s: %v, %v; want %s", q, row, err, want)
		}
	}
	for _, q := range []string{"SELECT 1", "DROP TABLE t"} {
		var e *ServerError
		if err := w.exec(q); !errors.As(err, &e) || e.Code != 1193 {
			t.Errorf("%s: %v", q, err)
		}
	}
	if err := w.command([]byte{comBinlogDump, 0, 0, 0, 0}); err != nil {
		t.Fatal(err)
	}
	if err := w.expectOK("dump by position"); err == nil {
		t.Error("a dump by position was accepted")
	}
}

func TestSourceRefusesStrangers(t *testing.T) {
	l := newMemLog(t)
	s := newTestSource(l, SourceOptions{})
	for _, c := range []struct{ user, password string }{{"repl", "wrong"}, {"repl", ""}, {"other", "secret"}} {
		client, server := net.Pipe()
		done := make(chan error, 1)
		go func() {
			done <- newWire(server, 4096).accept("9.7.4", s.o.User, s.accepted(), 1)
			_ = server.Close()
		}()
		var e *ServerError
		if err := newWire(client, 4096).login(c.user, c.password); !errors.As(err, &e) || e.Code != 1045 {
			t.Errorf("%+v: %v", c, err)
		}
		if err := <-done; err == nil {
			t.Errorf("%+v was let in", c)
		}
		_ = client.Close()
	}
}

// While its password is changed the source takes two, and each login is by one of them.
func TestSourceTakesTwoPasswords(t *testing.T) {
	s := newTestSource(newMemLog(t), SourceOptions{})
	judge := func(step string, want map[string]bool) {
		t.Helper()
		for password, in := range want {
			client, server := net.Pipe()
			done := make(chan error, 1)
			go func() {
				done <- newWire(server, 4096).accept("9.7.4", s.o.User, s.accepted(), 1)
				_ = server.Close()
			}()
			err := newWire(client, 4096).login("repl", password)
			if aerr := <-done; (err == nil) != in || (aerr == nil) != in {
				t.Errorf("%s, password %q: %v, %v", step, password, err, aerr)
			}
			_ = client.Close()
		}
	}
	judge("at first", map[string]bool{"secret": true, "two": false})
	s.SetPassword("two")
	s.SetPassword("two") // repeated: the old one stays
	judge("meanwhile", map[string]bool{"secret": true, "two": true, "": false})
	s.ForgetOld()
	s.ForgetOld()
	judge("afterwards", map[string]bool{"secret": false, "two": true})
	s.SetPassword("three")
	s.SetPassword("four") // two rotations without an end between them
	judge("again", map[string]bool{"two": false, "three": true, "four": true})
}

func TestHeartbeatPeriod(t *testing.T) {
	for sql, want := range map[string]time.Duration{
		"SET @master_heartbeat_period = 30000001024, @source_heartbeat_period = 30000001024": 30000001024,
		"SET @source_heartbeat_period=5": 5,
		"SET @x = 1":                     0,
		"SET @source_heartbeat_period":   0,
	} {
		if got, _ := parseHeartbeatPeriod(sql); got != want {
			t.Errorf("%s: %v", sql, got)
		}
	}
}

func FuzzCommands(f *testing.F) {
	set, _ := gtid.ParseSet("0a5b1c3e-0000-11ee-b962-0242ac120001:1-5")
	f.Add(appendDumpRequest(nil, 7, set))
	f.Add(greeting("9.7.4", newNonce(), 1))
	login := append([]byte{0, 0x82, 0x08, 0}, make([]byte, 28)...)
	f.Add(append(append(append(login, "repl\x00\x04abcd"...), authPlugin...), 0))
	f.Add([]byte("SET @source_heartbeat_period = 5"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := parseDumpRequest(b); err == nil && r.executed == nil {
			t.Fatal("a request without a set")
		}
		_, _ = parseGreeting(b)
		_, _ = parseLogin(b)
		_, _ = parseRow(b, 3)
		_ = parseServerError(b)
		_, _ = parseHeartbeatPeriod(string(b))
	})
}

func FuzzEventWriter(f *testing.F) {
	s := newFakeServer()
	s.txn(true, 100, 31)
	f.Add(s.events, 7)
	f.Fuzz(func(t *testing.T, b []byte, piece int) {
		w := eventWriter{w: bufio.NewWriter(io.Discard)}
		piece = max(1, min(piece, 1<<20))
		for len(b) > 0 {
			n := min(piece, len(b))
			if w.write(b[:n]) != nil {
				return
			}
			b = b[n:]
		}
	})
}

func BenchmarkServeFraming(b *testing.B) {
	f := newFakeServer()
	for range 8 {
		f.txn(true, 80, 60, 300, 31)
	}
	all := values(b, f, 1<<20)
	data := all[0].Encode()
	d := &dump{s: newTestSource(newMemLog(b), SourceOptions{}), holes: newHoles(&gtid.Set{}, &gtid.Set{})}
	d.out = eventWriter{w: bufio.NewWriterSize(io.Discard, sendBuffer)}
	d.holes.have.AddInterval(gtid.Source{UUID: gtid.UUID{1}}, gtid.Interval{First: 1, Last: 100})
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() { // eight transactions each
		if err := d.value.Decode(data); err != nil {
			b.Fatal(err)
		}
		if err := d.sendWhole(&d.value); err != nil {
			b.Fatal(err)
		}
	}
}
