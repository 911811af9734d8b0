package relay

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/phxsql/phxsql/internal/entry"
	"github.com/phxsql/phxsql/internal/gtid"
	"github.com/phxsql/phxsql/paxos"
)

// The stories in testdata/fold say what counts. Commands:
//
//	epoch n=1 node=2             an Epoch value
//	txns e=1 node=2 gno=(5,6)    a Transactions value
//	chunk e=1 node=2 gno=5 at=0 len=4 size=9
//	noop
//	notice                       a value that holds no transaction
//	settings after=0 key=k value=v a change of the settings; without value the key is unset
//	state                        what the journal knows
//	settled                      the settings
func TestFoldStories(t *testing.T) {
	datadriven.Walk(t, "testdata/fold", func(t *testing.T, path string) {
		l := newMemLog(t)
		j := NewJournal(l, Base{}, quiet())
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			if d.Cmd == "state" {
				return journalState(j)
			}
			if d.Cmd == "settled" {
				return settled(j)
			}
			if d.Cmd == "noop" {
				l.mu.Lock()
				l.append(paxos.Entry{Kind: paxos.Noop})
				l.mu.Unlock()
			} else {
				l.add(storyValue(t, d))
			}
			before := j.Counts()
			if err := j.WaitThrough(t.Context(), l.Chosen()); err != nil {
				t.Fatal(err)
			}
			return storyVerdict(before, j.Counts())
		})
	})
}

func storyValue(t *testing.T, d *datadriven.TestData) *entry.Value {
	v := &entry.Value{}
	var gnos []int
	var at, length, size int
	d.MaybeScanArgs(t, "n", &v.Epoch)
	d.MaybeScanArgs(t, "e", &v.Epoch)
	d.MaybeScanArgs(t, "node", &v.Node)
	d.MaybeScanArgs(t, "gno", &gnos)
	d.MaybeScanArgs(t, "at", &at)
	d.MaybeScanArgs(t, "len", &length)
	d.MaybeScanArgs(t, "size", &size)
	switch d.Cmd {
	case "epoch":
		v.Kind = entry.Epoch
	case "txns":
		v.Kind = entry.Transactions
		for _, n := range gnos {
			v.Txns = append(v.Txns, entry.Txn{GTID: txid(int64(n)), Size: 10})
		}
		v.Events = make([]byte, 10*len(gnos))
	case "chunk":
		v.Kind, v.Offset, v.Events = entry.Chunk, uint64(at), make([]byte, length)
		v.Last = at+length == size
		v.Txns = []entry.Txn{{GTID: txid(int64(gnos[0])), Size: uint64(size)}}
	case "settings":
		var after int
		var key, value string
		d.ScanArgs(t, "after", &after)
		d.ScanArgs(t, "key", &key)
		c := entry.Change{After: uint64(after), By: "ann"}
		if d.HasArg("value") {
			d.ScanArgs(t, "value", &value)
			c.Set = map[string]string{key: value}
		} else {
			c.Unset = []string{key}
		}
		text, err := c.Encode()
		if err != nil {
			t.Fatal(err)
		}
		v.Kind, v.Events = entry.Settings, text
	case "notice":
		v.Kind, v.Events = 200, []byte("of a later version")
	default:
		t.Fatalf("unknown command %s", d.Cmd)
	}
	return v
}

func storyVerdict(a, b Counts) string {
	switch {
	case b.Settings > a.Settings:
		return "settles\n"
	case b.Notices > a.Notices:
		return "aside\n"
	case b.Void > a.Void:
		return "void\n"
	case b.Epochs > a.Epochs:
		return "begins\n"
	case b.Repeated > a.Repeated:
		return "repeated\n"
	case b.Transactions > a.Transactions:
		return fmt.Sprintf("%d count\n", b.Transactions-a.Transactions)
	}
	return "nothing visible\n"
}

// settled is the text of the settings that hold.
func settled(j *Journal) string {
	s, _ := j.Settings()
	var b strings.Builder
	fmt.Fprintf(&b, "at %d\n", s.At)
	for _, key := range slices.Sorted(maps.Keys(s.Values)) {
		v := s.Values[key]
		fmt.Fprintf(&b, "%s %s %d %s\n", key, v.Value, v.Instance, v.By)
	}
	b.WriteString("changes")
	for _, c := range s.History {
		fmt.Fprintf(&b, " %d", c.Instance)
	}
	return b.String() + "\n"
}

func journalState(j *Journal) string {
	text := strings.ReplaceAll(j.Executed().String(), gtid.UUID{0xaa}.String(), "A")
	e := j.Epoch()
	return fmt.Sprintf("epoch %d of node %d at %d, executed %q, open chunk %v\n", e.Number, e.Node, e.Instance, text, j.fold.open)
}

func txnsValue(epoch uint64, bytes int, gnos ...int64) *entry.Value {
	v := &entry.Value{Kind: entry.Transactions, Epoch: epoch, Node: 1, Events: make([]byte, bytes*len(gnos))}
	for _, n := range gnos {
		v.Txns = append(v.Txns, entry.Txn{GTID: txid(n), Size: uint64(bytes)})
	}
	return v
}

