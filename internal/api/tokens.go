package api

import (
	"context"
	"net/http"
	"time"

	"github.com/phxsql/phxsql/internal/telemetry"
)

// TokenRequest asks for a token.
type TokenRequest struct {
	// Lifetime is how long it can be used; 0 is an hour.
	Lifetime Seconds `json:"lifetime_seconds"`
	// Role is what the machine shall be: voter, witness or learner; empty leaves it open.
	Role string `json:"role,omitempty"`
	// By is who asks, in their own words; for the list.
	By string `json:"by,omitempty"`
}

func (r *TokenRequest) check() error { return checkBy(r.By) }
func (r *TokenRequest) note() []any {
	return []any{telemetry.KeyState, r.Role, telemetry.KeyUser, r.By}
}

// TokenResult is a token. It is kept nowhere in this form.
type TokenResult struct {
	ID      string    `json:"id"`
	Token   string    `json:"token"`
	Role    string    `json:"role,omitempty"` // empty: any
	Expires time.Time `json:"expires"`
}

// The states of a token.
const (
	TokenValid   = "valid"
	TokenUsed    = "used"
	TokenExpired = "expired"
	TokenRevoked = "revoked"
)

// TokenInfo is what is known of a token. It cannot be used.
type TokenInfo struct {
	ID      string    `json:"id"`
	Role    string    `json:"role,omitempty"` // empty: any
	State   string    `json:"state"`          // see TokenValid
	Made    time.Time `json:"made"`
	By      string    `json:"by,omitempty"`
	Expires time.Time `json:"expires"`
	// Ended is when it was used or revoked.
	Ended *time.Time `json:"ended,omitempty"`
}

// TokenList are the tokens that are remembered, the oldest first: those that are valid,
// and for a week those that are not any more.
type TokenList struct {
	Tokens []TokenInfo `json:"tokens"`
}

// RevokeRequest makes a token void.
type RevokeRequest struct {
	ID string `json:"id"`
	// By is who asks, in their own words; for the history.
	By string `json:"by,omitempty"`
}

func (r *RevokeRequest) check() error {
	if r.ID == "" {
		return BadRequest("no_token", "no token is named", "phxsql token list shows them")
	}
	return checkBy(r.By)
}

func (r *RevokeRequest) note() []any {
	return []any{telemetry.KeyName, r.ID, telemetry.KeyUser, r.By}
}

// RedeemRequest exchanges a token.
type RedeemRequest struct {
	Token string `json:"token"`
}

// RedeemResult is what a node needs to take part.
type RedeemResult struct {
	Secret string `json:"secret"` // content of the cluster's secret file
}

const (
	tokensPath = "/v1/tokens"
	revokePath = "/v1/tokens/revoke"
	joinPath   = "/v1/join"
)

func (s *Server) tokenRoutes(member func(method, path string, h http.HandlerFunc)) {
	member("GET", tokensPath, func(w http.ResponseWriter, r *http.Request) {
		res, err := s.o.Node.Tokens(r.Context())
		s.answer(w, r, res, err)
	})
	member("POST", tokensPath, post(s, "token asked", tokenTimeout, s.o.Node.CreateToken))
	member("POST", revokePath, post(s, "token revocation asked", tokenTimeout, s.o.Node.RevokeToken))
}

// redeem is open to those who have no certificate yet: the token is what they prove.
func (s *Server) redeem(w http.ResponseWriter, r *http.Request) {
	if r.TLS == nil {
		s.fail(w, r, BadRequest("no_tls", "a token is never sent without TLS", ""))
		return
	}
	var req RedeemRequest
	if err := readJSON(w, r, &req); err != nil {
		s.fail(w, r, err)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), tokenTimeout)
	defer cancel()
	res, err := s.o.Node.Redeem(ctx, req.Token)
	if err != nil {
		s.log.Warn("token refused", telemetry.KeyClient, r.RemoteAddr, telemetry.KeyError, err, telemetry.KeyHint, HintOf(err))
	} else {
		s.log.Info("token accepted", telemetry.KeyClient, r.RemoteAddr)
	}
	s.answer(w, r, res, err)
}

// CreateToken asks for a token.
func (c *Client) CreateToken(ctx context.Context, req TokenRequest) (TokenResult, error) {
	var res TokenResult
	err := c.do(ctx, "POST", tokensPath, nil, req, &res)
	return res, err
}

// Redeem exchanges a token.
func (c *Client) Redeem(ctx context.Context, token string) (RedeemResult, error) {
	var res RedeemResult
	err := c.do(ctx, "POST", joinPath, nil, RedeemRequest{token}, &res)
	return res, err
}

// Tokens lists the tokens.
func (c *Client) Tokens(ctx context.Context) (TokenList, error) {
	var res TokenList
	err := c.do(ctx, "GET", tokensPath, nil, nil, &res)
	return res, err
}

// RevokeToken makes a token void.
func (c *Client) RevokeToken(ctx context.Context, req RevokeRequest) (TokenInfo, error) {
	var res TokenInfo
	err := c.do(ctx, "POST", revokePath, nil, req, &res)
	return res, err
}
