package mysqld

import (
	"fmt"
	"time"
)

const (
	// healthyRun is how long a server must have run for its crash to be the
	// first one again.
	healthyRun = time.Minute
	// firstPause is the pause after the second crash in a row; it doubles with
	// each further one. The first crash has none.
	firstPause = 500 * time.Millisecond
	// maxPause bounds the pause: a cause that went away is noticed in that time.
	maxPause = 30 * time.Second
)

// Crashes tells how often the server ended by itself, with no healthy run in
// between.
type Crashes struct {
	Count  int
	Retry  time.Time // a start before that is refused
	Reason string    // of the last one
}

// Wait is the rest of the pause.
func (c Crashes) Wait(now time.Time) time.Duration { return max(0, c.Retry.Sub(now)) }

// add counts an end at the given time, after a run of the given length.
func (c Crashes) add(now time.Time, ran time.Duration, reason string) Crashes {
	if ran >= healthyRun {
		c.Count = 0
	}
	c.Count++
	pause := time.Duration(0)
	if c.Count > 1 {
		pause = min(firstPause<<min(c.Count-2, 16), maxPause)
	}
	c.Retry, c.Reason = now.Add(pause), reason
	return c
}

// CrashLoopError refuses a start because the server crashed again and again.
type CrashLoopError struct{ Crashes }

func (e *CrashLoopError) Error() string {
	return fmt.Sprintf("start mysqld: it ended by itself %d times, next start at %s: %s (hint: see its error log)",
		e.Count, e.Retry.Format(time.RFC3339), e.Reason)
}
