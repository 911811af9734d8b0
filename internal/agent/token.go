package agent

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/phxsql/phxsql/internal/api"
	"github.com/phxsql/phxsql/internal/entry"
	"github.com/phxsql/phxsql/internal/identity"
	"github.com/phxsql/phxsql/internal/relay"
	"github.com/phxsql/phxsql/internal/telemetry"
	"github.com/phxsql/phxsql/paxos"
)

// Join tokens stand in the log, as settings that no file can have: all members know the
// same ones, any of them shows and revokes them, and that one is used is chosen before
// its price is paid. What is kept recognises a token; nobody can use it.

// The limits of join tokens.
const (
	tokenLifetime = time.Hour
	maxLifetime   = 7 * 24 * time.Hour
	maxTokens     = 100 // that are valid at a time; more are refused
	// rememberToken is how long after its end a token is remembered, to say why it is
	// refused; maxSpent is how many of those that are used, revoked, or over: the newest.
	rememberToken = 7 * 24 * time.Hour
	maxSpent      = 100
)

// The calls to the leader about tokens.
const (
	callAddToken    = "token_add"    // addTokenRequest -> tokenRecord
	callRevokeToken = "token_revoke" // api.RevokeRequest -> api.TokenInfo
	callRedeem      = "redeem"       // api.RedeemRequest -> api.RedeemResult
)

type addTokenRequest struct {
	Hash     string      `json:"hash"`
	Role     string      `json:"role"`
	Lifetime api.Seconds `json:"lifetime_seconds"`
	By       string      `json:"by,omitempty"`
}

// tokenKey is in front of the id of a token in the settings. The value is a tokenRecord.
const tokenKey = "token."

// tokenRecord is what is kept of a token: enough to recognise it, and nothing that could
// be used.
type tokenRecord struct {
	Hash    string    `json:"hash"`           // SHA-256 of the token's secret; the first characters are its id
	Role    string    `json:"role,omitempty"` // that it was made for; empty: any
	Made    time.Time `json:"made"`
	By      string    `json:"by,omitempty"`
	Expires time.Time `json:"expires"`
	Used    time.Time `json:"used,omitzero"`
	Revoked time.Time `json:"revoked,omitzero"`
}

// tokenID is what people call a token by.
func tokenID(hash string) string { return hash[:min(8, len(hash))] }

