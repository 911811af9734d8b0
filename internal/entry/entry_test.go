package entry

import (
	"bytes"
	"encoding/hex"
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/phxsql/phxsql/internal/gtid"
)

var update = flag.Bool("update", false, "write the golden file anew; only together with a new version")

func id(tag string, n int64) gtid.GTID {
	return gtid.GTID{Source: gtid.Source{UUID: gtid.UUID{0xaa, 15: 0xbb}, Tag: tag}, GNO: n}
}

func samples() map[string]*Value {
	return map[string]*Value{
		"epoch": {Kind: Epoch, Epoch: 3, Node: 2, ServerUUID: gtid.UUID{1, 2, 3, 15: 9}},
		"transactions": {
			Kind: Transactions, Epoch: 3, Node: 2, Events: []byte("hello world"),
			Txns: []Txn{{id("", 1), 5}, {id("tag", 9), 6}},
		},
		"chunk":      {Kind: Chunk, Epoch: 3, Node: 2, Offset: 4, Events: []byte("mid"), Txns: []Txn{{id("", 2), 11}}},
		"chunk last": {Kind: Chunk, Epoch: 3, Node: 2, Offset: 7, Last: true, Events: []byte("tail"), Txns: []Txn{{id("", 2), 11}}},
		"event":      {Kind: Event, Epoch: 3, Node: 2, Events: []byte(`{"id":"x"}`)},
		"settings": {Kind: Settings, Epoch: 3, Node: 2, Events: []byte(
			`{"format":1,"after":7,"at":"2026-11-22T20:00:00Z","by":"ann","set":{"log.keep":"1GiB"}}`)},
		"audit": {Kind: Audit, Epoch: 3, Node: 2, Events: []byte(`{"round":1}`)},
	}
}

func TestRoundTrip(t *testing.T) {
	var reused Value
	for name, v := range samples() {
		b := v.Encode()
		got, err := Decode(b)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := reused.Decode(b); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, g := range []Value{got, reused} {
			if len(g.Txns) == 0 {
				g.Txns = nil
			}
			if diff := cmp.Diff(*v, g); diff != "" {
				t.Errorf("%s changed (-want +got):\n%s", name, diff)
			}
		}
	}
}

// The bytes of version 1 are in the logs of running clusters.
func TestGolden(t *testing.T) {
	const file = "testdata/golden.txt"
	var got strings.Builder
	for _, name := range []string{"epoch", "transactions", "chunk", "chunk last", "event", "audit", "settings"} {
		got.WriteString(name + "\n" + hex.Dump(samples()[name].Encode()) + "\n")
	}
	if *update {
		if err := os.WriteFile(file, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("the layout changed (-want +got):\n%s", diff)
	}
}

func TestBuilderWritesWhatEncodeWrites(t *testing.T) {
	all := samples()
	var bl Builder
	v := all["transactions"]
	bl.Start(3, 2, 4)
	copy(bl.Extend(5), "hello")
	bl.EndTxn(v.Txns[0])
	bl.Append([]byte(" wor"))
	bl.Append([]byte("ld"))
	bl.EndTxn(v.Txns[1])
	if got := bl.Finish(); !bytes.Equal(got, v.Encode()) {
		t.Errorf("built\n%x, want\n%x", got, v.Encode())
	}
	for _, name := range []string{"chunk", "chunk last"} {
		v := all[name]
		bl.Start(3, 2, 0)
		bl.Append(v.Events)
		if got := bl.FinishChunk(v.Txns[0], v.Offset); !bytes.Equal(got, v.Encode()) {
			t.Errorf("built %s\n%x, want\n%x", name, got, v.Encode())
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	good := samples()["transactions"].Encode()
	for name, change := range map[string]func(b []byte) []byte{
		"version":                    func(b []byte) []byte { b[0] = 2; return b },
		"kind":                       func(b []byte) []byte { b[1] = 9; return b },
		"flags":                      func(b []byte) []byte { b[2] = 2; return b },
		"last":                       func(b []byte) []byte { b[2] = 1; return b },
		"count":                      func(b []byte) []byte { b[7] = 0xff; return b },
		"fewer":                      func(b []byte) []byte { b[4]--; return b },
		"body too large":             func(b []byte) []byte { b[35] = 0xff; return b },
		"body smaller":               func(b []byte) []byte { b[32]--; return b },
		"cut":                        func(b []byte) []byte { return b[:len(b)-1] },
		"longer":                     func(b []byte) []byte { return append(b, 0) },
		"empty":                      func([]byte) []byte { return nil },
		"settings with transactions": func(b []byte) []byte { b[1] = byte(Settings); return b },
		"last plain kind":            func(b []byte) []byte { b[1] = byte(FirstNotice) - 1; return b },
		"notice with transactions":   func(b []byte) []byte { b[1] = byte(Event); return b },
		"gno":                        func(b []byte) []byte { b[headerSize+11+16] = 0; return b },
		"tag":                        func(b []byte) []byte { b[len(b)-1] = '-'; return b },
	} {
		if v, err := Decode(change(bytes.Clone(good))); err == nil {
			t.Errorf("%s: decoded %+v", name, v)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, v := range samples() {
		f.Add(v.Encode())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := Decode(b)
		if err != nil {
			return
		}
		if again := v.Encode(); !bytes.Equal(again, b) {
			t.Fatalf("decoded and encoded again\n%x, want\n%x", again, b)
		}
	})
}

func BenchmarkDecodeReused(b *testing.B) {
	var bl Builder
	bl.Start(1, 1, 5000)
	for i := range 10 {
		bl.Extend(500)
		bl.EndTxn(Txn{id("", int64(i+1)), 500})
	}
	data := bl.Finish()
	var v Value
	b.ReportAllocs()
	for b.Loop() {
		if err := v.Decode(data); err != nil {
			b.Fatal(err)
		}
	}
}

// A cluster that is upgraded member by member has values of kinds that some of its
// members do not know.
func TestNoticesOfLaterVersionsAreRead(t *testing.T) {
	for _, kind := range []Kind{FirstNotice, Audit, 200, 255} {
		v := &Value{Kind: kind, Node: 2, Events: []byte("what a later version says")}
		got, err := Decode(v.Encode())
		if err != nil || !got.Kind.Notice() || string(got.Events) != string(v.Events) {
			t.Errorf("kind %d: %+v, %v", kind, got, err)
		}
	}
	large := &Value{Kind: Event, Events: make([]byte, MaxNotice)}
	b := large.Encode()
	b = append(b, 0)
	b[32]++
	if _, err := Decode(b); err == nil {
		t.Error("a notice beyond the limit is taken")
	}
}

func TestChange(t *testing.T) {
	want, err := DecodeChange(samples()["settings"].Events)
	if err != nil || want.After != 7 || want.Set["log.keep"] != "1GiB" || want.By != "ann" {
		t.Fatalf("read %+v, %v", want, err)
	}
	b, err := want.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if string(b) != string(samples()["settings"].Events) {
		t.Errorf("written as %s", b)
	}
	for _, bad := range []string{"", "{", `{"format":2}`, `{"format":1,"after":-1}`} {
		if c, err := DecodeChange([]byte(bad)); err == nil {
			t.Errorf("%q is read as %+v", bad, c)
		}
	}
}
