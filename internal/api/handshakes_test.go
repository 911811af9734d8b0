package api

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/phxsql/phxsql/internal/identity"
)

// lockedBuffer is a buffer for several goroutines.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// A token that is shown to a node of another cluster is refused by who holds it, with
// a hint, and the node says so as well; once, however often it is tried.
func TestStrangersAreToldOf(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var out lockedBuffer
	cred := credentials(t, "a", 1)
	s := NewServer(ServerOptions{Node: &fakeNode{}, Logger: slog.New(slog.NewTextHandler(&out, nil)), TLS: func() *tls.Config { return ServerTLS(cred) }})
	done := make(chan error, 1)
	go func() { done <- s.Serve(t.Context(), l) }()
	t.Cleanup(func() { <-done })

	other, err := identity.NewSecret([]byte(strings.Repeat("b", 40)))
	if err != nil {
		t.Fatal(err)
	}
	token := identity.Token{Maker: 1, Secret: "s", Authority: other.AuthorityKey()}
	for range 3 {
		_, err = NewClient([]string{l.Addr().String()}, token.ClientConfig()).Redeem(t.Context(), token.String())
		if e := toError(err); e.Name != "other_cluster" || !strings.Contains(e.Reason, "token's cluster") || !strings.Contains(e.Hint, "--seed") {
			t.Errorf("the holder is told %+v", e.Problem)
		}
	}
	limit := time.After(30 * time.Second)
	for !strings.Contains(out.String(), "another cluster's secret or token") {
		select {
		case <-limit:
			t.Fatalf("the node says nothing: %s", out.String())
		case <-time.After(time.Millisecond):
		}
	}
	if n := strings.Count(out.String(), "connection refused"); n != 1 {
		t.Errorf("the node says it %d times:\n%s", n, out.String())
	}
}

func TestHandshakesAreToldApart(t *testing.T) {
	for text, want := range map[string]string{
		"http: TLS handshake error from 10.0.0.1:5: EOF":                                                   "",
		"http: TLS handshake error from 10.0.0.1:5: remote error: tls: bad certificate":                    "another cluster",
		"http: TLS handshake error from [::1]:5: tls: failed to verify certificate: x509: ... has expired": "clocks",
		"http: panic serving 10.0.0.1:5: certificate":                                                      "",
		"certificate": "",
	} {
		var out lockedBuffer
		h := &handshakes{log: slog.New(slog.NewTextHandler(&out, nil))}
		fmt.Fprint(h, text+"\n")
		if got := out.String(); want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("%s: %s", text, got)
		}
	}
	h := &handshakes{}
	now := time.Now()
	for i := range 10 * handshakeClients {
		if !h.fresh(fmt.Sprintf("10.0.%d.%d:1", i/256, i%256), now) || len(h.told) > handshakeClients {
			t.Fatalf("client %d: %d are remembered", i, len(h.told))
		}
	}
}
