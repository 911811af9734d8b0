package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/phxsql/phxsql/paxos"
)

// Peer is another node and where its transport listens.
type Peer struct {
	ID   paxos.NodeID
	Addr string // host:port
}

// Handler takes what other nodes send. Calls for one sender come one after the
// other and in order; those for different senders at the same time. A handler that
// blocks stops reading from that sender, which after the idle time gives the connection up.
type Handler interface {
	// HandleMessages takes messages of one group that arrived together. What they
	// refer to belongs to the handler, the slice only until it returns.
	HandleMessages(from paxos.NodeID, group paxos.Group, msgs []paxos.Message)
	// HandleApp takes an announcement, which belongs to the handler.
	HandleApp(from paxos.NodeID, payload []byte)
}

// Options say how a transport works. Node, Listener, Self, Admit and either
// Credentials or Insecure must be given; zero means the default for the rest.
type Options struct {
	Node     paxos.NodeID
	Listener net.Listener // the transport owns and closes it
	// Self returns what this node says about itself. It is asked for every
	// connection, so that a node that has just joined introduces itself as such.
	Self func() Hello
	// Admit judges another node by its Hello; an error refuses it and both sides
	// show it. It should wrap one of the reasons, such as ErrWrongCluster. It is
	// asked for connections in both directions, and again for the accepted ones
	// after SetPeers and Recheck; those keep the Hello that they began with, so a
	// peer that was blank then still looks blank. It may be called at any time,
	// several at once.
	Admit       func(Hello) error
	Credentials Credentials
	// Insecure speaks without TLS: for benchmarks, where its cost is measured. A
	// node is then whoever it says it is.
	Insecure bool

	Logger *slog.Logger
	// Dial opens a connection; the default is TCP.
	Dial func(ctx context.Context, addr string) (net.Conn, error)

	QueueBytes       int           // limit of what waits for one peer, 32 MiB
	PingEvery        time.Duration // 250 ms
	IdleTimeout      time.Duration // a peer silent for so long is gone, 3 s
	DialTimeout      time.Duration // 1 s
	HandshakeTimeout time.Duration // TLS and the first frames, 3 s
	RetryMin         time.Duration // first wait between attempts, 50 ms
	RetryMax         time.Duration // longest wait, 1 s
}

func (o *Options) check() error {
	switch {
	case o.Node == 0:
		return errors.New("make transport: node id 0 names nobody")
	case o.Listener == nil || o.Self == nil || o.Admit == nil:
		return errors.New("make transport: Listener, Self and Admit must be given")
	case (o.Credentials == nil) != o.Insecure:
		return errors.New("make transport: either Credentials or Insecure must be given")
	}
	return nil
}

func orDefault[T int | time.Duration](v *T, def T) {
	if *v <= 0 {
		*v = def
	}
}

func (o *Options) fill() {
	orDefault(&o.QueueBytes, 32<<20)
	orDefault(&o.PingEvery, 250*time.Millisecond)
	orDefault(&o.IdleTimeout, 3*time.Second)
	orDefault(&o.DialTimeout, time.Second)
	orDefault(&o.HandshakeTimeout, 3*time.Second)
	orDefault(&o.RetryMin, 50*time.Millisecond)
	orDefault(&o.RetryMax, time.Second)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Dial == nil {
		d := &net.Dialer{KeepAlive: 15 * time.Second}
		o.Dial = func(ctx context.Context, addr string) (net.Conn, error) {
			return d.DialContext(ctx, "tcp", addr)
		}
	}
}

// Transport connects this node with its peers. It is safe for concurrent use.
type Transport struct {
	opt      Options
	boot     string
	start    time.Time
	log      *slog.Logger
	ctx      context.Context
	cancel   context.CancelFunc
	wg       sync.WaitGroup
	refused  refusals
	handler  Handler
	pending  chan struct{} // a token for every accepted connection in its handshake
	peers    atomic.Pointer[map[paxos.NodeID]*peer]
	handlers sync.Map // method -> CallHandler

	mu      sync.Mutex
	started bool
	closed  bool
	inbound map[paxos.NodeID]*inbound
	stats   map[paxos.NodeID]*stats
}

// New makes a transport that does nothing until Start. The caller must Close it,
// which also closes the listener.
func New(opt Options) (*Transport, error) {
	if err := opt.check(); err != nil {
		return nil, err
	}
	opt.fill()
	t := &Transport{
		opt: opt, boot: newBoot(), start: time.Now(), log: opt.Logger,
		pending: make(chan struct{}, maxPending),
		inbound: map[paxos.NodeID]*inbound{},
		stats:   map[paxos.NodeID]*stats{},
	}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	t.peers.Store(&map[paxos.NodeID]*peer{})
	return t, nil
}

// Start begins to accept and to dial, and hands what arrives to h.
func (t *Transport) Start(h Handler) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed || t.started {
		return fmt.Errorf("start transport: %w", errors.Join(ErrClosed, errors.New("or started before")))
	}
	t.started, t.handler = true, h
	t.wg.Go(t.accept)
	for _, p := range *t.peers.Load() {
		t.wg.Go(p.run)
	}
	return nil
}

// Addr is where the transport listens.
func (t *Transport) Addr() net.Addr { return t.opt.Listener.Addr() }

// Close ends all connections and waits for all goroutines. It must not be called
// by a handler.
func (t *Transport) Close() error {
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return nil
	}
	t.closed = true
	t.mu.Unlock()
	t.cancel()
	err := t.opt.Listener.Close()
	t.wg.Wait()
	return err
}

