package agent

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/phxsql/phxsql/internal/api"
	"github.com/phxsql/phxsql/internal/identity"
	"github.com/phxsql/phxsql/internal/telemetry"
	"github.com/phxsql/phxsql/paxos"
)

// The limits of join tokens.
const (
	tokenLifetime = time.Hour
	maxLifetime   = 7 * 24 * time.Hour
	maxTokens     = 1000 // that are valid at a time; more are refused
)

// callRedeem passes a token on to the node that made it.
const callRedeem = "redeem" // api.RedeemRequest

const tokenFileName = "tokens.json"

// tokenEntry is what a node keeps of a token that it made: enough to recognise it, and
// nothing that could be used.
type tokenEntry struct {
	Hash    string    `json:"hash"` // SHA-256 of the token's secret
	Expires time.Time `json:"expires"`
}

// tokens are the valid tokens of this node. One that is used is gone from the disk
// before its price is paid.
type tokens struct {
	mu   sync.Mutex
	path string
}

func (t *tokens) read() ([]tokenEntry, error) {
	b, err := os.ReadFile(t.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read tokens: %w", err)
	}
	var list []tokenEntry
	if err := json.Unmarshal(b, &list); err != nil {
		return nil, fmt.Errorf("read tokens: %w", err)
	}
	now := time.Now()
	return slices.DeleteFunc(list, func(e tokenEntry) bool { return !now.Before(e.Expires) }), nil
}

func (t *tokens) write(list []tokenEntry) error {
	b, err := json.Marshal(list)
	if err != nil {
		return fmt.Errorf("encode tokens: %w", err)
	}
	if err := writeSynced(t.path, b); err != nil {
		return fmt.Errorf("write tokens: %w", err)
	}
	return nil
}

func hashToken(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

func (t *tokens) add(secret string, expires time.Time) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	list, err := t.read()
	if err != nil {
		return err
	}
	if len(list) >= maxTokens {
		return api.Refused("too_many_tokens", fmt.Sprintf("%d tokens are valid", len(list)), "wait until some have expired")
	}
	return t.write(append(list, tokenEntry{hashToken(secret), expires}))
}

// use takes a token away and reports whether it was there.
func (t *tokens) use(secret string) (bool, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	list, err := t.read()
	if err != nil {
		return false, err
	}
	want := []byte(hashToken(secret))
	k := slices.IndexFunc(list, func(e tokenEntry) bool { return subtle.ConstantTimeCompare([]byte(e.Hash), want) == 1 })
	if k < 0 {
		return false, nil
	}
	return true, t.write(slices.Delete(list, k, k+1))
}

// CreateToken makes a token with which one node may join, once. The node that makes it
// must be up when it is used.
func (a *Agent) CreateToken(_ context.Context, req api.TokenRequest) (api.TokenResult, error) {
	life := time.Duration(req.Lifetime)
	if life == 0 {
		life = tokenLifetime
	}
	if life < time.Second || life > maxLifetime {
		return api.TokenResult{}, api.BadRequest("bad_lifetime", fmt.Sprintf("a token cannot live for %v", life), "give a time between a second and seven days")
	}
	if a.group.Leader().Members.Blank() {
		return api.TokenResult{}, api.Refused("blank", "this node belongs to no cluster", "ask a member")
	}
	secret, expires := rand.Text(), time.Now().Add(life)
	if err := a.tokens.add(secret, expires); err != nil {
		return api.TokenResult{}, err
	}
	t := identity.Token{Maker: uint64(a.cfg.Node.ID), Secret: secret, Authority: a.secret.AuthorityKey()}
	return api.TokenResult{Token: t.String(), Expires: expires.UTC()}, nil
}

// Redeem exchanges a token for the cluster's secret.
func (a *Agent) Redeem(ctx context.Context, text string) (api.RedeemResult, error) {
	var res api.RedeemResult
	t, err := identity.ParseToken(text)
	if err != nil {
		return res, api.BadRequest("bad_token", err.Error(), "copy all of what 'phxsql token create' prints")
	}
	maker := paxos.NodeID(t.Maker)
	if maker == a.cfg.Node.ID {
		return a.onRedeem(ctx, maker, api.RedeemRequest{Token: text})
	}
	if _, ok := a.group.Leader().Members.Find(maker); !ok {
		return res, badToken()
	}
	return res, a.call(ctx, maker, callRedeem, api.RedeemRequest{Token: text}, &res)
}

func badToken() *api.Error {
	return &api.Error{Status: 403, Problem: api.Problem{Name: "bad_token", Reason: "the token is not known here: it has expired, was used, or is that of another cluster",
		Hint: "make a new one: phxsql token create"}}
}

func (a *Agent) onRedeem(_ context.Context, _ paxos.NodeID, req api.RedeemRequest) (api.RedeemResult, error) {
	t, err := identity.ParseToken(req.Token)
	if err != nil {
		return api.RedeemResult{}, badToken()
	}
	ok, err := a.tokens.use(t.Secret)
	if err != nil {
		return api.RedeemResult{}, err
	}
	if !ok {
		return api.RedeemResult{}, badToken()
	}
	b, err := os.ReadFile(a.cfg.Cluster.SecretFile)
	if err != nil {
		return api.RedeemResult{}, fmt.Errorf("read the cluster's secret: %w", err)
	}
	a.log.Info("token used", telemetry.KeyCluster, a.clusterID())
	return api.RedeemResult{Secret: string(b)}, nil
}

func newTokens(dir string) *tokens { return &tokens{path: filepath.Join(dir, tokenFileName)} }
