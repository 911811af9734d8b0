package node

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// A leader that has just won waits until it has heard from those that are up before it
// says that they are no majority; not for those that are down or far behind, and not for
// ever.
func TestANewLeaderHearsBeforeItRefuses(t *testing.T) {
	gone := errors.New("not the leader any more")
	for name, c := range map[string]struct {
		counts []census // the last one is given again
		err    error
		limit  time.Duration
		ready  int
		took   time.Duration
	}{
		"all are known":          {counts: []census{{3, 0}}, ready: 3},
		"a majority is known":    {counts: []census{{2, 1}}, ready: 2},
		"has just won":           {counts: []census{{1, 2}, {1, 1}, {2, 0}}, ready: 2, took: 2 * hearLook},
		"the others are down":    {counts: []census{{1, 0}, {3, 0}}, ready: 1},
		"one dies meanwhile":     {counts: []census{{1, 1}, {1, 0}}, ready: 1, took: hearLook},
		"it never hears of them": {counts: []census{{1, 2}}, ready: 1, took: hearLimit},
		"who asks is in a hurry": {counts: []census{{1, 2}}, limit: hearLook + 1, ready: 1, took: hearLook + 1},
		"it leads no longer":     {counts: []census{{}}, err: gone},
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx := t.Context()
			if c.limit > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, c.limit)
				defer cancel()
			}
			began, asked := time.Now(), 0
			got, err := awaitCensus(ctx, 2, func() (census, error) {
				asked++
				return c.counts[min(asked, len(c.counts))-1], c.err
			})
			if got.ready != c.ready || !errors.Is(err, c.err) || time.Since(began) != c.took {
				t.Errorf("%s: %d are ready after %v, error %v", name, got.ready, time.Since(began), err)
			}
		})
	}
}
