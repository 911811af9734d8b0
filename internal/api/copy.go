package api

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// copyProtocol is what a connection turns into that carries a server's data from one
// agent to another: raw bytes, both ways, within the TLS of the admin port.
const copyProtocol = "phxsql-copy"

const copyPath = "/v1/copy"

// copyIdle ends a copy on which nothing moves for so long.
const copyIdle = 2 * time.Minute

// copyStream serves the donor's side.
func (s *Server) copyStream(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Upgrade") != copyProtocol {
		s.fail(w, r, BadRequest("no_upgrade", "this route is for other members only", ""))
		return
	}
	server, err := s.o.Node.CopyStream(r.Context())
	if err != nil {
		s.fail(w, r, err)
		return
	}
	defer server.Close()
	c, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		s.fail(w, r, err)
		return
	}
	defer c.Close()
	stop := context.AfterFunc(r.Context(), func() { _ = c.Close() })
	defer stop()
	_ = c.SetDeadline(time.Time{})
	if _, err := io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+copyProtocol+"\r\n\r\n"); err != nil {
		return
	}
	_ = Pipe(&buffered{c, buf.Reader}, server, nil) // the other side says what is wrong
}

// buffered reads what was read ahead first.
type buffered struct {
	net.Conn
	r *bufio.Reader
}

func (b *buffered) Read(p []byte) (int, error) { return b.r.Read(p) }

// DialCopy connects to the server of another member through its admin port.
func DialCopy(ctx context.Context, addr string, t *tls.Config) (net.Conn, error) {
	d := tls.Dialer{NetDialer: &net.Dialer{Timeout: dialTimeout}, Config: t}
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("connect to the donor: %w", err)
	}
	_ = c.SetDeadline(time.Now().Add(statusTimeout))
	req, err := http.NewRequestWithContext(ctx, "POST", "http://"+addr+copyPath, http.NoBody)
	if err == nil {
		req.Header.Set("Connection", "Upgrade")
		req.Header.Set("Upgrade", copyProtocol)
		err = req.Write(c)
	}
	var resp *http.Response
	r := bufio.NewReader(c)
	if err == nil {
		resp, err = http.ReadResponse(r, req)
	}
	if err == nil && resp.StatusCode != http.StatusSwitchingProtocols {
		err = readError(resp)
	}
	if err != nil {
		_ = c.Close()
		return nil, fmt.Errorf("connect to the donor: %w", err)
	}
	_ = c.SetDeadline(time.Time{})
	return &buffered{c, r}, nil
}

// Pipe carries bytes both ways until one side ends, and counts those from b to a.
// Nothing moving for some minutes is an end, too.
func Pipe(a, b net.Conn, count *atomic.Int64) error {
	done := make(chan error, 2)
	go func() { done <- carry(a, b, count) }()
	go func() { done <- carry(b, a, nil) }()
	err := <-done
	_ = a.Close()
	_ = b.Close()
	<-done
	return err
}

func carry(to, from net.Conn, count *atomic.Int64) error {
	buf := make([]byte, 256<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			_ = to.SetWriteDeadline(time.Now().Add(copyIdle))
			if _, werr := to.Write(buf[:n]); werr != nil {
				return fmt.Errorf("carry copy: %w", werr)
			}
			if count != nil {
				count.Add(int64(n))
			}
		}
		if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("carry copy: %w", err)
		}
	}
}
