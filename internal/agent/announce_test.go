package agent

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/phxsql/phxsql/internal/api"
)

func TestAnnouncementSurvivesTheWire(t *testing.T) {
	a := announcement{Boot: "b", Seq: 7, Able: true, Cluster: "c", Log: "l", Member: api.MemberStatus{ID: 2, Master: true, RWAddr: "x:1"}}
	b, err := a.encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := decodeAnnouncement(b)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(a, got); d != "" {
		t.Error(d)
	}
	for _, bad := range [][]byte{nil, []byte("{"), make([]byte, maxAnnouncement+1)} {
		if _, err := decodeAnnouncement(bad); err == nil {
			t.Errorf("%d bytes accepted", len(bad))
		}
	}
}

// What was overtaken on the way does not count; a new process starts to count anew.
func TestPeersKeepTheNewest(t *testing.T) {
	p, now := newPeers(), time.Now()
	for _, c := range []struct {
		boot string
		seq  uint64
		want bool
	}{{"a", 1, true}, {"a", 3, true}, {"a", 2, false}, {"a", 3, false}, {"b", 1, true}} {
		if got := p.put(2, announcement{Boot: c.boot, Seq: c.seq}, now); got != c.want {
			t.Errorf("%s %d: %v", c.boot, c.seq, got)
		}
	}
	if a, age, ok := p.get(2, now.Add(time.Second)); !ok || a.Boot != "b" || age != time.Second {
		t.Errorf("%+v, %v, %v", a, age, ok)
	}
	if _, _, ok := p.get(3, now); ok {
		t.Error("never heard of, yet known")
	}
}

func FuzzDecodeAnnouncement(f *testing.F) {
	f.Add([]byte(`{"boot":"b","seq":1,"member":{"id":1}}`))
	f.Fuzz(func(_ *testing.T, b []byte) { _, _ = decodeAnnouncement(b) })
}

func TestTimelineReportsEachPhaseOnce(t *testing.T) {
	var out bytes.Buffer
	at := time.Unix(100, 0)
	tl := timeline{log: slog.New(slog.NewTextHandler(&out, nil))}
	tl.mark(markReady, at) // nothing has begun
	tl.begin("the old leader is gone", at)
	tl.mark(markElected, at.Add(time.Second))
	tl.mark(markElected, at.Add(2*time.Second))
	tl.mark(markEpoch, at.Add(1500*time.Millisecond))
	tl.finish(at.Add(3*time.Second), 9)
	tl.finish(at.Add(4*time.Second), 9)
	for _, want := range []string{"epoch=9", "duration=3s", "phases.elected=1s", "phases.epoch_chosen=500ms", "phases.gate_open=1.5s"} {
		if strings.Count(out.String(), want) != 1 {
			t.Errorf("no single %q in %s", want, out.String())
		}
	}
}
