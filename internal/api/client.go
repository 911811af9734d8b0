package api

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/phxsql/phxsql/internal/identity"
	"github.com/phxsql/phxsql/paxos"
)

// The limits of the client.
const (
	dialTimeout = 3 * time.Second
	maxAnswer   = 64 << 20 // bytes of an answer that is no stream
)

// Client asks a cluster over the admin API of its members.
type Client struct {
	addrs []string
	http  *http.Client
}

// NewClient returns a client of the members at the given addresses, host:port.
// It asks the first one that can be connected to. Nothing is dialed before the
// first request.
func NewClient(addrs []string, t *tls.Config) *Client {
	return &Client{addrs: addrs, http: &http.Client{Transport: &http.Transport{
		DialContext:     (&net.Dialer{Timeout: dialTimeout}).DialContext,
		TLSClientConfig: t, TLSHandshakeTimeout: dialTimeout,
		MaxIdleConnsPerHost: 2, IdleConnTimeout: time.Minute,
	}}}
}

// Also adds addresses of members that are asked when those before cannot be connected to.
func (c *Client) Also(addrs ...string) {
	for _, a := range addrs {
		if a != "" && !slices.Contains(c.addrs, a) {
			c.addrs = append(c.addrs, a)
		}
	}
}

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Status asks for the status of the cluster.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var st Status
	err := c.do(ctx, "GET", "/v1/status", nil, nil, &st)
	return st, err
}

// Init makes a cluster.
func (c *Client) Init(ctx context.Context, req InitRequest) (InitResult, error) {
	var res InitResult
	err := c.do(ctx, "POST", "/v1/init", nil, req, &res)
	return res, err
}

// Switchover moves the master.
func (c *Client) Switchover(ctx context.Context, to string) (SwitchoverResult, error) {
	var res SwitchoverResult
	err := c.do(ctx, "POST", "/v1/switchover", nil, SwitchoverRequest{To: to}, &res)
	return res, err
}

// Events asks for the events after a number, and waits so long if there are none.
func (c *Client) Events(ctx context.Context, after uint64, wait time.Duration) (EventsResult, error) {
	var res EventsResult
	q := url.Values{"after": {strconv.FormatUint(after, 10)}, "wait": {wait.String()}}
	err := c.do(ctx, "GET", "/v1/events", q, nil, &res)
	return res, err
}

// LogDump calls f for each entry from one instance to another; 0 is the oldest or
// the newest.
func (c *Client) LogDump(ctx context.Context, from, to paxos.Instance, f func(LogEntry) error) error {
	q := url.Values{"from": {strconv.FormatUint(uint64(from), 10)}, "to": {strconv.FormatUint(uint64(to), 10)}}
	resp, err := c.send(ctx, "GET", "/v1/log", q, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return readError(resp)
	}
	return readLines(resp.Body, f)
}

func readLines(body io.Reader, f func(LogEntry) error) error {
	d := json.NewDecoder(body)
	for {
		var l logLine
		err := d.Decode(&l)
		switch {
		case err != nil:
			return fmt.Errorf("read log stream: it was cut: %w", err)
		case l.Error != nil:
			l.Error.Status = http.StatusInternalServerError // the stream's own was sent before it was known
			return l.Error
		case l.End:
			return nil
		case l.Entry != nil:
			if err := f(*l.Entry); err != nil {
				return err
			}
		}
	}
}

// do sends a request and reads its answer into out.
func (c *Client) do(ctx context.Context, method, path string, q url.Values, in, out any) error {
	resp, err := c.send(ctx, method, path, q, in)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return readError(resp)
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(out); err != nil {
		return fmt.Errorf("read answer of %s: %w", path, err)
	}
	return nil
}

