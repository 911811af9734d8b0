package api

import (
	"context"

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

func (r *RotateRequest) check() error { return checkBy(r.By) }
func (r *RotateRequest) note() []any  { return []any{telemetry.KeyUser, r.By} }

// RotateAccounts asks for new passwords of the agents' accounts on all members.
func (c *Client) RotateAccounts(ctx context.Context, req RotateRequest) (RotateResult, error) {
	var res RotateResult
	err := c.do(ctx, "POST", rotatePath, nil, req, &res)
	return res, err
}
