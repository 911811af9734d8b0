package agent

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/phxsql/phxsql/internal/api"
	"github.com/phxsql/phxsql/internal/cluster"
	"github.com/phxsql/phxsql/internal/entry"
	"github.com/phxsql/phxsql/internal/gtid"
	"github.com/phxsql/phxsql/paxos"
)

// world is everything around a loop, without processes, disks and networks. It
// traces what the loop did: fast actions and slow ones, each in order.
type world struct {
	mu       sync.Mutex
	fast     []string
	tardy    []string
	lead     paxos.Leadership
	lease    bool
	changed  chan struct{}
	chosen   paxos.Instance
	epoch    entry.Value
	members  paxos.Members
	exited   func(string)
	ended    func(error)
	drained  bool
	hold     map[string]chan struct{} // slow actions that wait
	fail     map[string]error
	running  bool
	replica  bool
	unplaced bool   // no log goes on from what the server holds
	lacks    string // GTIDs of the log that the server never executes
	has      string // GTIDs that the server has executed
}

func newWorld() *world {
	w := &world{chosen: 1, changed: make(chan struct{}), hold: map[string]chan struct{}{}, fail: map[string]error{}, drained: true}
	w.members = paxos.Members{Cluster: "c", List: []paxos.Member{{ID: 1, Role: paxos.Voter}, {ID: 2, Role: paxos.Voter}, {ID: 3, Role: paxos.Voter}}}
	return w
}

func (w *world) did(what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fast = append(w.fast, what)
}

// slow notes an action, and waits while a test holds it.
func (w *world) slow(ctx context.Context, what string) error {
	w.mu.Lock()
	w.tardy = append(w.tardy, what)
	hold, err := w.hold[what], w.fail[what]
	w.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return err
}

// take returns the trace so far and begins a new one.
func (w *world) take() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := strings.Join(w.fast, " ") + " | " + strings.Join(w.tardy, " ")
	w.fast, w.tardy = nil, nil
	return s
}

func (w *world) setLead(l paxos.Leadership, lease bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lead, w.lease = l, lease
	close(w.changed)
	w.changed = make(chan struct{})
}

func (w *world) elect(round uint64) {
	w.setLead(paxos.Leadership{Leader: 1, Term: paxos.Ballot{Round: round, Node: 1}, Ready: true}, true)
}

func (w *world) Propose(data []byte, done func(paxos.Instance, error)) error {
	v, err := entry.Decode(data)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.chosen++
	w.epoch = v
	i := w.chosen
	go done(i, nil)
	return nil
}

func (w *world) Leadership() paxos.Leadership { w.mu.Lock(); defer w.mu.Unlock(); return w.lead }
func (w *world) LeaseValid() bool             { w.mu.Lock(); defer w.mu.Unlock(); return w.lease }
func (w *world) Changed() <-chan struct{}     { w.mu.Lock(); defer w.mu.Unlock(); return w.changed }
func (w *world) Members() paxos.Members       { w.mu.Lock(); defer w.mu.Unlock(); return w.members }
func (w *world) Chosen() paxos.Instance       { w.mu.Lock(); defer w.mu.Unlock(); return w.chosen }
func (w *world) SetCandidacy(able bool, _ time.Duration) {
	w.did(map[bool]string{true: "able", false: "unable"}[able])
}

func (w *world) Transfer(to paxos.NodeID) error {
	w.did("transfer")
	w.setLead(paxos.Leadership{Leader: to}, false)
	return nil
}

func (w *world) Position() (paxos.Instance, uint64, paxos.NodeID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.chosen, w.epoch.Epoch, paxos.NodeID(w.epoch.Node)
}
func (w *world) Executed() *gtid.Set {
	w.mu.Lock()
	defer w.mu.Unlock()
	set, err := gtid.ParseSet(w.lacks)
	if err != nil {
		panic(err)
	}
	return set
}
func (w *world) Wait(context.Context, paxos.Instance) error { return nil }

