package agent

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/phxsql/phxsql/internal/api"
	"github.com/phxsql/phxsql/internal/entry"
	"github.com/phxsql/phxsql/internal/identity"
	"github.com/phxsql/phxsql/internal/relay"
)

// nameOf is the name of a refusal, empty for nil.
func nameOf(t *testing.T, err error) string {
	t.Helper()
	var e *api.Error
	if err != nil && (!errors.As(err, &e) || e.Hint == "" || e.Status != 403) {
		t.Errorf("%v is no refusal with a hint", err)
		return err.Error()
	}
	if e == nil {
		return ""
	}
	return e.Name
}

// settingsOf applies changes to settings as the log does.
type settingsOf struct{ relay.Settings }

func (s *settingsOf) take(t *testing.T, c entry.Change, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Encode(); err != nil {
		t.Fatal(err)
	}
	if s.Values == nil {
		s.Values = map[string]relay.Setting{}
	}
	for key, v := range c.Set {
		s.Values[key] = relay.Setting{Value: v}
	}
	for _, key := range c.Unset {
		delete(s.Values, key)
	}
}

func (s *settingsOf) add(t *testing.T, secret, role string, now time.Time) string {
	t.Helper()
	r := tokenRecord{Hash: hashToken(secret), Role: role, Made: now, Expires: now.Add(time.Hour)}
	c, err := addToken(&s.Settings, r, now)
	s.take(t, c, err)
	return tokenID(r.Hash)
}

// use returns the name of the refusal.
func (s *settingsOf) use(t *testing.T, secret string, now time.Time) string {
	t.Helper()
	c, err := useToken(&s.Settings, secret, now)
	if err != nil {
		return nameOf(t, err)
	}
	s.take(t, c, nil)
	return ""
}

// A token is used once, within its time, unless it is revoked; who comes later or again
// is told why it is refused.
func TestTokenIsUsedOnce(t *testing.T) {
	now := time.Now()
	var s settingsOf
	s.add(t, "one", "voter", now)
	s.add(t, "late", "voter", now)
	revoked := s.add(t, "revoked", "voter", now)
	_, c, err := revokeToken(&s.Settings, api.RevokeRequest{ID: revoked}, now)
	s.take(t, c, err)
	for _, c := range []struct {
		after        time.Duration
		secret, want string
	}{
		{0, "other", "unknown_token"}, {0, "revoked", "token_revoked"}, {0, "one", ""}, {0, "one", "token_used"}, {time.Hour, "late", "token_expired"},
		{0, "late", "token_expired"}, {rememberToken, "one", "token_used"}, {0, "revoked", "token_revoked"},
	} {
		now = now.Add(c.after)
		if got := s.use(t, c.secret, now); got != c.want {
			t.Errorf("token %q after another %v: %q, want %q", c.secret, c.after, got, c.want)
		}
	}
	if s.add(t, "new", "voter", now.Add(time.Second)); len(tokensOf(&s.Settings)) != 1 {
		t.Errorf("what ended more than a week ago is remembered: %+v", s.Values)
	}
	if got := s.use(t, "one", now); got != "unknown_token" {
		t.Errorf("one that is forgotten: %q", got)
	}
}

// What is spent is remembered within bounds, and takes no room from valid ones.
func TestTokensHaveLimits(t *testing.T) {
	var s settingsOf
	now := time.Now()
	for i := range maxSpent + 10 {
		made := now.Add(time.Duration(i) * time.Millisecond)
		s.add(t, fmt.Sprint(i), "voter", made)
		if got := s.use(t, fmt.Sprint(i), made); got != "" {
			t.Fatal(got)
		}
	}
	later := now.Add(time.Minute)
	for i := range maxTokens {
		s.add(t, fmt.Sprint("v", i), "voter", later)
	}
	if _, err := addToken(&s.Settings, tokenRecord{Hash: hashToken("more")}, later); refusedBy(err).Name != "too_many_tokens" {
		t.Errorf("there are more valid tokens than the limit: %v", err)
	}
	if n := len(tokensOf(&s.Settings)); n > maxSpent+maxTokens {
		t.Errorf("%d tokens are remembered", n)
	}
	if got := s.use(t, "0", later); got != "unknown_token" {
		t.Errorf("the oldest spent one: %q", got)
	}
	if got := s.use(t, fmt.Sprint(maxSpent+9), later); got != "token_used" {
		t.Errorf("the newest spent one: %q", got)
	}
}

// The list tells everything of a token but what it takes to use it. Only one that can be
// used is worth revoking.
func TestTokensAreListedAndRevoked(t *testing.T) {
	var s settingsOf
	now := time.Now().UTC()
	id := s.add(t, "secret-one", "witness", now)
	s.add(t, "secret-two", "voter", now.Add(time.Second))
	s.Values["token.x"] = relay.Setting{Value: "of a newer release"}
	s.Values["log.keep"] = relay.Setting{Value: "1MiB"}
	list := tokensOf(&s.Settings)
	if len(list) != 2 {
		t.Fatalf("%d tokens", len(list))
	}
	b, err := json.Marshal([]api.TokenInfo{list[0].info(now), list[1].info(now)})
	if err != nil || strings.Contains(string(b), "secret") || strings.Contains(string(b), list[0].Hash) {
		t.Errorf("told: %s %v", b, err)
	}
	if in := list[0].info(now); in.ID != id || in.Role != "witness" || in.State != api.TokenValid || !in.Expires.Equal(now.Add(time.Hour)) || in.Ended != nil {
		t.Errorf("told: %+v", in)
	}
	s.use(t, "secret-two", now.Add(time.Minute))
	if in := tokensOf(&s.Settings)[1].info(now); in.State != api.TokenUsed || in.Ended == nil {
		t.Errorf("told of a used one: %+v", in)
	}
	for _, c := range []struct{ id, want, state string }{
		{"nobody", "unknown_token", ""}, {tokenID(hashToken("secret-two")), "token_used", ""}, {id, "", api.TokenRevoked}, {id, "", api.TokenRevoked},
	} {
		r, change, err := revokeToken(&s.Settings, api.RevokeRequest{ID: c.id, By: "ann"}, now)
		if got := refusedBy(err).Name; got != c.want {
			t.Errorf("revoke %q: %v, want %q", c.id, err, c.want)
		}
		if s.take(t, change, nil); c.state != "" && r.state(now) != c.state {
			t.Errorf("revoke %q: it is %s", c.id, r.state(now))
		}
	}
	if got := s.use(t, "secret-one", now); got != "token_revoked" {
		t.Errorf("a revoked token: %q", got)
	}
}

// A token of another cluster is refused by name, and not looked up.
func TestATokenOfAnotherClusterIsRefused(t *testing.T) {
	secret, err := identity.NewSecret([]byte(strings.Repeat("x", identity.MinSecret)))
	if err != nil {
		t.Fatal(err)
	}
	a := &Agent{secret: secret}
	other := identity.Token{Maker: 1, Secret: "s", Authority: make(ed25519.PublicKey, ed25519.PublicKeySize)}
	if got := nameOf(t, a.judgeToken(other)); got != "other_cluster" {
		t.Errorf("another cluster's: %q", got)
	}
	if got := nameOf(t, a.judgeToken(identity.Token{Maker: 1, Secret: "s", Authority: secret.AuthorityKey()})); got != "" {
		t.Errorf("its own: %q", got)
	}
}
