package proxy

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"testing"
	"time"
)

var (
	hopSecret = []byte("the members' secret")
	hopTime   = time.UnixMilli(1_800_000_000_000)
)

func testHop(client string) hop {
	return hop{
		client: netip.MustParseAddrPort(client), own: netip.MustParseAddrPort("10.0.0.2:3306"),
		node: 2, sent: hopTime,
	}
}

func TestHopRoundTrip(t *testing.T) {
	for _, client := range []string{"192.0.2.7:40000", "[2001:db8::7]:40000"} {
		h := testHop(client)
		b, err := appendHop([]byte("before"), hopSecret, h)
		if err != nil {
			t.Fatal(err)
		}
		b = append(b[len("before"):], "behind"...)
		got, n, err := parseHop(b, hopSecret)
		if err != nil || string(b[n:]) != "behind" {
			t.Fatalf("%d bytes, %v", n, err)
		}
		if got.client != h.client || got.own.Port() != 3306 || got.own.Addr().Unmap() != h.own.Addr() || got.node != 2 || !got.sent.Equal(hopTime) {
			t.Errorf("got %+v", got)
		}
		for i := range n {
			if _, m, err := parseHop(b[:max(i, 1)], hopSecret); m != 0 || err != nil {
				t.Fatalf("cut at %d: %d, %v", i, m, err)
			}
		}
	}
}

// TestHopRefused: every byte of a header counts.
func TestHopRefused(t *testing.T) {
	b, err := appendHop(nil, hopSecret, testHop("192.0.2.7:40000"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range b {
		bad := clone(b)
		bad[i] ^= 1
		if _, n, err := parseHop(bad, hopSecret); n > 0 && err == nil {
			t.Errorf("byte %d changed: accepted", i)
		}
	}
	if _, _, err := parseHop(b, []byte("another secret")); err == nil {
		t.Error("another secret: accepted")
	}
}

// TestHopIsNoPacket: a client's first packet is never taken for a header.
func TestHopIsNoPacket(t *testing.T) {
	if startsHop(loginResponse(capsNew, pluginCaching)) || startsHop([]byte{32, 0, 0, 1}) {
		t.Error("a login was taken for a hop")
	}
}

// TestHopLayout compares with bytes written down from the format's page.
func TestHopLayout(t *testing.T) {
	b, err := appendHop(nil, hopSecret, testHop("192.0.2.7:40000"))
	if err != nil {
		t.Fatal(err)
	}
	want, _ := hex.DecodeString("0d0a0d0a000d0a515549540a" + "2111" + "0050" +
		"c0000207" + "0a000002" + "9c40" + "0cea" + "e50041" + "01" + "0000000000000002" + "000001a3185c5000")
	if !bytes.HasPrefix(b, want) || len(b) != len(want)+16+32 {
		t.Errorf("got %x", b)
	}
}

func FuzzHop(f *testing.F) {
	b, err := appendHop(nil, hopSecret, testHop("192.0.2.7:40000"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(hopSignature))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, n, err := parseHop(b, hopSecret); n > len(b) || n > 0 && err != nil {
			t.Fatalf("%d of %d bytes, %v", n, len(b), err)
		}
	})
}

func FuzzGreeting(f *testing.F) {
	f.Add(greetingPacket(1, capsNew, pluginCaching)[headerSize:])
	f.Fuzz(func(_ *testing.T, b []byte) { parseGreeting(b) })
}

func FuzzOpening(f *testing.F) {
	f.Add(loginResponse(capsNew, pluginCaching)[headerSize:])
	f.Fuzz(func(_ *testing.T, b []byte) {
		parseOpening(b)
		changePlugin(b, capsNew)
	})
}
