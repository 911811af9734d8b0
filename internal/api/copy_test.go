package api

import (
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"
)

// The bytes of a copy go through the admin port, for members of the cluster only.
func TestCopyGoesThroughTheAdminPort(t *testing.T) {
	addr := serve(t, &fakeNode{}, nil, nil)
	c, err := DialCopy(t.Context(), addr, ClientTLS(credentials(t, "a", 7)))
	if err != nil {
		t.Fatal(err)
	}
	near, far := net.Pipe()
	var count atomic.Int64
	piped := make(chan error, 1)
	go func() { piped <- Pipe(far, c, &count) }()
	if _, err := io.WriteString(near, "data"); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(near)
	if string(b) != "data" || err != nil {
		t.Errorf("got %q, %v", b, err)
	}
	if err := <-piped; err != nil || count.Load() != 4 {
		t.Errorf("%d bytes, %v", count.Load(), err)
	}

	bare := ClientTLS(credentials(t, "a", 7))
	bare.GetClientCertificate = nil
	var refused *Error
	if _, err := DialCopy(t.Context(), addr, bare); !errors.As(err, &refused) || refused.Name != "unauthenticated" {
		t.Errorf("without a certificate: %v", err)
	}
	if _, err := DialCopy(t.Context(), addr, ClientTLS(credentials(t, "b", 7))); err == nil {
		t.Error("a node of another cluster is let in")
	}
}
