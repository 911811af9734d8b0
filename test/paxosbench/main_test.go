package main

import (
	"bytes"
	"io"
	"os"
	"strings"
	"testing"
	"time"
)

func TestHistogramKeepsThreePercent(t *testing.T) {
	for d := time.Duration(0); d < 20*time.Second; d += d/50 + time.Microsecond {
		b := bucket(d)
		if lo := lower(b); lo > d || float64(d-lo) > float64(d)*0.033+float64(time.Microsecond) {
			t.Fatalf("%v is in the bucket from %v", d, lo)
		}
		if b > 0 && bucket(lower(b)) != b {
			t.Fatalf("bucket %d begins at %v, which is in bucket %d", b, lower(b), bucket(lower(b)))
		}
	}
	var h histogram
	for i := range 1000 {
		h.add(time.Duration(i) * time.Microsecond)
	}
	if q := h.quantile(0.5); q < 480*time.Microsecond || q > 500*time.Microsecond {
		t.Fatalf("median of 0..999 us is %v", q)
	}
}

func TestReportComparesWithTheBestPeer(t *testing.T) {
	r := &report{systems: []string{"ours", "a", "ours-tls", "b"}, samples: map[cell]map[string][]sample{}}
	at := cell{1, 1024, 16}
	for sys, n := range map[string]int64{"ours": 300, "a": 100, "b": 200, "ours-tls": 900} {
		for _, k := range []int64{1, 2, 30} { // the median counts, not the mean
			r.add(at, sys, sample{result: result{Commits: n * k / 2, Time: time.Second}})
		}
	}
	if v, name := r.against(at); v != 1.5 || name != "b" {
		t.Fatalf("ratio %v to %s, want 1.5 to b", v, name)
	}
	if m, n := r.geometricMean(); m < 1.49 || m > 1.51 || n != 1 {
		t.Fatalf("geometric mean %v of %d cells", m, n)
	}
	var out bytes.Buffer
	r.print(&out)
	if !strings.Contains(out.String(), "| 1 | 1 KB | 16 | 300;") {
		t.Fatalf("the table lacks its row:\n%s", out.String())
	}
}

func TestDriverCountsWhatWasCommitted(t *testing.T) {
	var out bytes.Buffer
	in := strings.NewReader(`{"proposers":3,"size":32,"warm":1000000,"time":20000000}` + "\n")
	err := serve(in, &out, 2, func(g int, v []byte) error {
		if g < 0 || g > 1 || len(v) != 32 {
			t.Errorf("group %d, %d bytes", g, len(v))
		}
		time.Sleep(time.Millisecond)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"READY\n", "START\n", "STOP\n", "RESULT "} {
		if !strings.Contains(out.String(), want) {
			t.Fatalf("no %q in %q", want, out.String())
		}
	}
}

func TestUnknownSystemsAreRefused(t *testing.T) {
	if err := nodeMain([]string{"nobody", "0", "1", "1", t.TempDir()}); err == nil {
		t.Fatal("started")
	}
	if err := serve(strings.NewReader(`{"proposers":1}`+"\n"), io.Discard, 1, nil); err == nil {
		t.Fatal("a follower took a job")
	}
}

func TestACellWithoutPeersHasNoRatio(t *testing.T) {
	r := &report{systems: []string{"ours", "b"}, samples: map[cell]map[string][]sample{}}
	r.add(cell{1, 100, 1}, "ours", sample{result: result{Commits: 10, Time: time.Second}})
	var b strings.Builder
	r.print(&b)
	if got := b.String(); !strings.Contains(got, "| - | - | - |\n") || strings.Contains(got, "mean") {
		t.Errorf("the table of ours alone:\n%s", got)
	}
}

// TestReportSaysHowTheGoalsStand: each goal has its cells, the worst memory its cell.
func TestReportSaysHowTheGoalsStand(t *testing.T) {
	r := &report{systems: []string{"ours", "b"}, samples: map[cell]map[string][]sample{}, floors: map[string][]result{floorAppend: {{Commits: 1, Time: time.Second, P50: 200 * time.Microsecond}}}}
	add := func(c cell, commits int64, p50, cpu time.Duration, memory int64) {
		r.add(c, "ours", sample{result: result{Commits: commits, Time: time.Second, P50: p50}, CPU: cpu, Memory: memory})
		r.add(c, "b", sample{result: result{Commits: 1000, Time: time.Second}})
	}
	add(cell{1, 100, 1}, 900, 500*time.Microsecond, time.Second, 30e6)
	add(cell{1, 100 << 10, 1}, 4000, 900*time.Microsecond, time.Second, 120e6)
	add(cell{1, 1 << 10, 100}, 2000, time.Millisecond, 60*time.Millisecond, 40e6)
	add(cell{20, 1 << 10, 100}, 16000, time.Millisecond, time.Second, 50e6)
	var b strings.Builder
	r.print(&b)
	for _, want := range []string{
		"| 0.90 (b) | 2.5 |\n",
		"geometric mean of 4 cells: 3.28 (goal 1.5); below level: 1: 100 B/1 0.90\n",
		"p50 at one proposer in floors (goal 2.1): 100 B/1 2.5\n",
		"us of CPU per commit at 100 proposers (goal 30): 1 KB/100 30\n",
		"Commits/s of 20 groups (goal 15000): 20 groups 1 KB/100 16000\n",
		"Most MB of memory of a node (goal 100): 100 KB/1 120\n",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
}

// TestFloorsAreMeasuredAndGone: a majority is done before all are, and no file stays.
func TestFloorsAreMeasuredAndGone(t *testing.T) {
	dir := t.TempDir()
	p := plan{dir: dir}
	r := &report{systems: []string{"ours"}, floors: map[string][]result{}}
	p.floors(r)
	for _, name := range []string{floorAppend, floorOverwrite, floorShared} {
		if f := r.floors[name]; len(f) != 1 || f[0].Commits == 0 || f[0].P50 > f[0].Max {
			t.Errorf("%s: %+v", name, f)
		}
	}
	if len(r.faults) > 0 {
		t.Error(r.faults)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left in the directory: %v, %v", left, err)
	}
}