func hashToken(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

// state is used, revoked, expired, or valid: it can still be used.
func (r tokenRecord) state(now time.Time) string {
	switch {
	case !r.Used.IsZero():
		return api.TokenUsed
	case !r.Revoked.IsZero():
		return api.TokenRevoked
	case !now.Before(r.Expires):
		return api.TokenExpired
	}
	return api.TokenValid
}

// refusal says why the token cannot be used, nil if it can.
func (r tokenRecord) refusal(now time.Time) error {
	again := "make a new one: phxsql token create"
	switch r.state(now) {
	case api.TokenUsed:
		return refusedToken("token_used", "it was used at "+r.Used.UTC().Format(time.RFC3339),
			"a token lets one machine in, once; if that was not you, somebody else has the cluster's secret. For another machine: phxsql token create")
	case api.TokenRevoked:
		return refusedToken("token_revoked", "it was revoked at "+r.Revoked.UTC().Format(time.RFC3339), again)
	case api.TokenExpired:
		return refusedToken("token_expired", "it has expired at "+r.Expires.UTC().Format(time.RFC3339), again)
	}
	return nil
}

// info is what people are told of it.
func (r tokenRecord) info(now time.Time) api.TokenInfo {
	t := api.TokenInfo{ID: tokenID(r.Hash), Role: r.Role, State: r.state(now), Made: r.Made.UTC(), By: r.By, Expires: r.Expires.UTC()}
	switch t.State {
	case api.TokenUsed:
		t.Ended = &r.Used
	case api.TokenRevoked:
		t.Ended = &r.Revoked
	}
	return t
}

// set is the change that writes the record down.
func (r tokenRecord) set(c entry.Change) (entry.Change, error) {
	b, err := json.Marshal(r)
	if err != nil {
		return c, fmt.Errorf("encode token: %w", err)
	}
	c.Set = map[string]string{tokenKey + tokenID(r.Hash): string(b)}
	return c, nil
}

// tokensOf are the tokens in the settings, the oldest first. What a newer release has
// written in another way is passed over.
func tokensOf(s *relay.Settings) []tokenRecord {
	var list []tokenRecord
	for key, v := range s.Values {
		var r tokenRecord
		if strings.HasPrefix(key, tokenKey) && json.Unmarshal([]byte(v.Value), &r) == nil && key == tokenKey+tokenID(r.Hash) {
			list = append(list, r)
		}
	}
	slices.SortFunc(list, func(x, y tokenRecord) int { return cmp.Or(x.Made.Compare(y.Made), cmp.Compare(x.Hash, y.Hash)) })
	return list
}

// addToken is the change that adds a token, and forgets those that need not be remembered.
func addToken(s *relay.Settings, r tokenRecord, now time.Time) (entry.Change, error) {
	c := entry.Change{By: r.By}
	list := tokensOf(s)
	spent := 0
	for _, t := range list {
		if t.state(now) != api.TokenValid {
			spent++
		}
	}
	if valid := len(list) - spent; valid >= maxTokens {
		return c, api.Refused("too_many_tokens", fmt.Sprintf("%d tokens are valid", valid), "revoke some, or wait until they have expired: phxsql token list")
	}
	for _, t := range list {
		if t.state(now) == api.TokenValid {
			continue
		}
		if spent >= maxSpent || now.After(t.Expires.Add(rememberToken)) {
			c.Unset = append(c.Unset, tokenKey+tokenID(t.Hash))
			spent--
		}
	}
	if _, taken := s.Values[tokenKey+tokenID(r.Hash)]; taken {
		return c, api.Unavailable("token_id_taken", "there is a token with this id", "ask again")
	}
	return r.set(c)
}

// useToken is the change that spends a token. A refusal says why it cannot be used.
func useToken(s *relay.Settings, secret string, now time.Time) (entry.Change, error) {
	want := hashToken(secret)
	for _, r := range tokensOf(s) {
		if subtle.ConstantTimeCompare([]byte(r.Hash), []byte(want)) != 1 {
			continue
		}
		if err := r.refusal(now); err != nil {
			return entry.Change{}, err
		}
		r.Used = now
		return r.set(entry.Change{})
	}
	return entry.Change{}, unknownToken()
}

// revokeToken is the change that makes a token void, none if it cannot be used anyway.
func revokeToken(s *relay.Settings, req api.RevokeRequest, now time.Time) (tokenRecord, entry.Change, error) {
	list := tokensOf(s)
	k := slices.IndexFunc(list, func(r tokenRecord) bool { return tokenID(r.Hash) == req.ID })
	if k < 0 {
		return tokenRecord{}, entry.Change{}, api.NotFound("unknown_token", fmt.Sprintf("there is no token %q", req.ID), "phxsql token list shows them")
	}
	r := list[k]
	switch r.state(now) {
	case api.TokenUsed:
		return r, entry.Change{}, api.Refused("token_used", "it was used at "+r.Used.UTC().Format(time.RFC3339)+": there is nothing to revoke",
			"who used it has the cluster's secret; if it should not, see 'Somebody knows the secret' in docs/operating/settings.md")
	case api.TokenValid:
		r.Revoked = now
		c, err := r.set(entry.Change{By: req.By})
		return r, c, err
	}
	return r, entry.Change{}, nil
}

// tokenHistory says what a change did to a token, for people.
func tokenHistory(value string) string {
	var r tokenRecord
	if json.Unmarshal([]byte(value), &r) != nil {
		return "changed"
	}
	switch {
	case !r.Used.IsZero():
		return "used"
	case !r.Revoked.IsZero():
		return "revoked"
	}
	if r.Role == "" {
		return "made"
	}
	return "made for a " + r.Role
}

// refusedToken says why a token does not let anybody in.
func refusedToken(name, reason, hint string) *api.Error {
	return &api.Error{Status: 403, Problem: api.Problem{Name: name, Reason: "the token is refused: " + reason, Hint: hint}}
}

func unknownToken() *api.Error {
	return refusedToken("unknown_token", "nobody remembers it: it ended more than a week ago, or was made by another release",
		"make a new one: phxsql token create")
}

// CreateToken makes a token with which one node may join, once; it may be asked of any
// member. The secret in it is drawn here and goes nowhere else.
func (a *Agent) CreateToken(ctx context.Context, req api.TokenRequest) (api.TokenResult, error) {
	life, role := cmp.Or(time.Duration(req.Lifetime), tokenLifetime), req.Role
	switch {
	case life < time.Second || life > maxLifetime:
		return api.TokenResult{}, api.BadRequest("bad_lifetime", fmt.Sprintf("a token cannot live for %v", life), "give a time between a second and seven days")
	case role != "" && roleOf(role) == 0:
		return api.TokenResult{}, api.BadRequest("bad_role", fmt.Sprintf("%q is not a role", role), "use voter, witness or learner")
	}
	secret := rand.Text()
	var r tokenRecord
	if err := a.callLeader(ctx, callAddToken, addTokenRequest{hashToken(secret), role, api.Seconds(life), req.By}, &r); err != nil {
		return api.TokenResult{}, err
	}
	t := identity.Token{Maker: uint64(a.cfg.Node.ID), Secret: secret, Authority: a.secret.AuthorityKey(), Role: role}
	return api.TokenResult{ID: tokenID(r.Hash), Token: t.String(), Role: role, Expires: r.Expires.UTC()}, nil
}

func (a *Agent) onAddToken(ctx context.Context, _ paxos.NodeID, req addTokenRequest) (tokenRecord, error) {
	now := time.Now().UTC().Truncate(time.Second)
	r := tokenRecord{Hash: req.Hash, Role: req.Role, Made: now, By: req.By, Expires: now.Add(time.Duration(req.Lifetime))}
	_, err := a.changeSettings(ctx, func(s *relay.Settings) (entry.Change, error) { return addToken(s, r, now) })
	return r, err
}

// Tokens returns the tokens that this node knows of, the oldest first.
func (a *Agent) Tokens(context.Context) (api.TokenList, error) {
	s, _ := a.journal.Settings()
	res := api.TokenList{Tokens: []api.TokenInfo{}}
	now := time.Now()
	for _, r := range tokensOf(s) {
		res.Tokens = append(res.Tokens, r.info(now))
	}
	return res, nil
}

// RevokeToken makes a token void; it may be asked of any member.
func (a *Agent) RevokeToken(ctx context.Context, req api.RevokeRequest) (api.TokenInfo, error) {
	var res api.TokenInfo
	return res, a.callLeader(ctx, callRevokeToken, req, &res)
}

func (a *Agent) onRevokeToken(ctx context.Context, _ paxos.NodeID, req api.RevokeRequest) (api.TokenInfo, error) {
	now := time.Now().UTC().Truncate(time.Second)
	var r tokenRecord
	_, err := a.changeSettings(ctx, func(s *relay.Settings) (c entry.Change, err error) {
		r, c, err = revokeToken(s, req, now)
		return c, err
	})
	return r.info(now), err
}

// Redeem exchanges a token for the cluster's secret; it may be asked of any member.
func (a *Agent) Redeem(ctx context.Context, text string) (api.RedeemResult, error) {
	var res api.RedeemResult
	t, err := identity.ParseToken(text)
	if err != nil {
		return res, api.BadRequest("bad_token", err.Error(), "copy all of what 'phxsql token create' prints")
	}
	if err := a.judgeToken(t); err != nil {
		return res, err
	}
	return res, a.callLeader(ctx, callRedeem, api.RedeemRequest{Token: text}, &res)
}

// judgeToken refuses a token of another cluster.
func (a *Agent) judgeToken(t identity.Token) error {
	if t.Authority.Equal(a.secret.AuthorityKey()) {
		return nil
	}
	return refusedToken("other_cluster", "it is of another cluster", "compare --seed with where the token was made")
}

func (a *Agent) onRedeem(ctx context.Context, _ paxos.NodeID, req api.RedeemRequest) (api.RedeemResult, error) {
	t, err := identity.ParseToken(req.Token)
	if err != nil {
		return api.RedeemResult{}, unknownToken()
	}
	b, err := os.ReadFile(a.cfg.Cluster.SecretFile)
	if err != nil {
		return api.RedeemResult{}, fmt.Errorf("read the cluster's secret: %w", err)
	}
	now := time.Now().UTC().Truncate(time.Second)
	if _, err := a.changeSettings(ctx, func(s *relay.Settings) (entry.Change, error) { return useToken(s, t.Secret, now) }); err != nil {
		return api.RedeemResult{}, err
	}
	a.log.Info("token used", telemetry.KeyCluster, a.clusterID(), telemetry.KeyName, tokenID(hashToken(t.Secret)))
	return api.RedeemResult{Secret: string(b)}, nil
}
