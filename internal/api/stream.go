package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/phxsql/phxsql/internal/telemetry"
	"github.com/phxsql/phxsql/paxos"
)

// EventsResult is a piece of the node's events.
type EventsResult struct {
	Events []telemetry.Event `json:"events"`
	// Last is what to ask for next, as after.
	Last uint64 `json:"last"`
}

// events answers with the events after a number. With wait it waits so long for
// one if there is none.
func (s *Server) events(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	after, err := number(q, "after")
	if err != nil {
		s.fail(w, r, err)
		return
	}
	wait, err := wait(q)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	res := EventsResult{Events: []telemetry.Event{}, Last: after}
	if s.o.Events == nil {
		writeJSON(w, http.StatusOK, res)
		return
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		es, changed := s.o.Events.After(after)
		if n := len(es); n > 0 {
			res.Events, res.Last = es, es[n-1].Seq
		}
		if len(es) == 0 && wait > 0 {
			select {
			case <-changed:
				continue
			case <-timer.C:
			case <-r.Context().Done():
			}
		}
		writeJSON(w, http.StatusOK, res)
		return
	}
}

func wait(q url.Values) (time.Duration, error) {
	text := q.Get("wait")
	if text == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return 0, BadRequest("bad_request", fmt.Sprintf("wait is %q, not a length of time such as 10s", text), "")
	}
	return min(d, maxEventWait), nil
}

func number(q url.Values, key string) (uint64, error) {
	text := q.Get(key)
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, BadRequest("bad_request", fmt.Sprintf("%s is %q, not a number", key, text), "")
	}
	return n, nil
}

// logLine is one line of a log stream: an entry, or the error that ended it.
type logLine struct {
	Entry *LogEntry `json:"entry,omitempty"`
	Error *Error    `json:"error,omitempty"`
	// End marks the last line of a stream that is whole.
	End bool `json:"end,omitempty"`
}

// logDump streams entries, one JSON object a line. Its time is not limited; that
// of each write is.
func (s *Server) logDump(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	from, err := number(q, "from")
	if err != nil {
		s.fail(w, r, err)
		return
	}
	to, err := number(q, "to")
	if err != nil {
		s.fail(w, r, err)
		return
	}
	if to != 0 && from > to {
		s.fail(w, r, BadRequest("bad_range", fmt.Sprintf("from %d is after to %d", from, to), ""))
		return
	}
	rc := http.NewResponseController(w)
	enc := json.NewEncoder(w)
	begun := false
	line := func(l logLine) error {
		if !begun {
			begun = true
			w.Header().Set("Content-Type", "application/x-ndjson")
		}
		_ = rc.SetWriteDeadline(time.Now().Add(streamWrite)) // not there in tests without a connection
		return enc.Encode(l)
	}
	err = s.o.Node.LogDump(r.Context(), paxos.Instance(from), paxos.Instance(to), func(e LogEntry) error {
		return line(logLine{Entry: &e})
	})
	switch {
	case err == nil:
		_ = line(logLine{End: true})
	case begun:
		_ = line(logLine{Error: toError(err)})
	default:
		s.fail(w, r, err)
	}
}
