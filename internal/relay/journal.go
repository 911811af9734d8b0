package relay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/phxsql/phxsql/internal/entry"
	"github.com/phxsql/phxsql/internal/gtid"
	"github.com/phxsql/phxsql/paxos"
)

// ErrSuperseded says that a newer epoch stands in the log: who asked is not
// master any more, and what it proposed may be void.
var ErrSuperseded = errors.New("a newer epoch stands in the log")

// Counts is what a journal has seen since it began.
type Counts struct {
	Epochs       uint64 // epochs that began
	Transactions uint64 // transactions that count
	Bytes        uint64 // of their events
	Values       uint64 // application values, void ones included
	Void         uint64 // values that do not count
	Notices      uint64 // values that hold no transaction
	Settings     uint64 // changes of the settings that count
	Repeated     uint64 // transactions that counted before already; servers skip them
}

// Journal follows the chosen log. Its methods may be called by several
// goroutines. Its memory does not grow with the log: see index.
type Journal struct {
	log    Log
	logger *slog.Logger

	// advancing is held by the one goroutine that reads the log; mu guards
	// what all see and is never held while the log is read.
	advancing sync.Mutex
	value     entry.Value // guarded by advancing, reused, as the next two
	xa        xaReader
	largeXA   bool // the chunked transaction that has begun may be one of XA

	mu       sync.Mutex
	next     paxos.Instance // the first instance that is not followed yet
	fold     fold
	executed *gtid.Set
	before   *gtid.Set // executed when the newest epoch began; not changed
	members  []byte    // the newest membership, encoded; not changed
	bytes    uint64    // of the values followed since the journal began
	counts   Counts
	index    index
	open     map[string]paxos.Instance // prepared by XA and not decided, with where each begins
	failed   error                     // the log holds what this program cannot read
	settings *Settings                 // what all changes come to; never nil, not changed
	listen   Listener                  // nil: nobody listens
	await    func(gtid.GTID)           // called for the next transaction that counts; nil
	changed  chan struct{}             // closed when next moves; nil while nobody waits

	resettled chan struct{} // closed when settings changes; nil while nobody waits
}

// Base is the state before an instance: what a journal begins from when the log's
// beginning is trimmed. No chunked transaction is unfinished there. The zero Base is
// the beginning.
type Base struct {
	Next     paxos.Instance // the first instance to follow
	Executed *gtid.Set      // everything that counts before it
	Epoch    Epoch          // the newest epoch before it
	Members  []byte         // the newest membership before it, encoded; nil if there is none
	Settings *Settings      // what the changes of settings before it come to; nil is none
}

// NewJournal returns a journal that has followed nothing beyond base yet.
func NewJournal(log Log, base Base, logger *slog.Logger) *Journal {
	j := &Journal{log: log, logger: logger}
	j.begin(base)
	return j
}

// Listener is told of the notices of the log, in order, on the way to
// acknowledgements: it must return at once and not call the journal. The text
// belongs to it.
type Listener func(i paxos.Instance, kind entry.Kind, text []byte)

// Listen has the listener told of every notice that the journal follows from now on.
func (j *Journal) Listen(f Listener) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.listen = f
}

// AwaitTransaction has f called once, when the next transaction that counts is
// followed. It is called as a Listener is. Nil takes the last call back.
func (j *Journal) AwaitTransaction(f func(gtid.GTID)) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.await = f
}

// begin goes on from a base; mu is held or nobody else knows the journal yet.
func (j *Journal) begin(b Base) {
	j.next, j.fold, j.members = max(b.Next, 1), fold{epoch: b.Epoch}, b.Members
	j.executed, j.before = b.Executed.Clone(), b.Executed.Clone()
	j.setSettings(b.Settings)
	j.index = index{}
	j.open = map[string]paxos.Instance{}
	j.mark()
}

// mark adds a checkpoint of the present state.
func (j *Journal) mark() {
	j.index.add(checkpoint{
		next: j.next, fold: j.fold, executed: j.executed.Clone(), members: j.members, bytes: j.bytes, undecided: j.undecided(),
		settings: j.settings,
	})
}

// Rebase goes on from a base that lies beyond what the journal has followed. Install
// makes the log begin there; nothing of the log is read meanwhile.
func (j *Journal) Rebase(b Base, install func() error) error {
	j.advancing.Lock()
	defer j.advancing.Unlock()
	if err := install(); err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if b.Next > j.next {
		j.begin(b)
		j.failed = nil
	}
	return nil
}

// Follow follows the log until the context ends or the log cannot be read. It
// keeps the journal current; others may read it meanwhile.
func (j *Journal) Follow(ctx context.Context) error {
	for {
		if err := j.advance(ctx); err != nil {
			return err
		}
		if err := j.log.WaitChosen(ctx, j.Through()+1); err != nil {
			return fmt.Errorf("follow log: %w", err)
		}
	}
}

// advance follows everything that is chosen now. Whoever needs the journal to be
// current calls it: that spares a change of goroutines on the way to an
// acknowledgement.
func (j *Journal) advance(ctx context.Context) error {
	j.advancing.Lock()
	defer j.advancing.Unlock()
	for i, end := j.Through()+1, j.log.Chosen(); i <= end; i++ {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("follow log: %w", err)
		}
		if err := j.step(i); err != nil {
			j.mu.Lock()
			j.failed = err
			j.mu.Unlock()
			return err
		}
	}
	j.mu.Lock()
	if j.changed != nil {
		close(j.changed)
		j.changed = nil
	}
	j.mu.Unlock()
	return nil
}