func TestIndexFindsTheNewestStart(t *testing.T) {
	l := newMemLog(t)
	j := NewJournal(l, Base{}, quiet())
	l.add(&entry.Value{Kind: entry.Epoch, Epoch: 1, Node: 1})
	const values = 200
	for n := int64(1); n <= values; n++ {
		l.add(txnsValue(1, 256<<10, n))
	}
	if err := j.WaitThrough(t.Context(), l.Chosen()); err != nil {
		t.Fatal(err)
	}
	if n := len(j.index.list); n < 10 || n > 20 {
		t.Errorf("%d checkpoints for 50 MiB", n)
	}
	for _, have := range []int64{0, 1, 17, 100, values} {
		set := &gtid.Set{}
		set.AddInterval(txid(1).Source, gtid.Interval{First: 1, Last: have})
		c, _, err := j.start(set)
		if err != nil {
			t.Fatal(err)
		}
		next := paxos.Instance(have + 2) // of the first transaction that is missing
		if c.next > next || next-c.next > 17 || !set.ContainsSet(c.executed) {
			t.Errorf("with 1-%d begin at %d, the next one is at %d", have, c.next, next)
		}
	}
}

func TestIndexIsBounded(t *testing.T) {
	var x index
	holes := &gtid.Set{}
	for n := int64(1); n < 20000; n += 2 {
		holes.Add(txid(n))
	}
	x.add(checkpoint{next: 1, executed: &gtid.Set{}})
	for i := range 1000 {
		x.add(checkpoint{next: paxos.Instance(i + 2), executed: holes})
		if x.cost > maxIndexCost {
			t.Fatalf("cost %d after %d checkpoints", x.cost, i+1)
		}
	}
	if x.list[0].next != 1 || x.stride < 2 {
		t.Errorf("begins at %d, stride %d", x.list[0].next, x.stride)
	}
}

func TestTrimmedLogIsNamed(t *testing.T) {
	l := newMemLog(t)
	j := NewJournal(l, Base{}, quiet())
	l.add(&entry.Value{Kind: entry.Epoch, Epoch: 1, Node: 1})
	for n := int64(1); n <= 100; n++ {
		l.add(txnsValue(1, 1<<20, n))
	}
	if err := j.WaitThrough(t.Context(), l.Chosen()); err != nil {
		t.Fatal(err)
	}
	l.trim(50)
	var trimmed *TrimmedError
	if _, _, err := j.start(&gtid.Set{}); !errors.As(err, &trimmed) || !trimmed.Missing.Contains(txid(1)) {
		t.Errorf("start with nothing: %v", err)
	}
	if c, _, err := j.start(j.Executed()); err != nil || c.next < 50 {
		t.Errorf("start with everything: %d, %v", c.next, err)
	}
	// A hole before something that is there is forgotten, no more.
	hole := &gtid.Set{}
	hole.Add(txid(7))
	set := j.Executed()
	set.Subtract(hole)
	if c, forgotten, err := j.start(set); err != nil || c.next < 50 || !forgotten.Equal(hole) {
		t.Errorf("start with a hole: %d, forgotten %v, %v", c.next, forgotten, err)
	}
}

func TestConfirmEndsWithTheEpoch(t *testing.T) {
	l := newMemLog(t)
	j := NewJournal(l, Base{}, quiet())
	ctx, cancel := context.WithCancel(t.Context())
	follow := make(chan error, 1)
	go func() { follow <- j.Follow(ctx) }()
	l.add(&entry.Value{Kind: entry.Epoch, Epoch: 4, Node: 1})
	i := l.add(txnsValue(4, 10, 1))
	if err := j.Confirm(t.Context(), 4, i); err != nil {
		t.Fatal(err)
	}
	if !j.AppliedBefore(4, nil) {
		t.Error("nothing is before the first epoch, yet a server lacks it")
	}
	i = l.add(&entry.Value{Kind: entry.Epoch, Epoch: 5, Node: 2})
	if err := j.Confirm(t.Context(), 4, i); !errors.Is(err, ErrSuperseded) {
		t.Errorf("confirmed with %v", err)
	}
	if j.AppliedBefore(5, nil) || !j.AppliedBefore(5, j.Executed()) || j.AppliedBefore(4, j.Executed()) {
		t.Error("what must be applied before epoch 5 is not what was executed")
	}
	cancel()
	if err := <-follow; !errors.Is(err, context.Canceled) {
		t.Errorf("follow ended with %v", err)
	}
}

func TestUnreadableValueStopsTheJournal(t *testing.T) {
	l := newMemLog(t)
	j := NewJournal(l, Base{}, quiet())
	l.mu.Lock()
	l.append(paxos.Entry{Kind: paxos.Normal, Data: []byte{99}})
	l.mu.Unlock()
	if err := j.Follow(t.Context()); !errors.Is(err, entry.ErrMalformed) || j.Err() == nil {
		t.Errorf("follow ended with %v", err)
	}
}
