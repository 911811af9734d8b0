package events

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/google/go-cmp/cmp"

	"github.com/phxsql/phxsql/paxos"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// The stories in testdata say what is told of a list of events. Commands:
//
//	log          one line for each event that comes from the log, as KIND key=value...
//	keep         the same for events that are only on a node's disk
//	accounts     what is told, and what is left over
//
// The time of an event is at=SECONDS after noon.
func TestStories(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		var book Book
		next := paxos.Instance(1)
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			switch d.Cmd {
			case "log", "keep":
				return take(t, &book, &next, d)
			case "accounts":
				return tell(book.Newest(0))
			}
			t.Fatalf("unknown command %s", d.Cmd)
			return ""
		})
	})
}

func tell(list []Event) string {
	var b strings.Builder
	accounts, rest := Accounts(list)
	for _, a := range accounts {
		b.WriteString(a.Text())
	}
	for _, e := range rest {
		fmt.Fprintf(&b, "beside: %s\n", e.Line())
	}
	return b.String()
}

func take(t *testing.T, book *Book, next *paxos.Instance, d *datadriven.TestData) string {
	var b strings.Builder
	for line := range strings.Lines(d.Input) {
		e := parse(t, strings.TrimSpace(line))
		if d.Cmd == "log" {
			e.Instance = *next
			*next++
		}
		read, err := Decode(e.Encode(), e.Instance)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if diff := cmp.Diff(e, read); diff != "" {
			t.Fatalf("%s changed on its way:\n%s", line, diff)
		}
		if !book.Add(read) {
			fmt.Fprintf(&b, "known: %s\n", e.ID)
		}
	}
	fmt.Fprintf(&b, "%d events, %d pending\n", len(book.Newest(0)), len(book.Pending()))
	return b.String()
}

// parse reads KIND id=X node=N epoch=N peer=N cause=X at=SECONDS took=D
// phase=NAME:D discard=COUNT:GTIDS:CHOSEN:THROUGH[:WRONG] reason=the rest.
func parse(t *testing.T, line string) Event {
	head, reason, _ := strings.Cut(line, " reason=")
	words := strings.Fields(head)
	e := Event{Kind: Kind(words[0]), ID: line, At: noon, Reason: reason}
	for _, w := range words[1:] {
		key, v, _ := strings.Cut(w, "=")
		var err error
		switch key {
		case "id":
			e.ID = v
		case "node":
			_, err = fmt.Sscan(v, &e.Node)
		case "peer":
			_, err = fmt.Sscan(v, &e.Peer)
		case "epoch":
			_, err = fmt.Sscan(v, &e.Epoch)
		case "cause":
			e.Cause = Cause(v)
		case "at":
			var s float64
			_, err = fmt.Sscan(v, &s)
			e.At = noon.Add(time.Duration(s * float64(time.Second)))
		case "took":
			e.Took, err = time.ParseDuration(v)
		case "phase":
			name, took, _ := strings.Cut(v, ":")
			p := Phase{Name: name}
			p.Took, err = time.ParseDuration(took)
			e.Phases = append(e.Phases, p)
		case "discard":
			dc := &Discard{AckKnown: true, EngineKnown: true, Evidence: "discarded/7"}
			_, err = fmt.Sscanf(strings.ReplaceAll(v, "/", " "), "%d %s %d %d %d", &dc.Count, &dc.GTIDs, &dc.Chosen, &dc.Through, &dc.InEngine)
			e.Discard = dc
		default:
			t.Fatalf("%s: unknown key %s", line, key)
		}
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
	}
	return e
}

func TestAnEventIsBounded(t *testing.T) {
	e := Event{
		ID: ID(3, strings.Repeat("b", 99), 1), At: noon, Node: 3, Kind: Discarded, Reason: strings.Repeat("r", 1<<20),
		Phases:  make([]Phase, 1000),
		Discard: &Discard{GTIDs: strings.Repeat("g", 1<<20), Evidence: strings.Repeat("e", 1<<20)},
	}
	b := e.Encode()
	if len(b) > MaxEvent {
		t.Fatalf("an event of %d bytes", len(b))
	}
	if _, err := Decode(b, 1); err != nil {
		t.Fatal(err)
	}
	if len(e.Phases) != 1000 || len(e.Discard.GTIDs) != 1<<20 {
		t.Error("the caller's event was cut, too")
	}
}

func TestDecodeRefuses(t *testing.T) {
	for _, bad := range []string{"", "{", "[]", `{"id":"x"}`, `{"id":"x","node":1}`, `{"id":"x","node":1,"kind":"` + strings.Repeat("k", MaxEvent) + `"}`} {
		if e, err := Decode([]byte(bad), 1); err == nil {
			t.Errorf("%.40q is taken as %+v", bad, e)
		}
	}
	// A later version's fields are passed over.
	if _, err := Decode([]byte(`{"id":"x","node":1,"kind":"of tomorrow","colour":"blue"}`), 1); err != nil {
		t.Error(err)
	}
}

func TestTheBookIsBoundedAndKeepsTheNewest(t *testing.T) {
	var b Book
	for n := range 2 * Keep {
		b.Add(Event{ID: fmt.Sprint("log", n), Node: 1, Kind: Began, Instance: paxos.Instance(n + 1)})
		b.Add(Event{ID: fmt.Sprint("disk", n), Node: 1, Kind: Began})
	}
	all := b.Newest(0)
	if len(all) != 2*Keep || len(b.ids) != 2*Keep || all[0].Instance != Keep+1 || b.Through() != 2*Keep {
		t.Errorf("%d events, the first at %d, %d ids, through %d", len(all), all[0].Instance, len(b.ids), b.Through())
	}
	if last := b.Newest(3); len(last) != 3 || last[2].ID != fmt.Sprint("disk", 2*Keep-1) {
		t.Errorf("the newest are %+v", last)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"id":"x","node":1,"kind":"began","phases":[{"name":"a","took_ns":1}],"discard":{"count":1}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if e, err := Decode(b, 1); err == nil {
			_ = e.Line()
			_ = tell([]Event{e})
		}
	})
}
