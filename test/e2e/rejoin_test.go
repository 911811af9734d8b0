package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/phxsql/phxsql/internal/drill"
	"github.com/phxsql/phxsql/internal/powerloss"
	"github.com/phxsql/phxsql/paxos"
)

var (
	rejoinState = flag.String("rejoin-state", "", "file of the results of TestRejoinMatrix, which goes on where it ended; without it the test is skipped")
	rejoinPage  = flag.String("rejoin-page", "", "page that TestRejoinMatrix writes when all its cells are done")
	rejoinLimit = flag.Duration("rejoin-limit", 2*time.Hour, "no cell of TestRejoinMatrix begins after this time")
)

// The roles of a node that dies.
const (
	asMaster   = "master"
	asFollower = "follower"
)

// cell is one way to die, with something in flight, in one role.
type cell struct {
	role   string
	flight flight
	death  death
}

func (x cell) String() string { return x.role + ", " + x.flight.name + ", " + x.death.name }

// outcome is what became of a cell. Times are in seconds.
type outcome struct {
	Back   float64 `json:"back"`   // until all nodes were well again
	Copied bool    `json:"copied"` // it took another node's data
	Tries  int     `json:"tries"`  // until everything was in flight at the moment of death
	Load   string  `json:"load"`   // of the machine, over a minute
}

// TestNodesRejoin is a part of the rejoin matrix: three of its cells.
func TestNodesRejoin(t *testing.T) {
	if err := powerloss.Possible(); err != nil {
		t.Skip(err)
	}
	c := start(t, drill.Options{Namespaces: true, Disks: true})
	for _, x := range []cell{
		{asMaster, manyGroups, powerLoss},
		{asMaster, tableDDL, killBoth},
		{asFollower, xaFlight, cutOff},
	} {
		t.Run(x.String(), func(t *testing.T) {
			o := rejoin(t, c, x, 0)
			t.Logf("well after %.2f s; in flight at try %d", o.Back, o.Tries)
			if o.Copied {
				t.Error("it took another node's data, though the log has everything")
			}
		})
		if t.Failed() {
			return
		}
	}
}

