package api

import (
	"context"

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

func (r *RestartRequest) check() error { return named(r.Member) }
func (r *RestartRequest) note() []any  { return []any{telemetry.KeyName, r.Member} }

// RestartMember has a member stop in good order and start again.
func (c *Client) RestartMember(ctx context.Context, who string) error {
	return c.do(ctx, "POST", restartPath, nil, RestartRequest{who}, &RestartResult{})
}
