package proxy

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"strings"
	"testing"
)

// loggedInTalk is a conversation that has come to commands.
func loggedInTalk(tb testing.TB, caps uint32) *talk {
	tb.Helper()
	t := &talk{}
	t.followServer(greetingPacket(7, caps, pluginCaching))
	if _, _, err := t.followClient(loginResponse(caps, pluginCaching)); err != nil {
		tb.Fatal(err)
	}
	t.followServer(okPacket(2, 2))
	if t.phase != phaseCommand || t.greet.connection != 7 {
		tb.Fatalf("phase %d, connection %d", t.phase, t.greet.connection)
	}
	return t
}

// step is bytes of one side and what must hold behind them.
type step struct {
	from  side
	b     []byte
	idle  bool
	seq   int // the sequence number of an error packet; -1: no place for one
	trans bool
}

func rowPacket(seq byte, text string) []byte {
	return appendPacket(nil, seq, append([]byte{byte(len(text))}, text...))
}

var conversations = []struct {
	name  string
	caps  uint32
	steps []step
}{
	{"a statement without rows", capsNew, []step{
		{from: user, b: command(comQuery, "INSERT"), seq: 1},
		{from: server, b: okPacket(1, 2), idle: true, seq: -1},
	}},
	{"a transaction", capsNew, []step{
		{from: user, b: command(comQuery, "BEGIN"), seq: 1},
		{from: server, b: okPacket(1, statusInTrans), idle: true, seq: -1, trans: true},
		{from: user, b: command(comQuery, "COMMIT"), seq: 1, trans: true},
		{from: server, b: okPacket(1, 2), idle: true, seq: -1},
	}},
	{"rows", capsNew, []step{
		{from: user, b: command(comQuery, "SELECT"), seq: 1},
		{from: server, b: concat(appendPacket(nil, 1, []byte{1}), columnPacket(2)), seq: -1},
		{from: server, b: concat(rowPacket(3, "one"), rowPacket(4, "")), seq: -1},
		{from: server, b: endPacket(5, 2), idle: true, seq: -1},
	}},
	{"rows, with EOF packets", capsOld, []step{
		{from: user, b: command(comQuery, "SELECT"), seq: 1},
		{from: server, b: concat(appendPacket(nil, 1, []byte{1}), columnPacket(2), eofPacket(3, 0)), seq: -1},
		{from: server, b: concat(rowPacket(4, "one"), rowPacket(5, "two")), seq: -1},
		{from: server, b: eofPacket(6, statusInTrans), idle: true, seq: -1, trans: true},
	}},
	{"rows that look like OK, and NULL", capsNew, []step{
		{from: user, b: command(0x17, "\x01\x00\x00\x00\x00\x01\x00\x00\x00"), seq: 1},
		{from: server, b: concat(appendPacket(nil, 1, []byte{1}), columnPacket(2)), seq: -1},
		{from: server, b: concat(appendPacket(nil, 3, []byte("\x00\x00\x03one\x00\x00")), appendPacket(nil, 4, []byte{markInfile})), seq: -1},
		{from: server, b: endPacket(5, 2), idle: true, seq: -1},
	}},
	{"an error within rows", capsNew, []step{
		{from: user, b: command(comQuery, "SELECT"), seq: 1},
		{from: server, b: concat(appendPacket(nil, 1, []byte{1}), columnPacket(2), rowPacket(3, "one")), seq: -1},
		{from: server, b: appendERR(nil, 4, failure{1317, "70100", "interrupted"}), idle: true, seq: -1},
	}},
	{"several results", capsNew, []step{
		{from: user, b: command(comQuery, "SELECT; UPDATE"), seq: 1},
		{from: server, b: concat(appendPacket(nil, 1, []byte{1}), columnPacket(2), endPacket(3, statusMoreResults)), seq: 4},
		{from: server, b: okPacket(4, 2), idle: true, seq: -1},
	}},
	{"a prepared statement", capsNew, []step{
		{from: user, b: command(comStmtPrepare, "SELECT ?, ?"), seq: 1},
		{from: server, b: appendPacket(nil, 1, []byte{0, 1, 0, 0, 0, 1, 0, 2, 0, 0, 0, 0}), seq: -1},
		{from: server, b: concat(columnPacket(2), columnPacket(3)), seq: -1},
		{from: server, b: columnPacket(4), idle: true, seq: -1},
		{from: user, b: command(comLongData, "\x01\x00\x00\x00\x00\x00data"), idle: true, seq: -1},
		{from: user, b: command(comStmtClose, "\x01\x00\x00\x00"), idle: true, seq: -1},
	}},
	{"a prepared statement, with EOF packets", capsOld, []step{
		{from: user, b: command(comStmtPrepare, "SELECT ?"), seq: 1},
		{from: server, b: appendPacket(nil, 1, []byte{0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0}), seq: -1},
		{from: server, b: concat(columnPacket(2), eofPacket(3, 0), columnPacket(4)), seq: -1},
		{from: server, b: eofPacket(5, 0), idle: true, seq: -1},
	}},
	{"a statement without parameters and columns", capsNew, []step{
		{from: user, b: command(comStmtPrepare, "DO 1"), seq: 1},
		{from: server, b: appendPacket(nil, 1, []byte{0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}), idle: true, seq: -1},
	}},
	{"a cursor", capsOld, []step{
		{from: user, b: command(0x17, "\x01\x00\x00\x00\x01\x01\x00\x00\x00"), seq: 1},
		{from: server, b: concat(appendPacket(nil, 1, []byte{1}), columnPacket(2), eofPacket(3, statusCursor)), idle: true, seq: -1, trans: true},
		{from: user, b: command(comStmtFetch, "\x01\x00\x00\x00\x0a\x00\x00\x00"), seq: 1, trans: true},
		{from: server, b: concat(appendPacket(nil, 1, []byte("\x00\x00\x01x")), eofPacket(2, 128)), idle: true, seq: -1},
	}},
	{"a file", capsNew, []step{
		{from: user, b: command(comQuery, "LOAD DATA LOCAL"), seq: 1},
		{from: server, b: appendPacket(nil, 1, []byte("\xfbfile")), seq: -1},
		{from: user, b: concat(appendPacket(nil, 2, []byte("some")), appendPacket(nil, 0, []byte("\x11ore"))), seq: -1},
		{from: user, b: appendPacket(nil, 4, nil), seq: 5},
		{from: server, b: okPacket(5, 2), idle: true, seq: -1},
	}},
	{"commands sent ahead", capsNew, []step{
		{from: user, b: concat(command(comQuery, "INSERT"), command(comQuery, "SELECT"), command(comStatistics, "")), seq: 1},
		{from: server, b: okPacket(1, 2), seq: 1},
		{from: server, b: concat(appendPacket(nil, 1, []byte{1}), columnPacket(2), endPacket(3, 2)), seq: 1},
		{from: server, b: appendPacket(nil, 1, []byte("Uptime: 1")), idle: true, seq: -1},
	}},
	{"columns of a table", capsOld, []step{
		{from: user, b: command(comFieldList, "k\x00"), seq: 1},
		{from: server, b: columnPacket(1), seq: -1},
		{from: server, b: eofPacket(2, 2), idle: true, seq: -1},
	}},
	{"the largest packets", capsNew, []step{
		{from: user, b: concat(command(comQuery, strings.Repeat("x", maxPayload-1)), appendPacket(nil, 1, []byte("\x01tail"))), seq: 2},
		{from: server, b: concat(appendPacket(nil, 2, []byte{1}), columnPacket(3)), seq: -1},
		{from: server, b: concat(appendPacket(nil, 4, append([]byte{markEOF}, make([]byte, maxPayload-1)...)), appendPacket(nil, 5, nil)), seq: -1},
		{from: server, b: endPacket(6, 2), idle: true, seq: -1},
	}},
}

