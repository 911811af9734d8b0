package binlog

import (
	"bytes"
	"encoding/binary"
	"os"
	"testing"
	"time"
)

// The golden file is what a server of version 9.7.4 itself wrote at its first
// start. A restart file for the same moment is the same bytes.
func TestRestartFileIsWhatTheServerWrites(t *testing.T) {
	want, err := os.ReadFile("testdata/fresh-9.7.4.binlog")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(int64(binary.LittleEndian.Uint32(want[MagicSize:])), 0)
	got := RestartFile("9.7.4-2", 1, now)
	if !bytes.Equal(got, want) {
		t.Fatalf("restart file differs\n got %x\nwant %x", got, want)
	}
	if len(got) != 158 {
		t.Fatalf("restart file has %d bytes, want 158", len(got))
	}
}

func TestRestartFileEventsVerify(t *testing.T) {
	b := RestartFile("8.4.9-a-version-string-that-is-longer-than-the-field-has-room-for", 7, time.Unix(1, 0))[MagicSize:]
	for len(b) > 0 {
		h, err := ParseHeader(b)
		if err != nil {
			t.Fatal(err)
		}
		if !Verify(b[:h.Size]) {
			t.Fatalf("checksum of %v is wrong", h.Type)
		}
		b = b[h.Size:]
	}
}