// TestRejoinMatrix is all of it, on one cluster for each way in which engines flush.
func TestRejoinMatrix(t *testing.T) {
	if *rejoinState == "" {
		t.Skip("it takes long: make rejoin-matrix")
	}
	if err := powerloss.Possible(); err != nil {
		t.Skip(err)
	}
	m := openMatrix(t, *rejoinState)
	end := time.Now().Add(*rejoinLimit)
	for _, flush := range flushes {
		t.Run(flush.name, func(t *testing.T) {
			if m.left(flush) == 0 {
				return
			}
			c := start(t, drill.Options{Namespaces: true, Disks: true, Extra: flush.config})
			for i, x := range allCells() {
				if _, done := m.get(flush, x); done {
					continue
				}
				if time.Now().After(end) {
					t.Fatalf("the time is over with %d cells left; call it again to go on", m.left(flush))
				}
				t.Run(x.String(), func(t *testing.T) {
					o := rejoin(t, c, x, i)
					if t.Failed() {
						return
					}
					m.put(t, flush, x, o)
					t.Logf("well after %.2f s, copied %v, try %d; %d cells left", o.Back, o.Copied, o.Tries, m.left(flush))
				})
				if t.Failed() {
					return
				}
			}
		})
		if t.Failed() {
			return
		}
	}
	if *rejoinPage != "" {
		if err := os.WriteFile(*rejoinPage, []byte(m.page()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// cellLimit bounds one cell, on a machine that does much else.
const cellLimit = 6 * time.Minute

// rejoin lets a node die and come back, and judges what is left. The number makes the
// names of the cell's schema differ from those of others.
func rejoin(t *testing.T, c *drill.Cluster, x cell, number int) outcome {
	ctx := limit(t, cellLimit)
	if err := c.WaitHealthy(ctx); err != nil {
		t.Fatal(err)
	}
	a := &attempt{t: t, ctx: ctx, c: c, cell: x}
	var w *drill.Workload
	if x.flight.load {
		w = load(t, c)
	}
	for a.tries = 1; ; a.tries++ {
		a.schema = fmt.Sprintf("rejoin%d_%d", number, a.tries)
		if a.begin() {
			break
		}
		// Nothing of it is chosen: the node comes back as it was, and it is tried again.
		a.takeBack()
	}
	began := a.revive()
	if err := c.WaitRoles(ctx); err != nil {
		t.Fatal(err)
	}
	if w != nil {
		if err := w.WaitAck(ctx, time.Now()); err != nil {
			t.Fatal(err)
		}
		w.Stop()
	}
	if err := c.WaitHealthy(ctx); err != nil {
		t.Fatal(err)
	}
	o := outcome{Back: time.Since(began).Seconds(), Tries: a.tries, Load: machineLoad()}
	o.Copied = a.copied()
	a.judge()
	if w != nil {
		if err := w.Verify(ctx); err != nil {
			t.Error(err)
		}
	}
	a.clean()
	return o
}

// attempt is one life and death of a node.
type attempt struct {
	t      *testing.T
	ctx    context.Context
	c      *drill.Cluster
	cell   cell
	schema string
	tries  int

	node   *drill.Node // that dies
	master *drill.Node // before
	before string      // what all nodes held
	died   time.Time
	logEnd int64         // of the node's log
	ended  chan struct{} // all sessions have ended
	told   []error       // what each of them was told
	seen   []string      // what the sessions were last seen doing
	close  func()
}

// begin puts everything in flight and lets the node die. It reports false when not
// everything was in flight.
func (a *attempt) begin() bool {
	t, ctx := a.t, a.ctx
	t.Helper()
	master, err := a.c.Master(ctx)
	if err != nil {
		t.Fatal(err)
	}
	a.master, a.node = master, master
	if a.cell.role == asFollower {
		a.node = a.c.Nodes[master.ID%len(a.c.Nodes)]
	}
	if st, err := os.Stat(a.node.Log()); err == nil {
		a.logEnd = st.Size()
	}
	if setup := a.cell.flight.setup; setup != nil {
		if err := a.c.Exec(ctx, setup(a.schema)...); err != nil {
			t.Fatal(err)
		}
	}
	if !a.cell.flight.load {
		if err := a.c.WaitHealthy(ctx); err != nil {
			t.Fatal(err)
		}
		a.before = a.holds(a.node)
	}
	return a.launch()
}

// alone reports that nobody but the node that dies may have what is in flight.
func (a *attempt) alone() bool {
	return a.cell.role == asMaster && a.cell.flight.sessions != nil && !a.cell.flight.chosen
}

// launch sends the last statements of all sessions and lets the node die with them.
func (a *attempt) launch() bool {
	t, ctx := a.t, a.ctx
	t.Helper()
	fl := a.cell.flight
	sessions := []session(nil)
	if fl.sessions != nil {
		sessions = fl.sessions(a.schema)
	}
	if fl.oneWaits && a.cell.role == asMaster {
		i := turn(a.schema, len(sessions))
		sessions = sessions[i : i+1]
	}
	conns, close := a.connect(sessions)
	a.close = close
	alone := a.alone()
	from, err := a.master.Self(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if alone || a.cell.death.isolates {
		if err := a.node.Isolate(); err != nil {
			t.Fatal(err)
		}
	}
	a.run(sessions, conns)
	all := true
	switch {
	case alone:
		all = a.stranded(sessions)
	case len(sessions) > 0:
		a.awaitChosen(from.Log.Chosen, fl.after)
	}
	if !all && a.tries < maxTries {
		return false
	}
	if !all {
		t.Fatalf("not everything was in flight at any of %d tries; at the last one the sessions were\n%s", a.tries, strings.Join(a.seen, "\n"))
	}
	a.died = time.Now()
	if err := a.cell.death.die(ctx, a.c, a.node); err != nil {
		t.Fatal(err)
	}
	return true
}

// awaitChosen waits until so many values more are chosen, or all is done.
func (a *attempt) awaitChosen(from, more paxos.Instance) {
	a.t.Helper()
	err := drill.Eventually(a.ctx, func() error {
		select {
		case <-a.ended:
			return nil
		default:
		}
		now, err := a.master.Self(a.ctx)
		if err == nil && now.Log.Chosen < from+max(1, more) {
			err = errors.New("nothing of it is chosen")
		}
		return err
	})
	if err != nil {
		a.t.Fatal(err)
	}
}

// takeBack lets a node that was cut off in vain come back.
func (a *attempt) takeBack() {
	a.t.Helper()
	if err := a.node.Rejoin(); err != nil {
		a.t.Fatal(err)
	}
	<-a.ended
	a.close()
	if err := a.c.WaitHealthy(a.ctx); err != nil {
		a.t.Fatal(err)
	}
	a.clean()
}

// revive waits until the others serve, and lets the node come back. It returns when that
// began.
func (a *attempt) revive() time.Time {
	t, ctx := a.t, a.ctx
	t.Helper()
	began := a.died
	switch {
	case a.alone() || a.cell.role == asMaster && !a.cell.death.returns:
		// Another node must lead before the old one's network comes back: the kernel
		// still holds what the dead process had sent.
		if err := drill.Eventually(ctx, func() error { return a.c.MasterBesides(ctx, a.node) }); err != nil {
			t.Fatal(err)
		}
		began = time.Now()
	case a.cell.role == asFollower && !a.cell.death.returns:
		<-a.ended // a majority is there
		began = time.Now()
	}
	if err := errors.Join(a.node.Rejoin(), a.cell.death.revive(ctx, a.node)); err != nil {
		t.Fatal(err)
	}
	<-a.ended
	a.close()
	return began
}

// judge holds what all nodes have against what they must have.
func (a *attempt) judge() {
	t, ctx := a.t, a.ctx
	t.Helper()
	if err := a.c.Compare(ctx); err != nil {
		t.Error(err)
	}
	fl := a.cell.flight
	for i, err := range a.told {
		if a.alone() && err == nil {
			t.Errorf("session %d was told that it is done, though nobody else had it", i)
		}
		if a.cell.role == asFollower && err != nil {
			t.Errorf("session %d: %v", i, err)
		}
	}
	if a.before != "" && (a.alone() || fl.sessions == nil) {
		if after := a.holds(a.node); after != a.before {
			t.Errorf("node %d is not as it was:\n%s", a.node.ID, drill.Difference(a.before, after))
		}
	}
	if fl.prepared != nil {
		want := fl.prepared(a.cell.role == asFollower)
		alike(t, ctx, a.c, len(want))
		if got := column(t, ctx, a.c, a.node, "XA RECOVER", 3); strings.Join(sorted(got), " ") != strings.Join(want, " ") {
			t.Errorf("prepared are %v, want %v", got, want)
		}
	}
	if fl.verify != nil {
		fl.verify(a)
	}
}

// clean removes what the cell has made.
func (a *attempt) clean() {
	a.t.Helper()
	if a.cell.flight.clean == nil || a.t.Failed() {
		return
	}
	var list []string
	if a.cell.flight.prepared != nil {
		for _, id := range column(a.t, a.ctx, a.c, a.c.Nodes[0], "XA RECOVER", 3) {
			list = append(list, "XA ROLLBACK '"+id+"'")
		}
	}
	if err := a.c.Exec(a.ctx, append(list, a.cell.flight.clean(a.schema)...)...); err != nil {
		a.t.Fatal(err)
	}
}

// holds describes what a node holds, without its GTID set: a promotion executes
// statements of its own.
func (a *attempt) holds(n *drill.Node) string {
	a.t.Helper()
	text, err := a.c.Portrait(a.ctx, n)
	if err != nil {
		a.t.Fatal(err)
	}
	return text[max(0, strings.LastIndex(text[:max(0, strings.Index(text, " | BASE TABLE | "))], "\n")):]
}

// copied reports whether the node has taken another one's data.
func (a *attempt) copied() bool {
	a.t.Helper()
	b, err := os.ReadFile(a.node.Log())
	if err != nil {
		a.t.Fatal(err)
	}
	return strings.Contains(string(b[min(a.logEnd, int64(len(b))):]), "copy begins")
}
