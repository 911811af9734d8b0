package paxos

import (
	"testing"
	"time"
)

// TestAnOlderRecordDoesNotAssureALength: the length goes up, down and up again, and the disk
// has written only the first of the three records. A crash may leave the second, so no
// more than that may be said.
func TestAnOlderRecordDoesNotAssureALength(t *testing.T) {
	const short, long = time.Second, 10 * time.Second
	now := Time(time.Minute)
	cfg := Defaults(1, func(int64) int64 { return 0 })
	cfg.Lease = short
	ms := Members{Cluster: "c", List: []Member{{ID: 1, Role: Voter}, {ID: 2, Role: Voter}, {ID: 3, Role: Voter}}}
	c := New(cfg, State{Chosen: 1, Members: ms}, now)
	step := func(ev Event) []Vow {
		c.Step(now, ev)
		return c.Take().Vows
	}
	open := func(vows []Vow) {
		for _, v := range vows {
			if m := v.AfterSync(); m.To == 1 {
				step(Event{Kind: EventMessage, Message: &m})
			}
		}
	}
	ballot := Ballot{Round: 5, Node: 2}
	said := func() time.Duration {
		c.Step(now, Event{Kind: EventMessage, Message: &Message{Kind: MsgRenew, From: 2, To: 1, Ballot: ballot, Sent: now, Lease: long}})
		eff := c.Take()
		if len(eff.Free) != 1 || eff.Free[0].Kind != MsgRenewed {
			t.Fatalf("the answer to a renewal is %v", eff.Free)
		}
		return eff.Free[0].Lease
	}
	open(step(Event{Kind: EventMessage, Message: &Message{Kind: MsgAccept, From: 2, To: 1, Ballot: ballot, First: 2, Chosen: 1, Sent: now, Lease: long}}))
	if got := said(); got != short {
		t.Fatalf("said %v, the length is %v", got, short)
	}
	first := step(Event{Kind: EventLease, Lease: long})
	step(Event{Kind: EventLease, Lease: short})
	now = now.Add(long)
	step(Event{Kind: EventTick})
	if c.grants.bound != short {
		t.Fatalf("the bound is %v when all that was longer is over", c.grants.bound)
	}
	third := step(Event{Kind: EventLease, Lease: long})
	open(first)
	if got := said(); got != short {
		t.Errorf("said %v when the disk may say %v", got, short)
	}
	open(third)
	if got := said(); got != long {
		t.Errorf("said %v when the disk says %v", got, long)
	}
}
