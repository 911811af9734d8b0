package wal_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"

	"github.com/phxsql/phxsql/vfs"
	"github.com/phxsql/phxsql/wal"
)

var (
	crashSeeds = flag.Int("wal.seeds", 600, "number of seeds of the crash test")
	crashSeed  = flag.Uint64("wal.seed", 0, "run the crash test with this seed only")
)

// model is what a log holds, kept the naive way.
type model struct {
	entries map[uint32]map[uint64]string
	trims   map[uint32]uint64
	states  map[string]string
}

func newModel() *model {
	return &model{entries: map[uint32]map[uint64]string{}, trims: map[uint32]uint64{}, states: map[string]string{}}
}

func (m *model) clone() *model {
	c := newModel()
	for g, e := range m.entries {
		c.entries[g] = maps.Clone(e)
	}
	c.trims, c.states = maps.Clone(m.trims), maps.Clone(m.states)
	return c
}

func (m *model) apply(r wal.Record) {
	e := m.entries[r.Group]
	if e == nil {
		e = map[uint64]string{}
		m.entries[r.Group] = e
	}
	switch r.Kind {
	case wal.KindEntry:
		e[r.Index] = string(r.Payload)
	case wal.KindState:
		m.states[fmt.Sprint(r.Group, "/", r.Key)] = string(r.Payload)
	case wal.KindTrim:
		m.trims[r.Group] = max(m.trims[r.Group], r.Index)
		maps.DeleteFunc(e, func(i uint64, _ string) bool { return i < r.Index })
	}
}

func (m *model) bounds(g uint32) (first, last uint64) {
	if len(m.entries[g]) == 0 {
		t := max(m.trims[g], 1)
		return t, t - 1
	}
	first = 1 << 63
	for i := range m.entries[g] {
		first, last = min(first, i), max(last, i)
	}
	return first, last
}

const (
	modelGroups = 3
	modelKeys   = 2
)

// differs returns how the log is not what the model says, or "".
func (m *model) differs(l *wal.Log) string {
	for g := range uint32(modelGroups) {
		first, last := m.bounds(g)
		if f, x := l.Bounds(g); f != first || x != last {
			return fmt.Sprintf("bounds of group %d: %d to %d, want %d to %d", g, f, x, first, last)
		}
		for i := first; i <= last; i++ {
			want, ok := m.entries[g][i]
			got, err := l.Read(g, i)
			switch {
			case ok && err != nil:
				return fmt.Sprintf("entry %d/%d: %v", g, i, err)
			case ok && string(got) != want:
				return fmt.Sprintf("entry %d/%d: %d bytes %.20q, want %d bytes %.20q", g, i, len(got), got, len(want), want)
			case !ok && !errors.Is(err, wal.ErrNotFound):
				return fmt.Sprintf("entry %d/%d was never written: %v", g, i, err)
			}
		}
		for k := range uint8(modelKeys) {
			got, ok := l.State(g, k)
			want, there := m.states[fmt.Sprint(g, "/", k)]
			if ok != there || string(got) != want {
				return fmt.Sprintf("state %d/%d: %q %v, want %q %v", g, k, got, ok, want, there)
			}
		}
	}
	return ""
}

// world is a log, what it must hold, and a machine that may crash at any
// operation of its disk.
type world struct {
	t        *testing.T
	rng      *rand.Rand
	mem      *vfs.Mem
	fuse     int // operations until the power cut; negative means none
	log      *wal.Log
	identity string
	base     *model       // what was there when the log was opened
	done     []wal.Record // appended since; LSN n is done[n-1]
	durable  int          // of done, certainly
}

var errPowerCut = errors.New("power cut")

func (w *world) inject(op vfs.Op) vfs.Fault {
	if w.fuse < 0 {
		return vfs.Fault{}
	}
	if w.fuse > 0 {
		w.fuse--
		return vfs.Fault{}
	}
	short := 0
	if op.Kind == vfs.OpWrite {
		end := (op.Offset + w.rng.Int64N(op.Size+1)) &^ (vfs.SectorSize - 1)
		short = int(max(end-op.Offset, 0))
	}
	return vfs.Fault{Err: errPowerCut, Short: short, Drop: w.rng.IntN(2) == 0}
}

// open opens the log, through power cuts, and checks what is in it.
func (w *world) open() {
	for {
		l, err := wal.Open(wal.Options{
			FS: &vfs.Faulty{FS: w.mem, Inject: w.inject}, Dir: "/log", SegmentSize: 8 << 10, Inline: true,
			Rand: bytes.NewReader(fmt.Appendf(nil, "%016d", w.rng.Uint64()%1e16)),
		})
		if errors.Is(err, errPowerCut) {
			w.die()
			continue
		}
		if err != nil {
			w.t.Fatal(err)
		}
		w.log = l
		break
	}
	if w.identity == "" {
		w.identity = w.log.Identity()
	}
	if got := w.log.Identity(); got != w.identity {
		w.t.Fatalf("identity is %s, was %s", got, w.identity)
	}
	w.settle()
}