// SetPeers names the nodes to be connected with; this node itself is skipped.
// Connections to nodes no longer named, or with another address, end. Accepted
// connections are judged by Admit again.
func (t *Transport) SetPeers(list []Peer) error {
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return fmt.Errorf("set peers: %w", ErrClosed)
	}
	old, now := *t.peers.Load(), map[paxos.NodeID]*peer{}
	for _, want := range list {
		if want.ID == t.opt.Node || want.ID == 0 {
			continue
		}
		if p := old[want.ID]; p != nil && p.addr == want.Addr {
			now[want.ID] = p
			continue
		}
		p := newPeer(t, want, t.statsOf(want.ID))
		now[want.ID] = p
		if t.started {
			t.wg.Go(p.run)
		}
	}
	t.peers.Store(&now)
	t.forget(now)
	t.wg.Go(t.recheck)
	t.mu.Unlock()
	for id, p := range old {
		if now[id] != p {
			p.cancel(errRemoved)
		}
	}
	return nil
}

// statsOf returns the counters of a node; t.mu is held.
func (t *Transport) statsOf(id paxos.NodeID) *stats {
	s := t.stats[id]
	if s == nil {
		s = &stats{}
		t.stats[id] = s
	}
	return s
}

// forget drops the counters of nodes that are neither peers nor connected; t.mu
// is held.
func (t *Transport) forget(peers map[paxos.NodeID]*peer) {
	for id := range t.stats {
		if peers[id] == nil && t.inbound[id] == nil {
			delete(t.stats, id)
		}
	}
}

// Recheck asks Admit again about every accepted connection and ends those that
// it refuses. To be called when what Admit decides by has changed. It does not
// wait for the answers.
func (t *Transport) Recheck() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.closed {
		t.wg.Go(t.recheck)
	}
}

func (t *Transport) recheck() {
	t.mu.Lock()
	list := make([]*inbound, 0, len(t.inbound))
	for _, in := range t.inbound {
		list = append(list, in)
	}
	t.mu.Unlock()
	for _, in := range list {
		if err := t.opt.Admit(in.hello); err != nil {
			t.refuse(in.remote, in.hello.Node, err)
			in.end(fmt.Errorf("%w: %w", errRejoined, err))
		}
	}
}

// Send queues messages of one group for a peer. It never blocks. What finds no
// connection or no room is dropped and counted.
func (t *Transport) Send(to paxos.NodeID, group paxos.Group, msgs []paxos.Message) {
	if p := (*t.peers.Load())[to]; p != nil && len(msgs) > 0 {
		p.send(group, msgs)
	}
}

// SendApp queues an announcement for a peer. It never blocks. An error says that it
// was dropped, and why; nil does not say that it will arrive.
func (t *Transport) SendApp(to paxos.NodeID, payload []byte) error {
	p := (*t.peers.Load())[to]
	switch {
	case p == nil:
		return fmt.Errorf("send to node %d: %w", to, ErrUnknownPeer)
	case len(payload) > MaxApp:
		return fmt.Errorf("send %d bytes to node %d, limit %d: %w", len(payload), to, MaxApp, ErrTooLarge)
	}
	return p.sendApp(payload)
}

// Status returns a picture of all connections.
func (t *Transport) Status() Status {
	var st Status
	t.mu.Lock()
	for id, s := range t.stats {
		ps := PeerStatus{ID: id}
		s.fill(&ps)
		if in := t.inbound[id]; in != nil {
			ps.Accepted, ps.AcceptedSince = true, in.since
		}
		st.Peers = append(st.Peers, ps)
	}
	t.mu.Unlock()
	peers := *t.peers.Load()
	for i := range st.Peers {
		if p := peers[st.Peers[i].ID]; p != nil {
			p.fill(&st.Peers[i])
		}
	}
	slices.SortFunc(st.Peers, func(a, b PeerStatus) int {
		if a.ID < b.ID {
			return -1
		}
		return 1
	})
	st.Refused = t.refused.snapshot()
	return st
}

// clock counts nanoseconds since the start, whatever is done to the wall clock.
func (t *Transport) clock() int64 { return int64(time.Since(t.start)) }

// self returns this node's hello.
func (t *Transport) self() Hello {
	h := t.opt.Self()
	h.Version, h.Node, h.Boot = Version, t.opt.Node, t.boot
	return h
}

// judge checks the hello of another node.
func (t *Transport) judge(c *conn, h Hello) error {
	if err := c.identify(h); err != nil {
		return err
	}
	if h.Node == t.opt.Node {
		return fmt.Errorf("check hello: node %d is this node's own id (give every machine its own, and check the members' addresses): %w",
			h.Node, ErrDuplicateNode)
	}
	return t.opt.Admit(h)
}

// refuse notes a refused connection and logs it once.
func (t *Transport) refuse(remote net.Addr, node paxos.NodeID, err error) {
	host := ""
	if remote != nil {
		host = remote.String()
		if h, _, serr := net.SplitHostPort(host); serr == nil {
			host = h
		}
	}
	if t.refused.add(Refusal{Last: time.Now(), Remote: host, Node: node, Reason: Reason(err), Error: err.Error()}) {
		t.log.Warn("connection refused", "remote", host, "node", uint64(node), "reason", Reason(err), "error", err)
	}
}

// ended tells an end that is nobody's fault from others.
func ended(err error) bool {
	return err == nil || errors.Is(err, io.EOF) || errors.Is(err, errReplaced) ||
		errors.Is(err, errRemoved) || errors.Is(err, ErrClosed)
}
