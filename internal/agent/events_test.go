package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/phxsql/phxsql/internal/cluster"
	"github.com/phxsql/phxsql/internal/events"
	"github.com/phxsql/phxsql/paxos"
)

// The file keeps what was written before a crash, and does not grow without end.
func TestEventsFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), eventsFileName)
	f, list, err := openEventsFile(path)
	if err != nil || len(list) != 0 {
		t.Fatal(list, err)
	}
	event := func(n int) events.Event {
		return events.Event{ID: fmt.Sprint(n), Node: 1, Kind: events.Began, Instance: paxos.Instance(n)}
	}
	if err := f.append([]events.Event{event(1), event(2)}, nil); err != nil {
		t.Fatal(err)
	}
	f.close()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, append(b, `{"id":"3","no`...), 0o600); err != nil { // a torn line
		t.Fatal(err)
	}
	if f, list, err = openEventsFile(path); err != nil || len(list) != 2 || list[1].Instance != 2 {
		t.Fatalf("%+v, %v", list, err)
	}
	for n := range maxEventLines {
		if err := f.append([]events.Event{event(n + 4)}, []events.Event{event(n + 4)}); err != nil {
			t.Fatal(err)
		}
	}
	f.close()
	b, err = os.ReadFile(path)
	if lines := strings.Count(string(b), "\n"); err != nil || lines > maxEventLines/2 {
		t.Errorf("the file has %d lines, %v", lines, err)
	}
	if _, list, err = openEventsFile(path); err != nil || list[len(list)-1].Instance != maxEventLines+3 {
		t.Errorf("the newest event is lost: %v", err)
	}
}

func TestEndCause(t *testing.T) {
	serving := func() cluster.View {
		v := cluster.View{Self: 1, Member: true, Role: paxos.Voter, Tail: cluster.TailAttached}
		v.Lead = cluster.Lead{Leader: 1, Self: true, Lease: true}
		v.Engine.State = cluster.EngineRunning
		return v
	}
	for want, change := range map[events.Cause]func(*cluster.View){
		events.CauseSwitchover: func(v *cluster.View) { v.Switch = &cluster.Switchover{Accepted: true} },
		events.CauseStop:       func(v *cluster.View) { v.Stopping = true },
		events.CauseServer:     func(v *cluster.View) { v.Engine.State = cluster.EngineCrashed },
		events.CauseHealth:     func(v *cluster.View) { v.Health = []cluster.Problem{{Name: "slow", Severe: true}} },
		events.CauseDiverged:   func(v *cluster.View) { v.Engine.Errant = "aa:1" },
		events.CauseDeposed:    func(v *cluster.View) { v.Lead = cluster.Lead{Leader: 2} },
		events.CauseLease:      func(v *cluster.View) { v.Lead.Lease = false },
		events.CauseTail:       func(v *cluster.View) { v.Tail = cluster.TailFailed },
		events.CauseRemoved:    func(v *cluster.View) { v.Member = false },
		events.CausePromotion:  func(*cluster.View) {},
	} {
		v := serving()
		change(&v)
		if got, reason := endCause(&v, false, "closed"); got != want || reason == "" {
			t.Errorf("%s: %s, want %s", reason, got, want)
		}
	}
}

// Nobody is inside when the valve is shut, and nobody gets in before it opens.
func TestValve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var v valve
		v.enter()
		shut := make(chan error, 1)
		go func() { shut <- v.shut(t.Context()) }()
		synctest.Wait()
		entered := make(chan bool)
		go func() { v.enter(); close(entered) }()
		synctest.Wait()
		select {
		case <-entered:
			t.Fatal("somebody got in")
		case <-shut:
			t.Fatal("it is shut with somebody inside")
		default:
		}
		v.leave()
		if err := <-shut; err != nil {
			t.Fatal(err)
		}
		v.open()
		<-entered
		v.leave()
	})
}

// A turn begins once, and fails if the log does not reach its place.
func TestAuditTurnNotReached(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &Agent{running: t.Context()}
		turn := a.arm("x")
		<-turn.done
		if turn.begin() || turn.err == nil || a.auditTurn("y") != nil {
			t.Errorf("the turn waits on: %v", turn.err)
		}
	})
}
