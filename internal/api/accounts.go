package api

import (
	"context"
	"net/http"

	"github.com/phxsql/phxsql/internal/telemetry"
	"github.com/phxsql/phxsql/paxos"
)

// RotateRequest asks for new passwords of the agents' accounts on all members.
type RotateRequest struct {
	// By is who asks, in their own words; for the history.
	By string `json:"by,omitempty"`
}

// RotateResult tells how far it has come.
type RotateResult struct {
	At   paxos.Instance `json:"at"` // where it stands in the log
	Done []paxos.NodeID `json:"done"`
	// Waiting are members that have not done it yet. They do when they are up.
	Waiting []paxos.NodeID `json:"waiting"`
}

const rotatePath = "/v1/accounts/rotate"

func (s *Server) rotateAccounts(w http.ResponseWriter, r *http.Request) {
	var req RotateRequest
	err := readJSON(w, r, &req)
	if err == nil && len(req.By) > maxBy {
		err = BadRequest("bad_by", "the name of who asks is too long", "")
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	s.log.Info("rotation of accounts asked", telemetry.KeyClient, r.RemoteAddr, telemetry.KeyUser, req.By)
	ctx, cancel := context.WithTimeout(r.Context(), switchTimeout)
	defer cancel()
	res, err := s.o.Node.RotateAccounts(ctx, req)
	s.answer(w, r, res, err)
}

// RotateAccounts asks for new passwords of the agents' accounts on all members.
func (c *Client) RotateAccounts(ctx context.Context, req RotateRequest) (RotateResult, error) {
	var res RotateResult
	err := c.do(ctx, "POST", rotatePath, nil, req, &res)
	return res, err
}
