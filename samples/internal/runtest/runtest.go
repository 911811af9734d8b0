// Package runtest helps the tests of the samples.
package runtest

import (
	"bytes"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/phxsql/phxsql/internal/netlab"
)

// Addrs returns n addresses on the loopback interface that are free.
func Addrs(t *testing.T, n int) []string {
	t.Helper()
	ports, err := netlab.FreePorts(netlab.Loopback(), n)
	if err != nil {
		t.Fatal(err)
	}
	var addrs []string
	for _, p := range ports {
		addrs = append(addrs, net.JoinHostPort(netlab.Loopback(), strconv.Itoa(p)))
	}
	return addrs
}

// Output collects what a sample prints.
type Output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write implements io.Writer.
func (o *Output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(b)
}

func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// limit bounds every wait, on a busy machine.
const limit = 90 * time.Second

// Until waits until ok.
func Until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(limit)
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for !ok() {
		select {
		case <-poll.C:
		case <-deadline:
			t.Fatalf("no %s within %v", what, limit)
		}
	}
}

// Wait waits until the output has all of these.
func (o *Output) Wait(t *testing.T, want ...string) {
	t.Helper()
	Until(t, strings.Join(want, ", "), func() bool {
		for _, w := range want {
			if !strings.Contains(o.String(), w) {
				return false
			}
		}
		return true
	})
}
