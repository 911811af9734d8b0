package telemetry

import (
	"bytes"
	"log/slog"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestTextAndJSON(t *testing.T) {
	for format, want := range map[string]string{
		"text": `level=INFO msg="lease lost" node=2 wait=900ms` + "\n",
		"json": `"level":"INFO","msg":"lease lost","node":2,"wait":"900ms"}` + "\n",
	} {
		var b bytes.Buffer
		l, err := NewLogger(&b, LogOptions{Format: format})
		if err != nil {
			t.Fatal(err)
		}
		l.Debug("not shown")
		l.Info("lease lost", KeyNode, 2, KeyWait, 900*time.Millisecond)
		if got := b.String(); !strings.HasSuffix(got, want) || strings.Count(got, "\n") != 1 {
			t.Errorf("%s: %q", format, got)
		}
		if !strings.Contains(b.String(), "Z") {
			t.Errorf("%s: the time is not in UTC: %q", format, b.String())
		}
	}
}

func TestRefusedOptions(t *testing.T) {
	for _, o := range []LogOptions{{Level: "loud"}, {Format: "xml"}} {
		if _, err := NewLogger(&bytes.Buffer{}, o); err == nil {
			t.Errorf("%+v accepted", o)
		}
	}
}

func TestEventsKeepInfoWhateverTheLevel(t *testing.T) {
	var b bytes.Buffer
	es := NewEvents(0)
	l, err := NewLogger(&b, LogOptions{Level: "error", Events: es})
	if err != nil {
		t.Fatal(err)
	}
	l = l.With(KeyNode, 1)
	l.Debug("noise")
	l.Info("gate opened", KeyEpoch, 4)
	l.WithGroup("disk").With(KeyFile, "x").Warn("slow", KeyDuration, 2*time.Second)
	if b.Len() != 0 {
		t.Errorf("below the level, yet written: %s", b.String())
	}
	got, _ := es.After(0)
	for i := range got {
		got[i].Time = time.Time{}
	}
	want := []Event{
		{Seq: 1, Level: "info", Message: "gate opened", Attrs: []EventAttr{{"node", "1"}, {"epoch", "4"}}},
		{Seq: 2, Level: "warn", Message: "slow", Attrs: []EventAttr{{"node", "1"}, {"disk.file", "x"}, {"disk.duration", "2s"}}},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestRingDropsTheOldest(t *testing.T) {
	es := NewEvents(3)
	for i := range 10 {
		es.add(Event{Message: strings.Repeat("x", i)})
	}
	got, _ := es.After(0)
	if len(got) != 3 || got[0].Seq != 8 || got[2].Seq != 10 {
		t.Errorf("got %+v", got)
	}
	if got, _ = es.After(9); len(got) != 1 || got[0].Seq != 10 {
		t.Errorf("after 9: %+v", got)
	}
	if got, _ = es.After(99); len(got) != 0 {
		t.Errorf("after 99: %+v", got)
	}
}

func TestRingWakesReaders(t *testing.T) {
	es := NewEvents(0)
	_, changed := es.After(0)
	var wg sync.WaitGroup
	wg.Go(func() { <-changed })
	es.add(Event{})
	wg.Wait()
}

func TestEventTextIsCut(t *testing.T) {
	es := NewEvents(0)
	l, _ := NewLogger(&bytes.Buffer{}, LogOptions{Events: es})
	l.Info("long", KeyReason, strings.Repeat("r", 5000))
	got, _ := es.After(0)
	if n := len(got[0].Attrs[0].Value); n != maxEventText+3 {
		t.Errorf("%d bytes kept", n)
	}
}

func TestKeysAreComplete(t *testing.T) {
	src, err := os.ReadFile("keys.go")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, k := range Keys() {
		if seen[k] || !regexp.MustCompile(`^[a-z]+(_[a-z]+)*$`).MatchString(k) {
			t.Errorf("key %q is twice in the list or not in snake_case", k)
		}
		seen[k] = true
	}
	for _, m := range regexp.MustCompile(`= "(\w+)"`).FindAllStringSubmatch(string(src), -1) {
		if !seen[m[1]] {
			t.Errorf("key %q is not in the list", m[1])
		}
		delete(seen, m[1])
	}
	for k := range seen {
		t.Errorf("key %q has no constant", k)
	}
}

func TestMetrics(t *testing.T) {
	rec := httptest.NewRecorder()
	MetricsHandler(NewRegistry("v1.2.3")).ServeHTTP(rec, httptest.NewRequest("GET", "/metrics", nil))
	for _, want := range []string{`phxsql_build_info{go_version="go`, `version="v1.2.3"} 1`, "go_goroutines ", "process_open_fds "} {
		if !strings.Contains(rec.Body.String(), want) {
			t.Errorf("no %s in the metrics", want)
		}
	}
}

func BenchmarkEvent(b *testing.B) {
	es := NewEvents(0)
	l := slog.New(&tee{out: slog.DiscardHandler, events: es})
	b.ReportAllocs()
	for b.Loop() {
		l.Info("gate opened", KeyEpoch, 4)
	}
}
