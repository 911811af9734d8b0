package drill

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anishathalye/porcupine"
)

// The registers of a Registers load.
const (
	registers       = 6 // rows
	clientsPerPort  = 10
	registerLimit   = 6 * time.Second       // of one operation; what takes longer has an unknown outcome
	registerPause   = 60 * time.Millisecond // longest between two operations of a client
	linearizeLimit  = 90 * time.Second      // of the judgement
	registersSchema = "registers"
)

// Registers reads and writes single rows through all read-write ports, and
// records when each operation began and ended and what it said. Clients keep
// their connections for as long as they hold: one that is attached to a deposed
// master must not get an old answer from it.
type Registers struct {
	*crew
	target     Target
	dir        string        // for the picture
	rec        *Recorder     // nil: nobody keeps the history
	era        time.Duration // how long a set of registers is used; 0: for ever
	pause      time.Duration // longest time between two operations of a client
	turns      *pacer        // with the clients of other loads; nil: none
	staleReads bool          // old answers are no broken promise
	idlers     int           // clients per port that wait for its master to be deposed
	begun      time.Time
	next       atomic.Int64 // every value is written once

	mu      sync.Mutex
	history []porcupine.Operation
	pending int              // writes of unknown outcome
	acked   ackedWrite       // the newest
	heard   map[string]int64 // when each port answered last
	// surprises counts reads that were sent on connections from before a takeover.
	surprises int
}

// ackedWrite is a write that was acknowledged.
type ackedWrite struct {
	key   int
	began int64
}

// registerOp is one operation on one register.
type registerOp struct {
	key   int
	write bool
	value int64 // what was written
}

// StartRegisters makes the registers and starts the clients.
func (c *Cluster) StartRegisters(ctx context.Context) (*Registers, error) {
	return startRegistersOf(ctx, &Registers{target: c, dir: c.opt.Dir, pause: registerPause}, clientsPerPort)
}

func startRegistersOf(ctx context.Context, r *Registers, clients int) (*Registers, error) {
	err := prepare(ctx, r.target, "CREATE DATABASE IF NOT EXISTS "+registersSchema, "DROP TABLE IF EXISTS "+registersSchema+".r",
		"CREATE TABLE IF NOT EXISTS "+registersSchema+".r (k INT PRIMARY KEY, v BIGINT NOT NULL)")
	if err != nil {
		return nil, err
	}
	r.crew, r.begun, r.heard = newCrew(ctx), time.Now(), map[string]int64{}
	site := Site{Target: r.target, Rec: r.rec, Pace: r.turns}
	id := 0
	for _, p := range r.target.Ports() {
		for i := range clients + r.idlers {
			me := id
			id++
			one := func(conn *sql.Conn) error { return r.one(conn, p.RW, me, r.draw()) }
			if i < clients {
				err = r.client(site, p.RW, registersSchema, r.pause, one)
			} else {
				err = r.idler(site, p.RW, me)
			}
			if err != nil {
				r.Stop()
				return nil, err
			}
		}
	}
	return r, nil
}

// draw chooses an operation; two thirds are reads.
func (r *Registers) draw() registerOp {
	op := registerOp{key: r.base() + rand.IntN(registers), write: rand.IntN(3) == 0}
	if op.write {
		op.value = r.next.Add(1)
	}
	return op
}

// one does one operation through a port and records it. An error means that the
// connection is no good any more.
func (r *Registers) one(conn *sql.Conn, port string, client int, op registerOp) error {
	ctx, cancel := context.WithTimeout(context.Background(), registerLimit)
	defer cancel()
	call := r.now()
	var got int64
	var err error
	if op.write {
		_, err = conn.ExecContext(ctx, fmt.Sprintf("INSERT INTO r VALUES (%d, %d) ON DUPLICATE KEY UPDATE v = %d", op.key, op.value, op.value))
	} else {
		err = conn.QueryRowContext(ctx, fmt.Sprintf("SELECT v FROM r WHERE k = %d", op.key)).Scan(&got)
		if errors.Is(err, sql.ErrNoRows) {
			err = nil // a register is 0 until it is written
		}
	}
	end := r.now()
	r.tell(op, call, end, got, err)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil {
		r.heard[port] = max(r.heard[port], end)
	}
	switch {
	case err != nil && (!op.write || classify(err) == Refused):
		return err // it has no effect and told nothing
	case err != nil:
		end = math.MaxInt64 // it may take effect at any time, or never
		r.pending++
		client = 1000 + len(r.history) // its client goes on to other operations
	case op.write && call >= r.acked.began:
		r.acked = ackedWrite{op.key, call}
	}
	r.history = append(r.history, porcupine.Operation{ClientId: client, Input: op, Call: call, Output: got, Return: end})
	return err
}

