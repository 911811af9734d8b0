package transport

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/phxsql/phxsql/paxos"
)

const (
	// maxPending bounds the accepted connections that have not introduced
	// themselves yet; more are closed at once.
	maxPending = 64
	// maxHandled bounds the calls of one connection that are handled at a time;
	// more are answered with an error.
	maxHandled = 32
	// maxBatch and maxBatchBytes bound what is handed to the handler at once.
	maxBatch      = 1024
	maxBatchBytes = 4 << 20
	// answerLimit bounds the answers that wait for one dialer.
	answerLimit = 16 << 20
)

// emptyMessage is the length of a message without entries, which needs no memory
// of its own.
var emptyMessage = (&paxos.Message{}).EncodedSize()

// CallHandler answers a call; the payload and the result are the handler's and the
// caller's own. ctx ends with the caller's connection.
type CallHandler func(ctx context.Context, from paxos.NodeID, payload []byte) ([]byte, error)

// Handle registers the handler of a method, for all peers.
func (t *Transport) Handle(method string, h CallHandler) { t.handlers.Store(method, h) }

// inbound is one admitted connection of the accepting side.
type inbound struct {
	t      *Transport
	c      *conn
	hello  Hello
	remote net.Addr
	stats  *stats
	since  time.Time
	out    *outbox
	ctx    context.Context
	cancel context.CancelCauseFunc
	done   chan struct{} // closed when nothing more is handed to the handler
	heard  atomic.Int64  // when the last frame came, by Transport.clock
	slots  chan struct{} // a token for every call being handled
}

