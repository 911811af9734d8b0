package api

import (
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/phxsql/phxsql/internal/telemetry"
)

// The limits of what is said about refused handshakes.
const (
	handshakeAgain   = time.Minute // one of the same client is not repeated within
	handshakeClients = 64          // clients that are remembered for that; more are not told apart
)

// handshakes takes what net/http says about connections. That a client's certificate,
// or this node's, was refused is worth a line: it is a stranger, or somebody who takes
// this node for another. All else, such as a client that hangs up, is for debugging.
type handshakes struct {
	log *slog.Logger

	mu   sync.Mutex
	told map[string]time.Time // by the client's host
}

// handshakePrefix is in front of what net/http says about a failed handshake.
const handshakePrefix = "http: TLS handshake error from "

// Write takes one message.
func (h *handshakes) Write(b []byte) (int, error) {
	text := strings.TrimSpace(string(b))
	client, why, ok := strings.Cut(strings.TrimPrefix(text, handshakePrefix), ": ")
	if !ok || !strings.HasPrefix(text, handshakePrefix) || !strings.Contains(why, "certificate") || !h.fresh(client, time.Now()) {
		h.log.Debug("connection failed", telemetry.KeyReason, text)
		return len(b), nil
	}
	hint := "a machine there has another cluster's secret or token; what is no part of PhxSQL must not verify this certificate"
	if strings.Contains(why, "expired") {
		hint = "check the clocks of both machines"
	}
	h.log.Warn("connection refused", telemetry.KeyClient, client, telemetry.KeyReason, why, telemetry.KeyHint, hint)
	return len(b), nil
}

// fresh reports that nothing was said about the client lately.
func (h *handshakes) fresh(client string, now time.Time) bool {
	host, _, err := net.SplitHostPort(client)
	if err != nil {
		host = client
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if at, ok := h.told[host]; ok && now.Sub(at) < handshakeAgain {
		return false
	}
	if len(h.told) >= handshakeClients || h.told == nil {
		h.told = map[string]time.Time{}
	}
	h.told[host] = now
	return true
}