// TestConversations follows each conversation in whole steps and in pieces of
// odd sizes: the outcome is the same and no byte changes.
func TestConversations(t *testing.T) {
	for _, c := range conversations {
		for _, piece := range []int{1 << 30, 1, 3, 7} {
			if piece < 7 && len(c.steps[0].b) > 1<<20 {
				continue // slow, and shows nothing new
			}
			if piece == 7 && len(c.steps[0].b) > 1<<20 {
				piece = 1<<20 + 7
			}
			t.Run(fmt.Sprintf("%s/%d", c.name, piece), func(t *testing.T) { converse(t, c.caps, c.steps, piece) })
		}
	}
}

func converse(t *testing.T, caps uint32, steps []step, piece int) {
	k := loggedInTalk(t, caps)
	for i, s := range steps {
		follow(t, k, s.from, s.b, piece)
		if k.phase != phaseCommand {
			t.Fatalf("step %d: no longer followed", i)
		}
		if k.idle() != s.idle || k.inTransaction() != s.trans {
			t.Errorf("step %d: idle %v, in transaction %v", i, k.idle(), k.inTransaction())
		}
		seq, ok := k.errorSeq()
		if got := int(seq); ok && got != s.seq || !ok && s.seq != -1 {
			t.Errorf("step %d: error packet %d %v, want %d", i, seq, ok, s.seq)
		}
	}
}

