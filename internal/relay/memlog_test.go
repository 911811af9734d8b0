package relay

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"

	"github.com/phxsql/phxsql/internal/entry"
	"github.com/phxsql/phxsql/internal/gtid"
	"github.com/phxsql/phxsql/paxos"
)

var errNotLeader = errors.New("not the leader")

// memLog is a log of one member in memory. Values are chosen in order, at once
// or when the test says so.
type memLog struct {
	mu      sync.Mutex
	entries []paxos.Entry // chosen; instance i is entries[i-1]
	first   paxos.Instance
	queue   []queued // proposed, not chosen
	held    bool
	deposed bool
	changed chan struct{}
	work    chan struct{}
}

type queued struct {
	data []byte
	done func(paxos.Instance, error)
}

func newMemLog(t testing.TB) *memLog {
	l := &memLog{first: 1, changed: make(chan struct{}), work: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { l.run(ctx) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	return l
}

// run chooses what is queued, from a goroutine of its own like a real log.
func (l *memLog) run(ctx context.Context) {
	for {
		select {
		case <-l.work:
		case <-ctx.Done():
			return
		}
		for l.chooseOne() {
		}
	}
}

func (l *memLog) chooseOne() bool {
	l.mu.Lock()
	if l.held || len(l.queue) == 0 {
		l.mu.Unlock()
		return false
	}
	q := l.queue[0]
	l.queue = l.queue[1:]
	i := l.append(paxos.Entry{Kind: paxos.Normal, Data: q.data})
	l.mu.Unlock()
	if q.done != nil {
		q.done(i, nil)
	}
	return true
}

func (l *memLog) append(e paxos.Entry) paxos.Instance {
	e.Instance = paxos.Instance(len(l.entries) + 1)
	l.entries = append(l.entries, e)
	close(l.changed)
	l.changed = make(chan struct{})
	return e.Instance
}

func (l *memLog) Propose(data []byte, done func(paxos.Instance, error)) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.deposed {
		return errNotLeader
	}
	l.queue = append(l.queue, queued{data, done})
	l.kick()
	return nil
}

func (l *memLog) kick() {
	select {
	case l.work <- struct{}{}:
	default:
	}
}

// hold stops or resumes choosing.
func (l *memLog) hold(on bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held = on
	l.kick()
}

// queuedValues is how many values wait to be chosen.
func (l *memLog) queuedValues() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.queue)
}

// add chooses a value at once.
func (l *memLog) add(v *entry.Value) paxos.Instance {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.append(paxos.Entry{Kind: paxos.Normal, Data: v.Encode()})
}

func (l *memLog) Chosen() paxos.Instance {
	l.mu.Lock()
	defer l.mu.Unlock()
	return paxos.Instance(len(l.entries))
}

func (l *memLog) WaitChosen(ctx context.Context, i paxos.Instance) error {
	for {
		l.mu.Lock()
		ok, changed := paxos.Instance(len(l.entries)) >= i, l.changed
		l.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (l *memLog) Read(i paxos.Instance) (paxos.Entry, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i < l.first || int(i) > len(l.entries) {
		return paxos.Entry{}, errors.New("no such instance")
	}
	return l.entries[i-1], nil
}

func (l *memLog) First() paxos.Instance {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.first
}

// trim forgets what is before i.
func (l *memLog) trim(i paxos.Instance) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.first = i
	clear(l.entries[:i-1])
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func testLogger(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func txid(n int64) gtid.GTID {
	return gtid.GTID{Source: gtid.Source{UUID: gtid.UUID{0xaa}}, GNO: n}
}

func setOf(t testing.TB, text string) *gtid.Set {
	t.Helper()
	s, err := gtid.ParseSet(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}
