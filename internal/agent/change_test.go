package agent

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/phxsql/phxsql/internal/api"
	"github.com/phxsql/phxsql/internal/transport"
)

// What is asked while nobody is ready to lead waits for a moment, not longer; every other
// answer is passed on at once.
func TestRequestsWaitForALeader(t *testing.T) {
	lost := errors.New("connection lost")
	for name, c := range map[string]struct {
		answers []error // the last one is given again
		limit   time.Duration
		asked   int
		took    time.Duration
		want    error
	}{
		"ready":         {answers: []error{nil}, asked: 1},
		"has just won":  {answers: []error{errLeaderMoved(), api.Unavailable(noLeader, "", ""), nil}, asked: 3, took: 2 * leaderLook},
		"no master":     {answers: []error{api.Unavailable(noMaster, "", ""), nil}, asked: 2, took: leaderLook},
		"nobody ever":   {answers: []error{errLeaderMoved()}, asked: int(leaderWait/leaderLook) + 1, took: leaderWait, want: errLeaderMoved()},
		"hurry":         {answers: []error{errLeaderMoved()}, limit: 3*leaderLook + 1, asked: 4, took: 3*leaderLook + 1, want: errLeaderMoved()},
		"refused":       {answers: []error{api.Refused("would_lose_majority", "", ""), nil}, asked: 1, want: api.Refused("would_lose_majority", "", "")},
		"not known":     {answers: []error{lost, nil}, asked: 1, want: lost},
		"refused later": {answers: []error{errLeaderMoved(), api.Refused("leads", "", ""), nil}, asked: 2, took: leaderLook, want: api.Refused("leads", "", "")},
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx := t.Context()
			if c.limit > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, c.limit)
				defer cancel()
			}
			began, asked := time.Now(), 0
			err := untilLed(ctx, func() error {
				asked++
				return c.answers[min(asked, len(c.answers))-1]
			})
			if asked != c.asked || time.Since(began) != c.took {
				t.Errorf("%s: asked %d times in %v, want %d in %v", name, asked, time.Since(began), c.asked, c.took)
			}
			if refusedBy(err).Name != refusedBy(c.want).Name || (err == nil) != (c.want == nil) {
				t.Errorf("%s: %v, want %v", name, err, c.want)
			}
		})
	}
}

// A leader that is lost while it is asked leaves it open what was done; what it answered
// is passed on as it is.
func TestALeaderThatDoesNotAnswer(t *testing.T) {
	refused, failed := api.Refused("leads", "", ""), &transport.CallError{Peer: 2, Text: "disk full"}
	for _, err := range []error{nil, refused, fmt.Errorf("ask: %w", failed)} {
		if got := unanswered(2, err); got != err {
			t.Errorf("%v became %v", err, got)
		}
	}
	got := unanswered(2, errors.Join(transport.ErrConnectionLost, errors.New("peer went silent")))
	if p := refusedBy(got); p.Name != "unknown_outcome" || p.Hint == "" || strings.Contains(p.Reason, "\n") || !errors.Is(got, transport.ErrConnectionLost) {
		t.Errorf("%+v", p)
	}
}