// follow gives b to the conversation in pieces, each in a buffer of its own, and
// expects that the server gets what the client has sent.
func follow(tb testing.TB, k *talk, from side, b []byte, piece int) {
	tb.Helper()
	var forwarded []byte
	for rest := b; len(rest) > 0; {
		n := min(piece, len(rest))
		buf := clone(rest[:n])
		rest = rest[n:]
		if from == server {
			k.followServer(buf)
			continue
		}
		f, reply, err := k.followClient(buf)
		if err != nil || len(reply) > 0 {
			tb.Fatalf("follow: %q, %v", reply, err)
		}
		forwarded = append(forwarded, f...)
	}
	if from == user && !bytes.Equal(forwarded, b) {
		tb.Fatalf("%d bytes were forwarded, want %d", len(forwarded), len(b))
	}
}

// TestNotFollowed lists what makes a session opaque; its bytes still pass.
func TestNotFollowed(t *testing.T) {
	for name, c := range map[string]struct {
		from side
		b    []byte
	}{
		"a binlog dump":             {user, command(comDumpGTID, "x")},
		"an OK that is none":        {server, appendPacket(nil, 1, []byte{markOK, 1})},
		"a payload without content": {server, appendPacket(nil, 1, nil)},
		"too many commands":         {user, bytes.Repeat(command(comQuery, "x"), maxAhead+1)},
	} {
		k := loggedInTalk(t, capsNew)
		follow(t, k, user, command(comQuery, "x"), 1<<30)
		follow(t, k, c.from, c.b, 1<<30)
		if _, ok := k.errorSeq(); k.phase != phaseOpaque || k.idle() || ok {
			t.Errorf("%s: phase %d", name, k.phase)
		}
		follow(t, k, user, []byte("anything"), 1<<30)
	}
}

// TestTLSAndCompressionAreOpaque.
func TestTLSAndCompressionAreOpaque(t *testing.T) {
	k := &talk{}
	k.followServer(greetingPacket(1, capsNew|capSSL, pluginCaching))
	request := loginResponse(capsNew|capSSL, "")[:headerSize+tlsRequestSize]
	request[0] = tlsRequestSize
	follow(t, k, user, append(request, "\x16\x03\x01 hello"...), 1<<30)
	if k.phase != phaseOpaque {
		t.Errorf("TLS: phase %d", k.phase)
	}
	k = &talk{}
	k.followServer(greetingPacket(1, capsNew|capCompress, pluginCaching))
	follow(t, k, user, loginResponse(capsNew|capCompress, pluginCaching), 1<<30)
	k.followServer(okPacket(2, 2))
	if k.phase != phaseOpaque {
		t.Errorf("compression: phase %d", k.phase)
	}
}

