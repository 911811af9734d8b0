package e2e

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
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
	t.Cleanup(func() { cancel(); s.wg.Wait() })
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

// TestCopyCost prints what a running copy costs those who commit on the master. It
// judges nothing: figures of one machine say little, ratios of one run more.
// PHX_COPY_MB is the size of the data, PHX_COPY_RATE what the donor may give.
func TestCopyCost(t *testing.T) {
	onlyLong(t)
	size, rate := 200, os.Getenv("PHX_COPY_RATE")
	if n, err := strconv.Atoi(os.Getenv("PHX_COPY_MB")); err == nil {
		size = n
	}
	if rate == "" {
		rate = "16MiB"
	}
	c := start(t, drill.Options{Extra: smallLog + fmt.Sprintf("[copy]\nrate = %q\n", rate)})
	ctx := limit(t, 15*time.Minute)
	master, err := c.Master(ctx)
	if err != nil {
		t.Fatal(err)
	}
	w := startStopwatch(t, c, master, 4)
	fill(t, c, 8)
	grow(t, c, size)
	needy := other(c, master)
	var ratios50, ratios99 []float64
	for round := range 3 {
		serving(t, c)
		w.lap()
		<-time.After(10 * time.Second) // the length of a measurement
		q50, q99, qn := w.lap()
		lose(t, needy)
		donor := donorOf(t, c, needy)
		w.lap()
		began := time.Now()
		err := drill.Eventually(ctx, func() error {
			m, err := needy.Self(ctx)
			if err == nil && m.Copy != nil && m.Copy.Phase == "copying" {
				err = fmt.Errorf("it is copied: %+v", *m.Copy)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		took := time.Since(began)
		c50, c99, cn := w.lap()
		restored(t, "round "+strconv.Itoa(round+1), needy, round+1)
		t.Logf("without: p50 %v p99 %v, %d commits; with a copy from node %d (%v): p50 %v p99 %v, %d commits", q50, q99, qn, donor.ID, took.Round(time.Millisecond), c50, c99, cn)
		if q50 > 0 && q99 > 0 {
			ratios50, ratios99 = append(ratios50, float64(c50)/float64(q50)), append(ratios99, float64(c99)/float64(q99))
		}
	}
	t.Logf("with a copy over without, per round: p50 %.2f, p99 %.2f; master node %d", ratios50, ratios99, master.ID)
}
