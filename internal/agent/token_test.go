package agent

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/phxsql/phxsql/internal/api"
	"github.com/phxsql/phxsql/internal/identity"
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

// A token is used once, within its time, also over restarts of the node; who comes
// later or again is told why it is refused.
func TestTokenIsUsedOnce(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	open := func() *tokens { // as after a restart
		ts := newTokens(dir)
		ts.now = func() time.Time { return now }
		return ts
	}
	for _, secret := range []string{"one", "late"} {
		if err := open().add(secret, now.Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		after        time.Duration
		secret, want string
	}{
		{0, "other", "unknown_token"}, {0, "one", ""}, {0, "one", "token_used"}, {time.Hour, "late", "token_expired"}, {0, "late", "token_expired"},
		{rememberToken, "one", "token_used"}, {time.Second, "one", "unknown_token"}, {0, "late", "unknown_token"},
	} {
		now = now.Add(c.after)
		if got := nameOf(t, open().use(c.secret)); got != c.want {
			t.Errorf("token %q after another %v: %q, want %q", c.secret, c.after, got, c.want)
		}
	}
}

// What is spent is remembered within bounds, and takes no room from valid ones.
func TestTokensHaveLimits(t *testing.T) {
	ts := newTokens(t.TempDir())
	now := time.Now()
	var list []tokenEntry
	for i := range maxSpent + 10 {
		list = append(list, tokenEntry{Hash: hashToken(fmt.Sprint(i)), Expires: now.Add(time.Hour), Used: now})
	}
	for i := range maxTokens - 1 {
		list = append(list, tokenEntry{Hash: hashToken(fmt.Sprint("v", i)), Expires: now.Add(time.Hour)})
	}
	if err := ts.write(list); err != nil {
		t.Fatal(err)
	}
	if err := ts.add("last", now.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := ts.add("more", now.Add(time.Hour)); err == nil {
		t.Error("there are more valid tokens than the limit")
	}
	left, err := ts.read()
	if err != nil || len(left) != maxSpent+maxTokens {
		t.Errorf("%d tokens are remembered, %v", len(left), err)
	}
	if got := nameOf(t, ts.use("0")); got != "unknown_token" {
		t.Errorf("the oldest spent one: %q", got)
	}
	if got := nameOf(t, ts.use(fmt.Sprint(maxSpent+9))); got != "token_used" {
		t.Errorf("the newest spent one: %q", got)
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
