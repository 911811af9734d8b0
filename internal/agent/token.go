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
	// rememberToken is how long after its end a token is remembered, to say why it is
	// refused; maxSpent is how many of those that are used or over, the newest.
	rememberToken = 7 * 24 * time.Hour
	maxSpent      = 1000
)

// callRedeem passes a token on to the node that made it.
const callRedeem = "redeem" // api.RedeemRequest

const tokenFileName = "tokens.json"

// tokenEntry is what a node keeps of a token that it made: enough to recognise it, and
// nothing that could be used.
type tokenEntry struct {
	Hash    string    `json:"hash"` // SHA-256 of the token's secret
	Expires time.Time `json:"expires"`
	Used    time.Time `json:"used,omitzero"`
}

// valid reports whether the token can still be used.
func (e tokenEntry) valid(now time.Time) bool { return e.Used.IsZero() && now.Before(e.Expires) }

// tokens are those that this node has made. That one is used is on the disk before its
// price is paid.
type tokens struct {
	mu   sync.Mutex
	path string
	now  func() time.Time
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
	return t.remembered(list), nil
}

// remembered drops what need not be remembered any more. The oldest are in front.
func (t *tokens) remembered(list []tokenEntry) []tokenEntry {
	now, spent := t.now(), 0
	for _, e := range list {
		if !e.valid(now) {
			spent++
		}
	}
	return slices.DeleteFunc(list, func(e tokenEntry) bool {
		if e.valid(now) {
			return false
		}
		spent--
		return spent >= maxSpent || now.After(e.Expires.Add(rememberToken))
	})
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
	valid := 0
	for _, e := range list {
		if e.valid(t.now()) {
			valid++
		}
	}
	if valid >= maxTokens {
		return api.Refused("too_many_tokens", fmt.Sprintf("%d tokens are valid", valid), "wait until some have expired")
	}
	return t.write(append(list, tokenEntry{Hash: hashToken(secret), Expires: expires}))
}

// use spends a token. A refusal says why it cannot be used.
func (t *tokens) use(secret string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	list, err := t.read()
	if err != nil {
		return err
	}
	want := []byte(hashToken(secret))
	k := slices.IndexFunc(list, func(e tokenEntry) bool { return subtle.ConstantTimeCompare([]byte(e.Hash), want) == 1 })
	now := t.now()
	switch {
	case k < 0:
		return unknownToken()
	case !list[k].Used.IsZero():
		return refusedToken("token_used", "it was used at "+list[k].Used.UTC().Format(time.RFC3339),
			"a token lets one machine in, once; if that was not you, somebody else has the cluster's secret. For another machine: phxsql token create")
	case !list[k].valid(now):
		return refusedToken("token_expired", "it has expired at "+list[k].Expires.UTC().Format(time.RFC3339), "make a new one: phxsql token create")
	}
	list[k].Used = now
	return t.write(list)
}

// refusedToken says why a token does not let anybody in.
func refusedToken(name, reason, hint string) *api.Error {
	return &api.Error{Status: 403, Problem: api.Problem{Name: name, Reason: "the token is refused: " + reason, Hint: hint}}
}

func unknownToken() *api.Error {
	return refusedToken("unknown_token", "the node that it names knows nothing of it: it ended more than a week ago, or that node's data directory is another one now",
		"make a new one: phxsql token create")
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
	secret, expires := rand.Text(), a.tokens.now().Add(life)
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
	if err := a.judgeToken(t); err != nil {
		return res, err
	}
	maker := paxos.NodeID(t.Maker)
	if _, ok := a.group.Leader().Members.Find(maker); !ok {
		return res, refusedToken("token_maker_gone", fmt.Sprintf("node %d, which made it, is no member any more", maker), "make a new one on a member: phxsql token create")
	}
	err = a.call(ctx, maker, callRedeem, api.RedeemRequest{Token: text}, &res)
	var named *api.Error
	if err != nil && !errors.As(err, &named) {
		err = api.Unavailable("token_maker_down", fmt.Sprintf("node %d, which made the token, does not answer", maker),
			"wait until it is up, or make a token on another member: phxsql token create").Because(err)
	}
	return res, err
}

// judgeToken refuses a token of another cluster.
func (a *Agent) judgeToken(t identity.Token) error {
	if t.Authority.Equal(a.secret.AuthorityKey()) {
		return nil
	}
	return refusedToken("other_cluster", "it is of another cluster", "compare --seed with where the token was made")
}

func (a *Agent) onRedeem(_ context.Context, _ paxos.NodeID, req api.RedeemRequest) (api.RedeemResult, error) {
	t, err := identity.ParseToken(req.Token)
	if err != nil {
		return api.RedeemResult{}, unknownToken()
	}
	if err := a.tokens.use(t.Secret); err != nil {
		return api.RedeemResult{}, err
	}
	b, err := os.ReadFile(a.cfg.Cluster.SecretFile)
	if err != nil {
		return api.RedeemResult{}, fmt.Errorf("read the cluster's secret: %w", err)
	}
	a.log.Info("token used", telemetry.KeyCluster, a.clusterID())
	return api.RedeemResult{Secret: string(b)}, nil
}

func newTokens(dir string) *tokens {
	return &tokens{path: filepath.Join(dir, tokenFileName), now: time.Now}
}
