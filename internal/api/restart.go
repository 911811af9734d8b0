package api

import (
	"context"
	"net/http"

	"github.com/phxsql/phxsql/internal/telemetry"
)

// RestartRequest has a member restart.
type RestartRequest struct {
	Member string `json:"member"` // name or id
}

// RestartResult says that it will.
type RestartResult struct {
	Member string `json:"member"`
}

const restartPath = "/v1/members/restart"

func (s *Server) restartMember(w http.ResponseWriter, r *http.Request) {
	var req RestartRequest
	err := readJSON(w, r, &req)
	if err == nil {
		err = named(req.Member)
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	s.log.Info("member restart asked", telemetry.KeyClient, r.RemoteAddr, telemetry.KeyName, req.Member)
	ctx, cancel := context.WithTimeout(r.Context(), switchTimeout)
	defer cancel()
	err = s.o.Node.RestartMember(ctx, req.Member)
	s.answer(w, r, RestartResult(req), err)
}

// RestartMember has a member stop in good order and start again.
func (c *Client) RestartMember(ctx context.Context, who string) error {
	return c.do(ctx, "POST", restartPath, nil, RestartRequest{who}, &RestartResult{})
}
