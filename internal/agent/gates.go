package agent

import (
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/phxsql/phxsql/internal/cluster"
	"github.com/phxsql/phxsql/internal/mysqld"
	"github.com/phxsql/phxsql/internal/proxy"
	"github.com/phxsql/phxsql/paxos"
)

// gates makes a proxy what the loop wants of the client ports. Its methods are
// called by the loop only, but for allows.
type gates struct {
	proxy *proxy.Proxy
	busy  proxy.Busy
	// addr finds the read-write port of a member.
	addr  func(paxos.NodeID) (string, bool)
	lease func() bool

	open    atomic.Bool
	drained atomic.Bool
	undrain context.CancelFunc
	cut     chan struct{} // closed when the last cut is done; nil before the first
}

// allows is asked for every piece of an answer on its way to a client.
func (g *gates) allows() bool { return g.open.Load() && g.lease() }

// Open waits for an unfinished cut, so that it does not reach new sessions.
func (g *gates) Open() {
	if g.cut != nil {
		<-g.cut
	}
	g.endDrain()
	g.open.Store(true)
}

// Close takes effect at once: from now on nothing that comes from the local
// server reaches a client. The connections are cut aside.
func (g *gates) Close(reason string) {
	g.open.Store(false)
	g.endDrain()
	g.proxy.SetRoute(proxy.None(reason))
	before, done := g.cut, make(chan struct{})
	g.cut = done
	go func() {
		defer close(done)
		if before != nil {
			<-before
		}
		g.proxy.Cut(reason)
	}()
}

// Drain closes sessions one by one, each between two transactions.
func (g *gates) Drain() {
	ctx, cancel := context.WithCancel(context.Background())
	g.undrain = cancel
	g.drained.Store(false)
	go func() {
		if left, _ := g.proxy.Drain(ctx, g.busy); left == 0 && ctx.Err() == nil {
			g.drained.Store(true)
		}
	}()
}

// Drained reports that no session is left.
func (g *gates) Drained() bool { return g.drained.Load() }

func (g *gates) endDrain() {
	if g.undrain != nil {
		g.undrain()
		g.undrain = nil
		g.proxy.Resume()
	}
	g.drained.Store(false)
}

func (g *gates) OpenReads()               { g.proxy.SetLocal(true, "") }
func (g *gates) CloseReads(reason string) { go g.proxy.SetLocal(false, reason) }

// RouteTo sends new sessions to where the master is.
func (g *gates) RouteTo(r cluster.Route) {
	switch r.Kind {
	case cluster.RouteLocal:
		g.proxy.SetRoute(proxy.Local())
	case cluster.RouteRemote:
		if addr, ok := g.addr(r.Node); ok {
			g.proxy.SetRoute(proxy.Remote(addr))
			return
		}
		g.proxy.SetRoute(proxy.None("the master has not told its address"))
	default:
		g.proxy.SetRoute(proxy.None("no master is known"))
	}
}

// keyLimit bounds the size of the server's key file.
const keyLimit = 64 << 10

// serverKey returns the private key that the server made at its first start.
func serverKey(path string) proxy.KeySource {
	var known atomic.Pointer[rsa.PrivateKey]
	return func() (*rsa.PrivateKey, error) {
		if k := known.Load(); k != nil {
			return k, nil
		}
		st, err := os.Stat(path)
		if err != nil {
			return nil, fmt.Errorf("read the server's key: %w", err)
		}
		if st.Size() > keyLimit {
			return nil, fmt.Errorf("read the server's key: %d bytes", st.Size())
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("read the server's key: %w", err)
		}
		k, err := parseKey(b)
		if err != nil {
			return nil, fmt.Errorf("read the server's key %s: %w", path, err)
		}
		known.Store(k)
		return k, nil
	}
}

func parseKey(b []byte) (*rsa.PrivateKey, error) {
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, fmt.Errorf("no PEM block")
	}
	if k, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
		return k, nil
	}
	any, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	k, ok := any.(*rsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("not an RSA key")
	}
	return k, nil
}

// busySessions tells the proxy which connections of the server are in a
// transaction.
func busySessions(s *mysqld.Server) proxy.Busy {
	return func(ctx context.Context) (map[uint32]bool, error) {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		open, err := s.InTransaction(ctx)
		if err != nil {
			return nil, err
		}
		ids := make(map[uint32]bool, len(open))
		for id := range open {
			ids[uint32(id)] = true
		}
		return ids, nil
	}
}