// accept takes connections until the listener is closed.
func (t *Transport) accept() {
	for pause := time.Duration(0); ; {
		raw, err := t.opt.Listener.Accept()
		switch {
		case t.ctx.Err() != nil:
			if err == nil {
				raw.Close()
			}
			return
		case errors.Is(err, net.ErrClosed):
			t.log.Error("peer listener closed", "error", err)
			return
		case err != nil: // out of file descriptors, most likely
			pause = min(max(2*pause, 10*time.Millisecond), time.Second)
			t.log.Warn("accept failed", "error", err)
			sleep(t.ctx, pause)
			continue
		}
		pause = 0
		select {
		case t.pending <- struct{}{}:
			t.wg.Go(func() { t.receive(raw) })
		default:
			t.refuse(raw.RemoteAddr(), 0, fmt.Errorf("accept: %d connections in their handshake: %w", maxPending, ErrBusy))
			raw.Close()
		}
	}
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// receive serves one accepted connection from its handshake to its end.
func (t *Transport) receive(raw net.Conn) {
	defer raw.Close()
	stop := context.AfterFunc(t.ctx, func() { raw.Close() })
	defer stop()
	in, node, err := t.greet(raw)
	<-t.pending
	if err != nil {
		if t.ctx.Err() == nil {
			t.refuse(raw.RemoteAddr(), node, err)
		}
		return
	}
	err = in.serve()
	refused := (*RefusedError)(nil)
	switch {
	case t.ctx.Err() != nil || ended(err):
	case errors.As(err, &refused) || errors.Is(err, ErrMalformed):
		t.refuse(in.remote, node, err)
	default:
		t.log.Warn("connection from peer ended", "peer", uint64(node), "reason", Reason(err), "error", err)
	}
}

// greet runs the handshake and admits the other node, or says why not.
func (t *Transport) greet(raw net.Conn) (*inbound, paxos.NodeID, error) {
	c, err := t.secure(t.ctx, raw, 0)
	if err != nil {
		return nil, 0, err
	}
	f, err := c.frames.next()
	if err != nil {
		return nil, c.peer, fmt.Errorf("read hello: %w", explain(err))
	}
	h, err := parseHello(f, frameHello)
	if err == nil {
		err = t.judge(c, h)
	}
	var in *inbound
	if err == nil {
		in, err = t.admit(c, h)
	}
	if err != nil {
		_, _ = c.stream.Write(appendRefusal(nil, err)) // a courtesy: the connection ends anyway
		return nil, c.peer, err
	}
	return in, h.Node, nil
}

// admit makes the connection the only one of its node. A process that is alive
// keeps its place against another one with its id; the same process, or one that
// follows a dead one, takes it.
func (t *Transport) admit(c *conn, h Hello) (*inbound, error) {
	in := &inbound{
		t: t, c: c, hello: h, remote: c.raw.RemoteAddr(), since: time.Now(),
		out: newOutbox(answerLimit, c.secret()), done: make(chan struct{}), slots: make(chan struct{}, maxHandled),
	}
	in.ctx, in.cancel = context.WithCancelCause(t.ctx)
	for {
		t.mu.Lock()
		old := t.inbound[h.Node]
		if old == nil {
			in.stats = t.statsOf(h.Node)
			t.inbound[h.Node] = in
			t.mu.Unlock()
			return in, nil
		}
		t.mu.Unlock()
		if err := t.displace(old, h); err != nil {
			in.cancel(err)
			return nil, err
		}
	}
}

// displace ends an older connection of the node, unless another process that
// is still alive holds it.
func (t *Transport) displace(old *inbound, h Hello) error {
	if old.hello.Boot != h.Boot {
		// A living process pings several times in this time.
		start, wait := t.clock(), 3*t.opt.PingEvery
		select {
		case <-old.done:
			return nil
		case <-t.ctx.Done():
			return ErrClosed
		case <-time.After(wait):
		}
		if old.heard.Load() > start+int64(wait/2) {
			return fmt.Errorf("admit node %d: a machine at %v is connected under that id (give every machine its own): %w",
				h.Node, old.remote, ErrDuplicateNode)
		}
	}
	old.end(errReplaced)
	select {
	case <-old.done:
		return nil
	case <-t.ctx.Done():
		return ErrClosed
	case <-time.After(t.opt.HandshakeTimeout):
		return fmt.Errorf("admit node %d: its last connection is still being handled: %w", h.Node, ErrBusy)
	}
}

// end closes the connection; serve then returns.
func (in *inbound) end(err error) {
	in.cancel(err)
	in.out.close()
	in.c.raw.Close()
}

// serve welcomes the node and hands on what it sends, until the connection ends.
func (in *inbound) serve() error {
	var running sync.WaitGroup
	err := in.welcome()
	if err == nil {
		running.Go(in.answer)
		if p := (*in.t.peers.Load())[in.hello.Node]; p != nil {
			p.hurry()
		}
		err = in.read(&running)
	}
	if cause := context.Cause(in.ctx); cause != nil {
		err = cause
	}
	in.end(err)
	in.t.mu.Lock()
	delete(in.t.inbound, in.hello.Node)
	in.t.mu.Unlock()
	close(in.done)
	running.Wait()
	return err
}

func (in *inbound) welcome() error {
	b, err := appendHello(nil, frameWelcome, in.t.self())
	if err != nil {
		return err
	}
	if _, err := in.c.stream.Write(b); err != nil {
		return fmt.Errorf("write welcome: %w", err)
	}
	in.heard.Store(in.t.clock())
	in.c.frames.progress = in.alive
	return in.c.settled()
}

// answer writes pongs and results, until the connection ends.
func (in *inbound) answer() {
	for {
		if b := in.out.take(); b != nil {
			if err := in.c.write(b); err != nil {
				in.end(err)
				return
			}
			continue
		}
		in.out.trim()
		select {
		case <-in.out.wake:
		case <-in.ctx.Done():
			return
		}
	}
}

// alive tells the dialer, while a large frame comes in, that it is being read.
func (in *inbound) alive() {
	now := in.t.clock()
	if now-in.heard.Load() >= int64(in.t.opt.PingEvery) {
		in.heard.Store(now)
		in.out.putUrgent(func(b []byte) []byte { return appendToken(b, framePong, 0) })
	}
}

// batch gathers messages of one group that arrived together.
type batch struct {
	group paxos.Group
	msgs  []paxos.Message
	bytes int
}

// read hands on what arrives, until the connection ends.
func (in *inbound) read(running *sync.WaitGroup) error {
	var b batch
	for {
		f, err := in.c.frames.next()
		if err != nil {
			return fmt.Errorf("read: %w", explain(err))
		}
		if f.kind == frameMessage {
			err = in.message(&b, f)
		} else {
			in.flush(&b)
			err = in.other(f, running)
		}
		if err != nil {
			return err
		}
		if !in.c.frames.more() {
			in.heard.Store(in.t.clock())
			in.flush(&b)
		}
	}
}

// message adds a message to the batch.
func (in *inbound) message(b *batch, f frame) error {
	p := f.payload
	if !f.owned && len(p) > emptyMessage {
		p = bytes.Clone(p) // entries point into it
	}
	m, err := paxos.DecodeMessage(p)
	if errors.Is(err, paxos.ErrUnknownKind) {
		in.stats.droppedFalse.Add(1) // of a newer release, which can do without an answer
		return nil
	}
	if err != nil {
		return fmt.Errorf("read message: %w: %w", ErrMalformed, err)
	}
	in.stats.messagesIn.Add(1)
	in.stats.bytesIn.Add(uint64(headerSize + f.size))
	if m.From != in.hello.Node || m.To != in.t.opt.Node {
		in.stats.droppedFalse.Add(1)
		return nil
	}
	if len(b.msgs) > 0 && (b.group != f.group || len(b.msgs) == maxBatch || b.bytes >= maxBatchBytes) {
		in.flush(b)
	}
	b.group = f.group
	b.msgs = append(b.msgs, m)
	b.bytes += f.size
	return nil
}

func (in *inbound) flush(b *batch) {
	if len(b.msgs) == 0 {
		return
	}
	in.t.handler.HandleMessages(in.hello.Node, b.group, b.msgs)
	clear(b.msgs) // lets the entries go
	b.msgs, b.bytes = b.msgs[:0], 0
}

// other carries out the frames that are not consensus messages.
func (in *inbound) other(f frame, running *sync.WaitGroup) error {
	switch f.kind {
	case framePing:
		token, err := parseToken(f.payload)
		if err == nil {
			in.out.putUrgent(func(b []byte) []byte { return appendToken(b, framePong, token) })
		}
		return err
	case frameApp:
		in.stats.messagesIn.Add(1)
		in.stats.bytesIn.Add(uint64(headerSize + f.size))
		in.t.handler.HandleApp(in.hello.Node, own(f, f.payload))
		return nil
	case frameRequest:
		return in.request(f, running)
	case frameRefuse:
		return parseRefusal(f.payload, in.hello.Node)
	}
	return fmt.Errorf("read: frame of kind %d from the dialer: %w", f.kind, ErrMalformed)
}

// own returns a part of a frame's payload as memory of its own.
func own(f frame, part []byte) []byte {
	if f.owned {
		return part
	}
	return bytes.Clone(part)
}

// request starts the handler of a call.
func (in *inbound) request(f frame, running *sync.WaitGroup) error {
	r, err := parseRequest(f.payload)
	if err != nil {
		return err
	}
	h, ok := in.t.handlers.Load(r.method)
	if !ok {
		in.reply(r.id, nil, fmt.Errorf("no such method (run the same release on all nodes)"))
		return nil
	}
	select {
	case in.slots <- struct{}{}:
	default:
		in.reply(r.id, nil, fmt.Errorf("%d calls are being handled: %w", maxHandled, ErrBusy))
		return nil
	}
	payload := own(f, r.payload)
	running.Go(func() {
		defer func() { <-in.slots }()
		res, err := h.(CallHandler)(in.ctx, in.hello.Node, payload)
		in.reply(r.id, res, err)
	})
	return nil
}

// reply queues the answer of a call. If the answers of a dialer that does not read
// them fill their queue, the connection ends: the callers must not wait for ever.
func (in *inbound) reply(id uint64, res []byte, err error) {
	if err == nil && len(res) > MaxCall {
		err = fmt.Errorf("result of %d bytes, limit %d: %w", len(res), MaxCall, ErrTooLarge)
	}
	r := result{id: id, payload: res}
	if err != nil {
		text := err.Error()
		r.failed, r.payload = true, []byte(text[:min(len(text), maxHello)])
	}
	if !in.out.putOrdered(r.size(), func(b []byte) []byte { return appendResult(b, r) }) && in.ctx.Err() == nil {
		in.end(fmt.Errorf("answer call: %w", ErrBusy))
	}
}