// TestFullAuthentication plays the exchange in which the proxy takes part: the
// client's key request and blob, with the numbers that each side counts.
func TestFullAuthentication(t *testing.T) {
	key := testKey(t)
	for _, piece := range []int{1 << 30, 1, 5} {
		k := &talk{login: login{key: func() (*rsa.PrivateKey, error) { return key, nil }}}
		k.followServer(greetingPacket(1, capsNew, "mysql_native_password"))
		follow(t, k, user, loginResponse(capsNew, "mysql_native_password"), piece)
		nonce := "abcdefghijklmnopqrst"
		k.followServer(appendPacket(nil, 2, []byte("\xfe"+pluginCaching+"\x00"+nonce+"\x00")))
		follow(t, k, user, appendPacket(nil, 3, make([]byte, 32)), piece)
		k.followServer(appendPacket(nil, 4, []byte{markMore, askFull}))

		forward, reply := feed(t, k, appendPacket(nil, 5, []byte{askKey}), piece)
		if len(forward) > 0 || len(reply) == 0 || reply[3] != 6 || !strings.Contains(string(reply), "BEGIN PUBLIC KEY") {
			t.Fatalf("key request: %q, %q", forward, reply)
		}
		blob := encryptPassword(t, &key.PublicKey, "secret", []byte(nonce))
		forward, reply = feed(t, k, appendPacket(nil, 7, blob), piece)
		if want := appendPacket(nil, 5, []byte("secret\x00")); !bytes.Equal(forward, want) || len(reply) > 0 {
			t.Fatalf("password: %q, %q", forward, reply)
		}
		if seq, ok := k.errorSeq(); !ok || seq != 8 {
			t.Errorf("error packet: %d %v", seq, ok)
		}
		ok := okPacket(6, 2)
		k.followServer(ok)
		if ok[3] != 8 || k.phase != phaseCommand {
			t.Errorf("OK has number %d, phase %d", ok[3], k.phase)
		}
	}
}

// TestPasswordForAnotherKey: the client is told what to do.
func TestPasswordForAnotherKey(t *testing.T) {
	key, other := testKey(t), testKey(t)
	k := &talk{login: login{key: func() (*rsa.PrivateKey, error) { return key, nil }}}
	k.followServer(greetingPacket(1, capsNew, pluginCaching))
	follow(t, k, user, loginResponse(capsNew, pluginCaching), 1<<30)
	k.followServer(appendPacket(nil, 2, []byte{markMore, askFull}))
	blob := encryptPassword(t, &other.PublicKey, "secret", []byte(testNonce))
	forward, reply, err := k.followClient(appendPacket(nil, 3, blob))
	if err == nil || len(forward) > 0 || errorOf(t, reply[headerSize:]) != codeDenied || reply[3] != 4 {
		t.Errorf("got %q, %q, %v", forward, reply, err)
	}
}

func feed(tb testing.TB, k *talk, b []byte, piece int) (forward, reply []byte) {
	tb.Helper()
	for len(b) > 0 {
		n := min(piece, len(b))
		f, r, err := k.followClient(clone(b[:n]))
		if err != nil {
			tb.Fatal(err)
		}
		b = b[n:]
		forward, reply = append(forward, f...), append(reply, r...)
	}
	return forward, reply
}

func testKey(tb testing.TB) *rsa.PrivateKey {
	tb.Helper()
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

func FuzzTalk(f *testing.F) {
	for _, c := range conversations {
		var in []byte
		for _, s := range c.steps {
			if len(s.b) < 1<<10 {
				in = append(in, byte(s.from), byte(len(s.b)))
				in = append(in, s.b...)
			}
		}
		f.Add(c.caps, in)
	}
	f.Fuzz(func(t *testing.T, caps uint32, in []byte) {
		k := &talk{login: login{key: func() (*rsa.PrivateKey, error) { return nil, errHop }}}
		k.followServer(greetingPacket(7, caps, pluginCaching))
		k.followClient(loginResponse(caps, pluginCaching))
		k.followServer(okPacket(2, 2))
		for len(in) > 2 {
			from, n := side(in[0]), min(int(in[1]), len(in)-2)
			b := clone(in[2 : 2+n])
			in = in[2+n:]
			if from == server {
				k.followServer(b)
			} else if _, _, err := k.followClient(b); err != nil {
				return
			}
			k.errorSeq()
			if k.waiting < 0 || k.waiting > maxAhead {
				t.Fatalf("%d commands wait", k.waiting)
			}
		}
	})
}