// settle finds the prefix of what was appended that is there.
func (w *world) settle() {
	fuse := w.fuse
	w.fuse = -1 // not while checking
	defer func() { w.fuse = fuse }()
	m := w.base.clone()
	for _, r := range w.done[:w.durable] {
		m.apply(r)
	}
	first := m.differs(w.log)
	diff := first
	for i := w.durable; diff != "" && i < len(w.done); i++ {
		m.apply(w.done[i])
		diff = m.differs(w.log)
	}
	if diff != "" {
		w.t.Fatalf("log is no prefix of what was appended from %d (synced) to %d:\nnothing more than what was synced: %s\nall: %s", w.durable, len(w.done), first, diff)
	}
	w.base, w.done, w.durable = m, nil, 0
}

func (w *world) crash() {
	w.mem.Crash(w.rng)
	w.fuse = -1
}

// die ends a process whose disk has failed, often without the machine: what it wrote
// can be read, and is not on the disk.
func (w *world) die() {
	if w.rng.IntN(2) == 0 {
		w.crash()
		return
	}
	w.mem.Kill()
	w.fuse = -1
}

func (w *world) record() wal.Record {
	g := w.rng.Uint32N(modelGroups)
	size := w.rng.IntN(40)
	switch w.rng.IntN(20) {
	case 0:
		size = w.rng.IntN(3000)
	case 1:
		if w.rng.IntN(10) == 0 {
			size = w.rng.IntN(20000)
		}
	}
	p := bytes.Repeat([]byte{byte(w.rng.IntN(256))}, size) // zeros too
	if w.rng.IntN(3) == 0 {
		return wal.Record{Group: g, Kind: wal.KindState, Key: uint8(w.rng.IntN(modelKeys)), Payload: p}
	}
	first, last := w.log.Bounds(g)
	index := last + 1 + w.rng.Uint64N(2)
	if last > first && w.rng.IntN(4) == 0 {
		index = first + w.rng.Uint64N(last-first)
	}
	return wal.Record{Group: g, Kind: wal.KindEntry, Index: index, Payload: p}
}

func (w *world) append() {
	recs := make([]wal.Record, 0, 8)
	for range 1 + w.rng.IntN(8) {
		recs = append(recs, w.record())
	}
	lsn, err := w.log.Append(recs...)
	if errors.Is(err, errPowerCut) && errors.Is(err, wal.ErrFailed) {
		w.crash()
		w.open()
		return
	}
	if err != nil {
		w.t.Fatal(err)
	}
	w.done = append(w.done, recs...)
	if int(lsn) != len(w.done) {
		w.t.Fatalf("LSN %d, want %d", lsn, len(w.done))
	}
}

func (w *world) trim() {
	g := w.rng.Uint32N(modelGroups)
	first, last := w.log.Bounds(g)
	index := first + w.rng.Uint64N(last-first+3)
	if index > w.base.trims[g] {
		w.log.TrimBelow(g, index)
		// One that is no news is not appended.
		if lsn, err := w.log.Append(); err != nil || int(lsn) == len(w.done) {
			return
		}
		if f, _ := w.log.Bounds(g); f < index {
			w.t.Fatalf("first is %d after TrimBelow(%d)", f, index)
		}
		w.done = append(w.done, wal.Record{Group: g, Kind: wal.KindTrim, Index: index})
	}
}

// sync reports whether the machine is still up.
func (w *world) sync() bool {
	lsn, err := w.log.Sync()
	w.durable = int(lsn)
	if err == nil && w.durable != len(w.done) {
		w.t.Fatalf("Sync made %d of %d records durable", w.durable, len(w.done))
	}
	if err != nil && (!errors.Is(err, errPowerCut) || !errors.Is(err, wal.ErrFailed)) {
		w.t.Fatal(err)
	}
	return err == nil
}

func (w *world) step() {
	switch n := w.rng.IntN(40); {
	case n < 20:
		w.append()
	case n < 32:
		if !w.sync() {
			w.die()
			w.open()
		}
	case n < 35:
		w.trim()
	case n < 36:
		w.fuse = w.rng.IntN(12)
	case n < 37:
		w.crash()
		w.open()
	case n < 38: // the process dies, the machine lives
		w.mem.Kill()
		w.open()
	default:
		err := w.log.Close()
		if err == nil {
			w.durable = len(w.done)
		} else {
			w.durable = int(w.log.Durable())
			w.die()
		}
		w.open()
	}
}

// TestCrash appends, syncs, trims, crashes and opens at random: what was synced
// is there, nothing else is invented, and what was not synced is there as a
// prefix.
func TestCrash(t *testing.T) {
	run := func(seed uint64) {
		w := &world{t: t, rng: rand.New(rand.NewPCG(seed, 1)), mem: vfs.NewMem(), fuse: -1, base: newModel()}
		defer func() {
			if t.Failed() {
				t.Logf("reproduce with: go test ./wal -run TestCrash -wal.seed %d", seed)
			}
		}()
		w.open()
		for range 120 {
			w.step()
		}
		w.sync()
		w.crash()
		w.open()
	}
	if *crashSeed != 0 {
		run(*crashSeed)
		return
	}
	for seed := range uint64(*crashSeeds) {
		run(seed + 1)
	}
}
