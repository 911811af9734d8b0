package api

import (
	"context"
	"net/http"
	"net/url"
	"strconv"

	"github.com/phxsql/phxsql/internal/events"
)

// Historian is a node that knows what happened to the cluster.
type Historian interface {
	// Why returns the newest n events that the node knows, oldest first; 0 is all.
	Why(ctx context.Context, n int) ([]events.Event, error)
}

// WhyResult is what happened and why.
type WhyResult struct {
	// Accounts are those of each change of the master, oldest first.
	Accounts []events.Account `json:"accounts"`
	// Events are all events that the node knows, oldest first; those that the log does
	// not say yet have no instance and come last.
	Events []events.Event `json:"events"`
	// Beside are those that belong to no change of the master.
	Beside []events.Event `json:"beside"`
}

func (s *Server) why(w http.ResponseWriter, r *http.Request) {
	h, ok := s.o.Node.(Historian)
	if !ok {
		s.fail(w, r, NotFound("no_history", "this node keeps no history", ""))
		return
	}
	n, err := number(r.URL.Query(), "last")
	if err != nil {
		s.fail(w, r, err)
		return
	}
	list, err := h.Why(r.Context(), int(min(n, events.Keep*2)))
	res := WhyResult{Events: list}
	res.Accounts, res.Beside = events.Accounts(list)
	s.answer(w, r, res, err)
}

// Why asks for what happened and why, by the newest n events; 0 is all.
func (c *Client) Why(ctx context.Context, n int) (WhyResult, error) {
	var res WhyResult
	err := c.do(ctx, "GET", "/v1/why", url.Values{"last": {strconv.Itoa(n)}}, nil, &res)
	return res, err
}