// send tries the addresses in turn until one can be connected to. A request that
// was sent is never sent again.
func (c *Client) send(ctx context.Context, method, path string, q url.Values, in any) (*http.Response, error) {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return nil, fmt.Errorf("encode request: %w", err)
		}
	}
	var failed []error
	for _, addr := range c.addrs {
		u := url.URL{Scheme: "https", Host: addr, Path: path, RawQuery: q.Encode()}
		req, err := http.NewRequestWithContext(ctx, method, u.String(), bytes.NewReader(body))
		if err != nil {
			return nil, fmt.Errorf("ask %s: %w", addr, err)
		}
		req.Header.Set("Content-Type", "application/json")
		resp, err := c.http.Do(req)
		if err == nil {
			return resp, nil
		}
		failed = append(failed, fmt.Errorf("ask %s: %w", addr, cause(err)))
		if !neverSent(err) || ctx.Err() != nil {
			break
		}
	}
	return nil, unreachable(failed)
}

// cause drops the URL that net/http puts in front of an error.
func cause(err error) error {
	var ue *url.Error
	if errors.As(err, &ue) {
		return ue.Err
	}
	return err
}

// neverSent reports that the request cannot have reached a node.
func neverSent(err error) bool {
	var op *net.OpError
	var ve *tls.CertificateVerificationError
	var ua x509.UnknownAuthorityError
	return notTLS(err) || errors.As(err, &op) && (op.Op == "dial" || op.Op == "remote error") || errors.As(err, &ve) || errors.As(err, &ua) ||
		errors.Is(err, identity.ErrOtherCluster) || expired(err)
}

// notTLS reports that something else than TLS is spoken there.
func notTLS(err error) bool {
	var rh tls.RecordHeaderError
	return errors.As(err, &rh) || errors.Is(err, http.ErrSchemeMismatch)
}

// expired reports that one side's certificate is not valid by the other's clock.
func expired(err error) bool {
	var ci x509.CertificateInvalidError
	var op *net.OpError
	return errors.As(err, &ci) && ci.Reason == x509.Expired ||
		errors.As(err, &op) && op.Op == "remote error" && strings.Contains(op.Error(), "expired certificate")
}

func unreachable(failed []error) error {
	if len(failed) == 0 {
		return &Error{Problem: Problem{"no_address", "no address of a node is known", "name a configuration with --config"}}
	}
	var lines []string
	for _, err := range failed {
		lines = append(lines, err.Error())
	}
	err := errors.Join(failed...)
	e := &Error{Problem: Problem{"unreachable", strings.Join(lines, "; "), "is the node running? start it with: phxsql server --config FILE"}, cause: err}
	var ua x509.UnknownAuthorityError
	var op *net.OpError
	switch {
	case notTLS(err):
		e.Name, e.Hint = "not_admin_port", "it is not the admin port that answers there: give the address of listen.admin (3309 if it is not set)"
	case errors.Is(err, identity.ErrOtherCluster):
		e.Name, e.Hint = "other_cluster", "the token is of another cluster than the node there: compare --seed with where the token was made"
	case expired(err):
		e.Name, e.Hint = "certificate_expired", "check the clocks of both machines: certificates are renewed by themselves"
	case errors.As(err, &ua), errors.As(err, &op) && op.Op == "remote error":
		e.Name, e.Hint = "another_secret", "the node there has another cluster secret: compare cluster.secret_file on both sides"
	case errors.Is(err, context.DeadlineExceeded):
		e.Name, e.Hint = "timeout", "the node did not answer in time; the outcome is unknown"
	case errors.Is(err, context.Canceled):
		e.Name, e.Hint = "canceled", ""
	}
	return e
}

func readError(resp *http.Response) error {
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return fmt.Errorf("read error of status %d: %w", resp.StatusCode, err)
	}
	var body errorBody
	if json.Unmarshal(b, &body) != nil || body.Error == nil {
		return fmt.Errorf("ask node: status %d: %q", resp.StatusCode, clip(b))
	}
	body.Error.Status = resp.StatusCode
	return body.Error
}

func clip(b []byte) []byte { return b[:min(len(b), 200)] }
