// Package runtest helps the tests of the samples.
package runtest

import (
	"bytes"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// Addrs returns n addresses on the loopback interface that were free just now.
func Addrs(t *testing.T, n int) []string {
	t.Helper()
	var addrs []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close() // after all were taken: no address comes twice
		addrs = append(addrs, l.Addr().String())
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

// Until waits until ok.
func Until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for !ok() {
		select {
		case <-poll.C:
		case <-deadline:
			t.Fatalf("no %s within 20 s", what)
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
