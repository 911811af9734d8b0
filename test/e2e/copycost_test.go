package e2e

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/phxsql/phxsql/internal/drill"
)

// stopwatch commits small transactions on the master, one after the other on each of a
// few connections, and keeps how long each took.
type stopwatch struct {
	mu   sync.Mutex
	took []time.Duration
	wg   sync.WaitGroup
	stop func() // ends the writers
}

func startStopwatch(t *testing.T, c *drill.Cluster, master *drill.Node, writers int) *stopwatch {
	t.Helper()
	if err := c.Exec(limit(t, time.Minute), "CREATE DATABASE watch", "CREATE TABLE watch.t (id INT PRIMARY KEY AUTO_INCREMENT, v VARCHAR(100))"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &stopwatch{}
	for range writers {
		db, err := c.Open(master.RW, "watch")
		if err != nil {
			t.Fatal(err)
		}
		db.SetMaxOpenConns(1)
		s.wg.Go(func() {
			defer db.Close()
			for ctx.Err() == nil {
				began := time.Now()
				_, err := db.ExecContext(ctx, "INSERT INTO t (v) VALUES (REPEAT('x', 80))")
				s.note(time.Since(began), err)
			}
		})
	}
	s.stop = func() { cancel(); s.wg.Wait() }
	t.Cleanup(s.stop)
	return s
}

func (s *stopwatch) note(d time.Duration, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.took = append(s.took, d)
	}
}

// lap returns the percentiles since the last one, and how many commits there were.
func (s *stopwatch) lap() (p50, p99 time.Duration, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ds := s.took
	s.took = nil
	if len(ds) == 0 {
		return 0, 0, 0
	}
	slices.Sort(ds)
	return ds[len(ds)/2], ds[len(ds)*99/100], len(ds)
}

// copyCost is how TestCopyCost measures; see there.
type copyCost struct {
	rounds, megabytes int
	rate              string
	quiet             time.Duration // the length of a lap without a copy
}

func copyCostOf(t *testing.T) copyCost {
	t.Helper()
	number := func(name string, def int) int {
		text := os.Getenv(name)
		if text == "" {
			return def
		}
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			t.Fatalf("%s is %q, want a positive number", name, text)
		}
		return n
	}
	o := copyCost{rounds: number("PHX_COPY_ROUNDS", 3), megabytes: number("PHX_COPY_MB", 200), rate: os.Getenv("PHX_COPY_RATE"), quiet: 10 * time.Second}
	if o.rate == "" {
		o.rate = "16MiB"
	}
	return o
}

// lap is what was measured in a stretch of time.
type lap struct {
	p50, p99 time.Duration
	rate     float64 // commits per second
}

func (l lap) String() string {
	return fmt.Sprintf("p50 %v, p99 %v, %.0f commits/s", l.p50.Round(10*time.Microsecond), l.p99.Round(10*time.Microsecond), l.rate)
}

// measure returns the lap that ends when done returns.
func (s *stopwatch) measure(done func()) lap {
	s.lap()
	began := time.Now()
	done()
	p50, p99, n := s.lap()
	return lap{p50, p99, float64(n) / time.Since(began).Seconds()}
}

// medianLap takes the median of each figure by itself.
func medianLap(ls []lap) lap {
	mid := func(f func(lap) float64) float64 {
		var v []float64
		for _, l := range ls {
			v = append(v, f(l))
		}
		slices.Sort(v)
		return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
	}
	return lap{
		time.Duration(mid(func(l lap) float64 { return float64(l.p50) })),
		time.Duration(mid(func(l lap) float64 { return float64(l.p99) })),
		mid(func(l lap) float64 { return l.rate }),
	}
}

// over returns the ratios of two laps, as text.
func (l lap) over(o lap) string {
	return fmt.Sprintf("p50 x%.2f, p99 x%.2f, commits/s x%.2f", float64(l.p50)/float64(o.p50), float64(l.p99)/float64(o.p99), l.rate/o.rate)
}

// phase waits while a node's new data are in a phase.
func phase(t *testing.T, ctx context.Context, n *drill.Node, name string) {
	t.Helper()
	err := drill.Eventually(ctx, func() error {
		m, err := n.Self(ctx)
		if err == nil && m.Copy != nil && m.Copy.Phase == name {
			err = fmt.Errorf("node %d is at it: %+v", n.ID, *m.Copy)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// why prints what a node's log says of copies that did not come about.
func why(t *testing.T, n *drill.Node) {
	t.Helper()
	b, err := os.ReadFile(n.Log())
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if strings.Contains(line, "fetch_copy") || strings.Contains(line, "copy interrupted") {
			t.Log(strings.TrimSpace(line))
		}
	}
}

// TestCopyCost prints what a running copy costs those who commit on the master. It
// judges nothing: figures of one machine say little, ratios of one run more. Laps without
// and with a copy alternate, so that what changes slowly hits both alike.
// PHX_COPY_ROUNDS is how often (3), PHX_COPY_MB the size of the data besides the server's
// own (200), PHX_COPY_RATE what the donor may give ("16MiB").
func TestCopyCost(t *testing.T) {
	onlyLong(t)
	o := copyCostOf(t)
	c := start(t, drill.Options{Extra: smallLog + fmt.Sprintf("[copy]\nrate = %q\n", o.rate)})
	ctx := limit(t, 10*time.Minute+time.Duration(o.rounds)*3*time.Minute)
	master, err := c.Master(ctx)
	if err != nil {
		t.Fatal(err)
	}
	w := startStopwatch(t, c, master, 4)
	fill(t, c, 8)
	grow(t, c, o.megabytes)
	needy := other(c, master)
	var without, with []lap
	quiet := func() {
		serving(t, c)
		without = append(without, w.measure(func() { <-time.After(o.quiet) })) // the length of a measurement
		t.Logf("without a copy: %v", without[len(without)-1])
	}
	for round := range o.rounds {
		quiet()
		lose(t, needy)
		donor := donorOf(t, c, needy)
		began := time.Now()
		with = append(with, w.measure(func() { phase(t, ctx, needy, "copying") }))
		who := "a follower"
		if donor == master {
			who = "THE MASTER"
			why(t, needy)
		}
		t.Logf("with a copy of node %d, %s, in %v: %v", donor.ID, who, time.Since(began).Round(time.Millisecond), with[round])
		restored(t, "round "+strconv.Itoa(round+1), needy, round+1)
	}
	quiet()
	t.Logf("medians of %d laps without: %v", len(without), medianLap(without))
	t.Logf("medians of %d laps with a copy: %v", len(with), medianLap(with))
	t.Logf("with a copy over without: %s", medianLap(with).over(medianLap(without)))
}