func (w *world) ServerUUID() gtid.UUID                  { return gtid.UUID{1} }
func (w *world) Init(ctx context.Context, _ bool) error { return w.slow(ctx, "init") }
func (w *world) Start(ctx context.Context, exited func(string)) error {
	err := w.slow(ctx, "start")
	w.mu.Lock()
	defer w.mu.Unlock()
	w.exited, w.running, w.replica = exited, err == nil, false
	return err
}
func (w *world) exit(reason string) {
	w.mu.Lock()
	f, was := w.exited, w.running
	w.running = false
	w.mu.Unlock()
	if was {
		f(reason)
	}
}
func (w *world) Stop(ctx context.Context) error {
	err := w.slow(ctx, "stop")
	w.exit("stopped")
	return err
}
func (w *world) Kill(func(error))       { w.did("kill"); go w.exit("signal: killed") }
func (w *world) Crashed() time.Duration { return 0 }
func (w *world) StartReplica(ctx context.Context) error {
	w.mu.Lock()
	w.replica = true
	w.mu.Unlock()
	return w.slow(ctx, "replica")
}
func (w *world) OwnPrepared(context.Context) error { return nil }

func (w *world) StopReplica(ctx context.Context) error {
	w.mu.Lock()
	w.replica = false
	w.mu.Unlock()
	return w.slow(ctx, "unreplica")
}
func (w *world) MakeWritable(ctx context.Context) error  { return w.slow(ctx, "writable") }
func (w *world) MakeReadOnly(ctx context.Context) error  { return w.slow(ctx, "readonly") }
func (w *world) EnableEvents(ctx context.Context) error  { return w.slow(ctx, "events") }
func (w *world) DisableEvents(ctx context.Context) error { return w.slow(ctx, "unevents") }
func (w *world) Observe(context.Context) (observation, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	set, err := gtid.ParseSet(w.has)
	if err != nil {
		return observation{}, err
	}
	o := observation{Executed: set}
	if w.replica {
		o.Replica = cluster.ReplicaRunning
	}
	return o, nil
}

// WaitExecuted returns when the server replicates: there is something to execute.
func (w *world) WaitExecuted(ctx context.Context, _ *gtid.Set) error {
	for ctx.Err() == nil {
		w.mu.Lock()
		done := w.replica && w.lacks == ""
		w.mu.Unlock()
		if done {
			return nil
		}
		time.Sleep(time.Millisecond)
	}
	return ctx.Err()
}

func (w *world) FetchCopy(ctx context.Context) (paxos.Instance, error) {
	return 0, w.slow(ctx, "fetch")
}
func (w *world) AdoptCopy(ctx context.Context, _ bool) error { return w.slow(ctx, "adopt") }
func (w *world) SetAside(ctx context.Context) error          { return w.slow(ctx, "aside") }
func (w *world) PlaceLog(ctx context.Context) (bool, error) {
	err := w.slow(ctx, "place")
	w.mu.Lock()
	defer w.mu.Unlock()
	return !w.unplaced, err
}
func (w *world) Restored() { w.did("restored") }

func (w *world) Attach(ctx context.Context, _ uint64, ended func(error)) error {
	w.mu.Lock()
	w.ended = ended
	w.mu.Unlock()
	return w.slow(ctx, "attach")
}
func (w *world) Detach(ctx context.Context) error { return w.slow(ctx, "detach") }
func (w *world) Abandon()                         {}

func (w *world) Open()             { w.did("OPEN") }
func (w *world) Close(string)      { w.did("CLOSE") }
func (w *world) Drain()            { w.did("drain") }
func (w *world) Drained() bool     { w.mu.Lock(); defer w.mu.Unlock(); return w.drained }
func (w *world) OpenReads()        {}
func (w *world) CloseReads(string) {}
func (w *world) RouteTo(r cluster.Route) {
	w.did("route:" + r.String())
}

// newTestLoop runs a loop in a world until the test ends.
func newTestLoop(t *testing.T) (*world, *loop) {
	w := newWorld()
	l := newLoop(1, slog.New(slog.DiscardHandler))
	l.cons, l.jour, l.db, l.tail, l.gate, l.peers = w, w, w, w, w, newPeers()
	l.restorer = w
	l.awaitApplied = func(context.Context, paxos.NodeID, paxos.Instance) error { return nil }
	l.heard = func() (paxos.Instance, bool) { return 0, false }
	ctx, cancel := context.WithCancel(context.Background())
	go l.serve(ctx)
	t.Cleanup(func() { cancel(); <-l.done })
	return w, l
}

// settle lets virtual time pass until the loop has nothing left to do.
func settle() {
	time.Sleep(time.Second)
	synctest.Wait()
}

func (l *loop) hear(id paxos.NodeID, a announcement) {
	a.Boot = time.Now().String()
	l.peers.put(id, a, time.Now())
}

