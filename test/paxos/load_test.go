package paxos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	keys           = 6
	clientsPerNode = 8
	opLimit        = 2 * time.Second       // what takes longer has an unknown outcome
	pause          = 30 * time.Millisecond // the longest between two operations of a client
	hops           = 4                     // redirects that are followed
	padding        = 16 << 10              // bytes behind the value of every put: what nodes have of the log in memory is soon gone
)

var pad = strings.Repeat(".", padding)

// full is what is stored for a value.
func full(value string) string {
	if strings.HasPrefix(value, "p") {
		return value + pad
	}
	return value
}

// load is clients that get, put and compare-and-set a few keys. Each keeps to one
// node and asks the one it is sent on to; those of a deposed leader stay with it.
type load struct {
	history
	urls    []string
	query   string // put behind every read
	counter atomic.Int64
	wg      sync.WaitGroup
	cancel  context.CancelFunc
}

func startLoad(c *cluster, query string) *load {
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{history: history{begun: time.Now()}, query: query, cancel: cancel}
	for _, p := range c.nodes {
		for k := range clientsPerNode {
			cl := &client{load: l, id: p.id*100 + k, home: p.url(), http: &http.Client{
				Transport:     &http.Transport{},
				CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
			}}
			l.wg.Go(func() { cl.run(ctx) })
		}
	}
	c.t.Cleanup(l.stop)
	return l
}

func (l *load) stop() {
	l.cancel()
	l.wg.Wait()
}

// client is one of them.
type client struct {
	*load
	id   int
	home string
	http *http.Client
	seen [keys]string // what it read last
}

func (c *client) run(ctx context.Context) {
	defer c.http.CloseIdleConnections()
	for ctx.Err() == nil {
		k := rand.IntN(keys)
		o := op{kind: kind(rand.IntN(3)), key: fmt.Sprintf("k%d", k)}
		if o.kind != get {
			o.value, o.old = fmt.Sprint("-pc"[o.kind:o.kind+1], c.counter.Add(1)), c.seen[k]
		}
		call := c.now()
		a, ok := c.do(o)
		if ok {
			c.add(c.id, call, o, a)
		}
		if ok && o.kind == get {
			c.seen[k] = a.value
		}
		select {
		case <-ctx.Done():
		case <-time.After(rand.N(pause)):
		}
	}
}

// do carries an operation out. ok is false when it had no effect and told nothing.
func (c *client) do(o op) (a answer, ok bool) {
	ctx, cancel := context.WithTimeout(context.Background(), opLimit)
	defer cancel()
	method, path := http.MethodPut, "/"+o.key
	switch o.kind {
	case get:
		method = http.MethodGet
		path += c.query
	case cas:
		path += "?if=" + url.QueryEscape(full(o.old))
	}
	at := c.home + path
	for range hops {
		code, body, to, err := c.ask(ctx, method, at, full(o.value))
		switch {
		case err != nil && unsent(err), code == http.StatusServiceUnavailable:
			return a, false
		case err != nil, code == http.StatusGatewayTimeout:
			return answer{unknown: true}, o.kind != get // a read has no effect
		case code == http.StatusTemporaryRedirect: // not proposed
			at = to
		case o.kind == get && code == http.StatusNotFound:
			return a, true
		case o.kind == get && code == http.StatusOK:
			return answer{value: strings.TrimSuffix(body, pad)}, true
		case code == http.StatusOK:
			return answer{done: true}, true
		case o.kind == cas && code == http.StatusPreconditionFailed:
			return a, true
		default:
			panic(fmt.Sprintf("%s %s was answered with %d: %s", method, at, code, body))
		}
	}
	return a, false
}

func (c *client) ask(ctx context.Context, method, at, value string) (code int, body, to string, err error) {
	r, err := http.NewRequestWithContext(ctx, method, at, strings.NewReader(value))
	if err != nil {
		return 0, "", "", err
	}
	resp, err := c.http.Do(r)
	if err != nil {
		return 0, "", "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), resp.Header.Get("Location"), err
}

// unsent reports whether a request never reached anybody.
func unsent(err error) bool {
	var e *net.OpError
	return errors.As(err, &e) && e.Op == "dial"
}