// base is the first of the registers in use. The outcome of a write that nobody knows
// makes the judgement of its register harder from then on; new ones keep it easy.
func (r *Registers) base() int {
	if r.era == 0 {
		return 0
	}
	return int(time.Since(r.begun)/r.era) * registers
}

// tell keeps an operation in the history.
func (r *Registers) tell(op registerOp, call, end, got int64, err error) {
	if r.rec == nil {
		return
	}
	shift := r.rec.Now() - end // between the two clocks
	what := map[string]int64{"register": int64(op.key), "value": op.value}
	if op.write {
		r.rec.Write("registers", call+shift, end+shift, classify(err), what, err)
	} else if err == nil {
		what["value"] = got
		r.rec.Read("registers", call+shift, end+shift, what)
	}
}

func (r *Registers) now() int64 { return int64(time.Since(r.begun)) }

// Endure breaks the cluster once, waits until writes are acknowledged again, and
// until every node is well.
func (r *Registers) Endure(ctx context.Context, f Fault) error {
	c, ok := r.target.(*Cluster)
	if !ok {
		return fmt.Errorf("%s: this is no cluster", f.Name)
	}
	master, err := c.Master(ctx)
	if err != nil {
		return fmt.Errorf("%s: %w", f.Name, err)
	}
	c.opt.Say("%s (master is node %d)", f.Name, master.ID)
	if err := f.Break(ctx, c, master); err != nil {
		return fmt.Errorf("%s: %w", f.Name, err)
	}
	hold := time.After(f.Hold)
	if err := r.waitAck(ctx); err != nil {
		return fmt.Errorf("%s: %w\n%s", f.Name, err, c.logTails())
	}
	<-hold
	if f.Mend != nil {
		if err := f.Mend(ctx, c, master); err != nil {
			return fmt.Errorf("%s: mend: %w", f.Name, err)
		}
	}
	if err := r.waitAck(ctx); err != nil {
		return fmt.Errorf("%s: after the mend: %w\n%s", f.Name, err, c.logTails())
	}
	if err := c.waitRoles(ctx); err != nil {
		return fmt.Errorf("%s: %w", f.Name, err)
	}
	return nil
}

// waitAck waits for a write that began now or later.
func (r *Registers) waitAck(ctx context.Context) error {
	since := r.now()
	return Eventually(ctx, func() error {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.acked.began < since {
			return errors.New("no write was acknowledged")
		}
		return nil
	})
}

// Counts returns how many operations were recorded, and how many of them have an
// unknown outcome.
func (r *Registers) Counts() (operations, unknown int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.history), r.pending
}

// registerModel is a register that holds the value that was written last.
var registerModel = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		by := map[int][]porcupine.Operation{}
		for _, o := range history {
			k := o.Input.(registerOp).key
			by[k] = append(by[k], o)
		}
		return slices.Collect(maps.Values(by))
	},
	Init: func() any { return int64(0) },
	Step: func(state, input, output any) (bool, any) {
		if op := input.(registerOp); op.write {
			return true, op.value
		}
		return output.(int64) == state.(int64), state
	},
	DescribeOperation: func(input, output any) string {
		if op := input.(registerOp); op.write {
			return fmt.Sprintf("r%d := %d", op.key, op.value)
		}
		return fmt.Sprintf("r%d is %d", input.(registerOp).key, output)
	},
}

// errHistoryTooLong is no judgement.
var errHistoryTooLong = errors.New("judge registers: the history is too long to be judged in time")

// Verify returns an error unless there is one order of all operations that agrees
// with what every client saw and with real time. The picture of a history that
// has none is written to the cluster's folder.
func (r *Registers) Verify() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	result, info := porcupine.CheckOperationsVerbose(registerModel, r.history, linearizeLimit)
	switch result {
	case porcupine.Ok:
		return nil
	case porcupine.Unknown:
		return errHistoryTooLong
	}
	path := filepath.Join(r.dir, "registers.html")
	if err := porcupine.VisualizePath(registerModel, info, path); err != nil {
		return fmt.Errorf("judge registers: reads were not linearizable; the picture cannot be written: %w", err)
	}
	return fmt.Errorf("judge registers: reads were not linearizable, see %s", path)
}