// step follows the entry at i.
func (j *Journal) step(i paxos.Instance) error {
	e, err := j.log.Read(i)
	if err != nil {
		return fmt.Errorf("follow log: read instance %d: %w", i, err)
	}
	if e.Kind != paxos.Normal {
		j.mu.Lock()
		j.next = i + 1
		if e.Kind == paxos.Membership {
			j.members = bytes.Clone(e.Data)
		}
		j.mu.Unlock()
		return nil
	}
	v := &j.value
	if err := v.Decode(e.Data); err != nil {
		return fmt.Errorf("follow log: instance %d: %w (was it written by a newer version of this program?)", i, err)
	}
	var change entry.Change
	if v.Kind == entry.Settings {
		if change, err = entry.DecodeChange(v.Events); err != nil {
			return fmt.Errorf("follow log: instance %d: %w (was it written by a newer version of this program?)", i, err)
		}
	}
	marks := j.examine(i, v)
	j.mu.Lock()
	defer j.mu.Unlock()
	j.apply(i, v)
	if v.Kind == entry.Settings {
		j.changeSettings(i, change)
	}
	j.decide(marks)
	j.next = i + 1
	j.bytes += uint64(len(e.Data))
	if j.index.note(len(e.Data)) && !j.fold.open {
		j.mark()
	}
	return nil
}

func (j *Journal) apply(i paxos.Instance, v *entry.Value) {
	j.counts.Values++
	switch j.fold.apply(i, v) {
	case void:
		j.counts.Void++
		j.logger.Warn("value_void", "instance", i, "kind", v.Kind.String(), "epoch", v.Epoch, "node", v.Node,
			"newest_epoch", j.fold.epoch.Number)
	case begins:
		j.counts.Epochs++
		j.before = j.executed.Clone()
		j.logger.Info("epoch_began", "instance", i, "epoch", v.Epoch, "node", v.Node, "server_uuid", v.ServerUUID.String())
	case aside:
		j.counts.Notices++
		if j.listen != nil {
			j.listen(i, v.Kind, bytes.Clone(v.Events))
		}
	case whole, completed:
		if j.await != nil {
			j.await(v.Txns[0].GTID)
			j.await = nil
		}
		for k := range v.Txns {
			j.counts.Transactions++
			j.counts.Bytes += v.Txns[k].Size
			if !j.executed.Add(v.Txns[k].GTID) {
				j.counts.Repeated++
				j.logger.Warn("transaction_repeated", "instance", i, "gtid", v.Txns[k].GTID.String())
			}
		}
	}
}

// Through is the newest instance that is followed.
func (j *Journal) Through() paxos.Instance {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.next - 1
}

// WaitThrough returns when everything through i is followed.
func (j *Journal) WaitThrough(ctx context.Context, i paxos.Instance) error {
	for {
		if err := j.advance(ctx); err != nil {
			return err
		}
		if j.Through() >= i {
			return nil
		}
		if err := j.log.WaitChosen(ctx, i); err != nil {
			return fmt.Errorf("wait for instance %d: %w", i, err)
		}
	}
}

// Confirm returns nil when everything through i is followed and the newest epoch
// is still the given one: every value of that epoch and its master through i
// counts. It returns ErrSuperseded when a newer epoch began.
func (j *Journal) Confirm(ctx context.Context, epoch uint64, i paxos.Instance) error {
	if err := j.WaitThrough(ctx, i); err != nil {
		return err
	}
	if newest := j.Epoch().Number; newest != epoch {
		return fmt.Errorf("confirm epoch %d at instance %d: epoch %d is the newest: %w", epoch, i, newest, ErrSuperseded)
	}
	return nil
}

// Executed returns the GTIDs of all transactions that count so far. The set
// belongs to the caller.
func (j *Journal) Executed() *gtid.Set {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.executed.Clone()
}

// Contains reports whether every transaction of the set is in the log and
// counts.
func (j *Journal) Contains(set *gtid.Set) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.executed.ContainsSet(set)
}

// Epoch returns the newest epoch.
func (j *Journal) Epoch() Epoch {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.fold.epoch
}

// AppliedBefore reports whether the set holds everything that counts before the
// newest epoch's instance, if that epoch is the given one: a server with
// that set may take writes in that epoch.
func (j *Journal) AppliedBefore(epoch uint64, set *gtid.Set) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.fold.epoch.Number == epoch && set.ContainsSet(j.before)
}

// Counts returns what the journal has seen.
func (j *Journal) Counts() Counts {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.counts
}

// Err returns why the journal cannot go on, or nil.
func (j *Journal) Err() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.failed
}

// start returns where a replica that has the set begins to read, and what it has
// executed before and forgotten.
func (j *Journal) start(set *gtid.Set) (at checkpoint, forgotten *gtid.Set, err error) {
	first := j.log.First()
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.index.find(set, first)
}

// moved returns a channel that is closed when the journal has moved beyond i; it
// is closed already when it has.
func (j *Journal) moved(i paxos.Instance) <-chan struct{} {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.next-1 > i {
		done := make(chan struct{})
		close(done)
		return done
	}
	if j.changed == nil {
		j.changed = make(chan struct{})
	}
	return j.changed
}