func expect(t *testing.T, w *world, want string) {
	t.Helper()
	settle()
	if got := w.take(); got != want {
		t.Fatalf("the loop did\n  %s\nwant\n  %s", got, want)
	}
}

const promotion = "OPEN route:local | unreplica attach writable events"

func TestLoopPromotes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, l := newTestLoop(t)
		expect(t, w, "able | init start replica")
		w.elect(1)
		expect(t, w, promotion)
		if s := l.last.Load(); s.state() != api.StateMaster {
			t.Errorf("state %s", s.state())
		}
	})
}

// Closing the gate does not wait for the slow action that happens to run.
func TestLoopClosesWhileBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := newTestLoop(t)
		settle()
		w.take()
		w.hold["writable"] = make(chan struct{})
		w.elect(1)
		expect(t, w, " | unreplica attach writable")
		w.setLead(paxos.Leadership{Leader: 2}, false)
		expect(t, w, "kill unable able | start detach replica")
	})
}

func TestLoopLosesLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := newTestLoop(t)
		settle()
		w.elect(1)
		settle()
		w.take()
		w.setLead(w.Leadership(), false)
		time.Sleep(200 * time.Millisecond)
		synctest.Wait()
		if got := w.take(); got != "CLOSE route:none | " {
			t.Fatalf("the lease ended: %s", got)
		}
		w.setLead(paxos.Leadership{}, false)
		expect(t, w, "kill unable able | start detach replica")
	})
}

func TestLoopServerDies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, l := newTestLoop(t)
		settle()
		w.elect(1)
		settle()
		w.take()
		l.hear(2, announcement{Able: true})
		settle()
		w.exit("signal: segmentation fault")
		expect(t, w, "CLOSE transfer unable route:none able | start detach replica")
	})
}

// With nobody else able the same node is promoted again, under a new epoch.
func TestLoopServerDiesAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := newTestLoop(t)
		settle()
		w.elect(1)
		settle()
		w.take()
		w.exit("signal: segmentation fault")
		expect(t, w, "CLOSE unable route:none able OPEN route:local | start detach replica unreplica attach writable events")
		if _, n, _ := w.Position(); n != 2 {
			t.Errorf("epoch %d", n)
		}
	})
}

func TestLoopTailEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, l := newTestLoop(t)
		settle()
		w.elect(1)
		settle()
		w.take()
		l.hear(2, announcement{Able: true})
		w.ended(errors.New("connection reset"))
		expect(t, w, "CLOSE kill transfer unable route:none able | start detach replica")
	})
}

func TestLoopSwitchover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, l := newTestLoop(t)
		settle()
		w.elect(1)
		settle()
		w.take()
		l.hear(2, announcement{Able: true})
		answer := make(chan error, 1)
		go func() { answer <- l.requestSwitchover(context.Background(), 2, switchLimit) }()
		expect(t, w, "drain CLOSE route:none transfer unable able | readonly detach unevents replica")
		l.hear(2, announcement{Able: true, Member: api.MemberStatus{Master: true}})
		if err := <-answer; err != nil {
			t.Fatal(err)
		}
		expect(t, w, "route:remote node=2 | ")
	})
}

// A leader whose server lacks much gives leadership to a member that says of itself that
// it lacks nothing of what precedes the epoch; what it said before does not count.
func TestLoopGivesWayToWhoIsFurther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, l := newTestLoop(t)
		settle()
		w.mu.Lock()
		w.lacks = "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-50000"
		w.mu.Unlock()
		w.take()
		before := w.Chosen()
		w.elect(1)
		settle()
		l.hear(2, announcement{Able: true, Counted: before})
		expect(t, w, " | ")
		l.hear(2, announcement{Able: true, Counted: w.Chosen()})
		expect(t, w, "transfer able | ")
		w.mu.Lock()
		w.lacks = "" // who waits for it ends
		w.mu.Unlock()
		settle()
	})
}

// A switchover whose commits do not end is taken back.
func TestLoopSwitchoverTakenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, l := newTestLoop(t)
		settle()
		w.elect(1)
		settle()
		w.take()
		l.hear(2, announcement{Able: true})
		w.hold["readonly"] = make(chan struct{})
		err := l.requestSwitchover(context.Background(), 2, 2*time.Second)
		var refused *api.Error
		if !errors.As(err, &refused) {
			t.Fatalf("got %v", err)
		}
		expect(t, w, "drain CLOSE route:none OPEN route:local | readonly writable")
	})
}

func TestLoopStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, l := newTestLoop(t)
		settle()
		w.elect(1)
		settle()
		w.take()
		l.requestStop(10 * time.Second)
		if got, want := w.take(), "CLOSE unable route:none | readonly detach stop"; got != want {
			t.Fatalf("the loop did\n  %s\nwant\n  %s", got, want)
		}
	})
}

// A node whose log is trimmed elsewhere looks where it goes on; where it does not, the
// server gets other data first.
func TestLoopIsRestored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, l := newTestLoop(t)
		w.setLead(paxos.Leadership{Leader: 2}, false)
		settle()
		w.take()
		w.mu.Lock()
		w.unplaced = true
		w.mu.Unlock()
		w.hold["adopt"] = make(chan struct{})
		l.post(func() { l.lacks(100) })
		settle()
		expect(t, w, "unable | unreplica place fetch stop adopt")
		w.mu.Lock()
		w.unplaced = false
		w.mu.Unlock()
		w.hold["place"] = make(chan struct{})
		close(w.hold["adopt"])
		expect(t, w, " | start place")
		w.mu.Lock()
		w.chosen = 150
		w.mu.Unlock()
		close(w.hold["place"])
		expect(t, w, "unable able | replica")

		// What is said of other data does not count. What is not like the master's rows
		// makes way for another copy.
		data := l.last.Load().data
		l.post(func() { l.proved(data-1, "its rows are the same"); l.refuse(data-1, "t, all rows", 2) })
		expect(t, w, " | ")
		if s := l.last.Load(); !s.unproved || !s.followed {
			t.Errorf("unproved %v, followed %v", s.unproved, s.followed)
		}
		l.post(func() { l.refuse(data, "t, all rows", 2) })
		expect(t, w, "unable able | unreplica fetch stop adopt start replica")
		if s := l.last.Load(); !s.unproved || s.data != data+1 || s.state() != api.StateProving {
			t.Errorf("unproved %v, data %d, state %s", s.unproved, s.data, s.state())
		}
		l.post(func() { l.proved(data+1, "its rows are the same") })
		expect(t, w, "able restored | ") // without the delay
		if s := l.last.Load(); s.unproved || s.state() != api.StateFollower {
			t.Errorf("unproved %v, state %s", s.unproved, s.state())
		}
	})
}

// New data that always lack the newest transactions are compared all the same, once the
// server has executed what there was when it began; one that is far behind is not.
func TestLoopFollowsTheLogUnderLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, l := newTestLoop(t)
		w.setLead(paxos.Leadership{Leader: 2}, false)
		settle()
		const before = 20_000
		followed := func(end, executed int) bool {
			const server = "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-"
			w.mu.Lock()
			w.chosen, w.lacks, w.has = paxos.Instance(end), server+strconv.Itoa(end), server+strconv.Itoa(executed)
			w.mu.Unlock()
			settle()
			return l.last.Load().followed
		}
		l.post(l.dataReplaced)
		for n := 1; n < before; n += before / 10 {
			if followed(before+n, n) {
				t.Fatalf("executed %d of %d", n, before)
			}
		}
		for n := 2 * before; n < 2*before+10; n++ {
			if followed(n, n-3) {
				return
			}
		}
		t.Error("it has executed all that there was, and lacks three transactions; it is not compared")
	})
}

// A node that is alone with its new data has nothing to compare them with.
func TestLoopAloneIsProved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, l := newTestLoop(t)
		l.post(l.doubt)
		w.elect(1)
		settle()
		if s := l.last.Load(); !s.unproved || s.view.Gate != cluster.GateOpen {
			t.Errorf("unproved %v, gate %d", s.unproved, s.view.Gate)
		}
		w.mu.Lock()
		w.members.List = w.members.List[:1]
		w.mu.Unlock()
		settle()
		if s := l.last.Load(); s.unproved {
			t.Error("it is not proved")
		}
	})
}

func TestBackoffGrowsAndEnds(t *testing.T) {
	var ds []time.Duration
	for n := range 20 {
		ds = append(ds, backoff(n))
	}
	if !slices.IsSorted(ds) || ds[1] != 0 || ds[19] != 15*time.Second {
		t.Errorf("got %v", ds)
	}
}
