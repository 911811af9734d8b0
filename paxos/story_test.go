package paxos

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
)

// The stories in testdata tell the rules of the protocol one by one. Each begins
// with the reason of its rule. Nothing happens in them but what they say: time,
// messages and disks move by command.
//
//	new n=3 [witness=..] [learner=..] [spare=..] [blank] [keep=bytes] [chosen=i]
//	        members 1 to n, all with the membership chosen at 1; with blank only
//	        member 1 has it, accepted; spares are no members
//	campaign n=..           the member's patience is over
//	lead n=..               the member campaigns and everything settles
//	tick n=.. / advance by=..   time: the member looks at the clock / it goes on
//	beat n=..               100 ms pass, the member looks at the clock, everything settles
//	cut n=.. / mend         messages from and to the members are lost / no more
//	deliver [from= to= kind= count=] / drop   messages on their way
//	handover from=.. to=.. round=..   a hand-over that was long on its way arrives
//	sync n=..               the member's disk has written everything
//	settle                  deliver and sync until nothing moves
//	propose n=.. [a b c]    members n=.. voters=.. [witnesses=.. learners=..]
//	transfer n=.. to=..     able n=.. [no]
//	crash n=..              the member stops, what was not synced is lost
//	restart n=.. [lease=..] the configuration may say another length of leases
//	length n=.. is=..       the member grants leases of another length from now on
//	renew from=.. to=.. round=..   a leader of an older release, that does not count by what it is told
//	show [n=..]             what members know
//
// With quiet a command prints nothing.
func TestStories(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		if !strings.HasSuffix(path, ".txt") {
			return
		}
		s := &story{now: Time(time.Second)}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			s.out.Reset()
			if err := s.run(d); err != nil {
				d.Fatalf(t, "%v", err)
			}
			if d.HasArg("quiet") {
				return ""
			}
			if s.out.Len() == 0 {
				return "nothing"
			}
			return s.out.String()
		})
	})
}

type storyNode struct {
	id      NodeID
	core    *Core
	disk    []Record
	pending []Record
	vows    []Vow
	lead    Leadership
	up      bool
}

type story struct {
	now   Time
	keep  int64
	nodes []*storyNode
	net   []Message
	cut   []NodeID
	out   strings.Builder
}

func (s *story) printf(format string, args ...any) { fmt.Fprintf(&s.out, format+"\n", args...) }

func (s *story) run(d *datadriven.TestData) error {
	switch d.Cmd {
	case "new":
		return s.create(d)
	case "deliver":
		s.deliver(d)
	case "drop":
		s.take(d)
	case "cut":
		s.cut = numbers(d, "n")
	case "mend":
		s.cut = nil
	case "handover":
		from, round := numbers(d, "from")[0], uint64(numbers(d, "round")[0])
		n := s.nodes[numbers(d, "to")[0]-1]
		s.step(n, Event{Kind: EventMessage, Message: &Message{Kind: MsgHandover, From: from, To: n.id, Ballot: Ballot{Round: round, Node: from}}})
	case "renew":
		from, round := numbers(d, "from")[0], uint64(numbers(d, "round")[0])
		n := s.nodes[numbers(d, "to")[0]-1]
		s.step(n, Event{Kind: EventMessage, Message: &Message{Kind: MsgRenew, From: from, To: n.id, Ballot: Ballot{Round: round, Node: from}, Sent: s.now}})
	case "settle":
		s.settle()
	case "advance":
		by, err := time.ParseDuration(arg(d, "by"))
		if err != nil {
			return err
		}
		s.now = s.now.Add(by)
	case "show":
		for _, n := range s.chosenNodes(d) {
			s.show(n)
		}
	default:
		for _, n := range s.chosenNodes(d) {
			if err := s.command(d, n); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *story) command(d *datadriven.TestData, n *storyNode) error {
	switch d.Cmd {
	case "campaign", "lead":
		n.core.campaignAt, n.core.leaseEnd, n.core.barred = s.now, min(n.core.leaseEnd, s.now), min(n.core.barred, s.now)
		s.step(n, Event{Kind: EventTick})
		for try := 0; d.Cmd == "lead" && try < 5; try++ { // it may have to learn first
			s.settle()
			if n.core.phase == leading {
				break
			}
			s.step(n, Event{Kind: EventTick})
		}
	case "beat":
		s.now = s.now.Add(100 * time.Millisecond)
		s.step(n, Event{Kind: EventTick})
		s.settle()
	case "tick":
		s.step(n, Event{Kind: EventTick})
	case "sync":
		s.sync(n)
	case "propose":
		for _, v := range strings.Fields(d.Input) {
			if !n.core.Room() {
				s.printf("%d has no room for %s", n.id, v)
				continue
			}
			n.core.Step(s.now, Event{Kind: EventPropose, Data: []byte(v)})
		}
		s.effects(n)
	case "members":
		ms := Members{Cluster: "story"}
		for _, r := range []struct {
			name string
			role Role
		}{{"voters", Voter}, {"witnesses", Witness}, {"learners", Learner}} {
			for _, id := range numbers(d, r.name) {
				ms.List = append(ms.List, Member{ID: id, Role: r.role})
			}
		}
		slices.SortFunc(ms.List, func(a, b Member) int { return int(a.ID) - int(b.ID) })
		was := n.core.Members()
		s.step(n, Event{Kind: EventMembers, Members: &ms, Was: &was})
	case "read":
		s.step(n, Event{Kind: EventReadIndex, Token: uint64(numbers(d, "token")[0])})
	case "transfer":
		s.step(n, Event{Kind: EventTransfer, To: numbers(d, "to")[0]})
	case "able":
		s.step(n, Event{Kind: EventCandidacy, Able: !d.HasArg("no")})
	case "crash":
		n.pending, n.vows, n.up, n.lead = nil, nil, false, Leadership{}
	case "restart":
		lease, err := length(d, "lease")
		if err != nil {
			return err
		}
		s.start(n, fold(n.disk), lease)
	case "length":
		lease, err := length(d, "is")
		if err != nil {
			return err
		}
		s.step(n, Event{Kind: EventLease, Lease: lease})
	default:
		return fmt.Errorf("unknown command %s", d.Cmd)
	}
	return nil
}

// length is an argument that is a duration, 0 when it is not given.
func length(d *datadriven.TestData, key string) (time.Duration, error) {
	if arg(d, key) == "" {
		return 0, nil
	}
	return time.ParseDuration(arg(d, key))
}

func arg(d *datadriven.TestData, key string) string {
	for _, a := range d.CmdArgs {
		if a.Key == key && len(a.Vals) > 0 {
			return a.Vals[0]
		}
	}
	return ""
}

func numbers(d *datadriven.TestData, key string) []NodeID {
	var list []NodeID
	for _, a := range d.CmdArgs {
		if a.Key != key {
			continue
		}
		for _, v := range strings.Split(strings.Join(a.Vals, ","), ",") {
			var id NodeID
			if _, err := fmt.Sscan(v, &id); err == nil {
				list = append(list, id)
			}
		}
	}
	return list
}

func (s *story) chosenNodes(d *datadriven.TestData) []*storyNode {
	ids := numbers(d, "n")
	if len(ids) == 0 {
		return s.nodes
	}
	var list []*storyNode
	for _, id := range ids {
		list = append(list, s.nodes[id-1])
	}
	return list
}

func (s *story) create(d *datadriven.TestData) error {
	s.keep = 1 << 20
	if v := arg(d, "keep"); v != "" {
		if _, err := fmt.Sscan(v, &s.keep); err != nil {
			return err
		}
	}
	count, spares := numbers(d, "n")[0], numbers(d, "spare")
	ms := Members{Cluster: "story"}
	for id := NodeID(1); id <= count; id++ {
		role := Voter
		if slices.Contains(numbers(d, "witness"), id) {
			role = Witness
		}
		if slices.Contains(numbers(d, "learner"), id) {
			role = Learner
		}
		ms.List = append(ms.List, Member{ID: id, Role: role})
	}
	first := Entry{Instance: 1, Ballot: Ballot{Node: 1}, Kind: Membership, Data: ms.Encode()}
	for id := NodeID(1); id <= count+NodeID(len(spares)); id++ {
		n := &storyNode{id: id}
		s.nodes = append(s.nodes, n)
		switch {
		case d.HasArg("blank") && id == 1:
			n.disk = []Record{{Kind: RecordAccept, Entry: first}}
		case !d.HasArg("blank") && id <= count:
			n.disk = []Record{{Kind: RecordAccept, Entry: first}, {Kind: RecordMembers, Chosen: 1, Members: ms}}
		}
		s.start(n, fold(n.disk), 0)
	}
	return nil
}

// fold is what a log remembers of records, the naive way.
func fold(recs []Record) State {
	var st State
	ents := map[Instance]Entry{}
	for _, r := range recs {
		switch r.Kind {
		case RecordPromise:
			st.Promised = r.Ballot
		case RecordLease:
			st.Lease = r.Lease
		case RecordAccept:
			ents[r.Entry.Instance] = r.Entry
		case RecordChosen:
			st.Chosen = r.Chosen
		case RecordMembers:
			st.Chosen, st.Members = r.Chosen, r.Members
		}
	}
	for i, e := range ents {
		if i > st.Chosen {
			st.Entries = append(st.Entries, e)
		}
	}
	slices.SortFunc(st.Entries, func(a, b Entry) int { return int(a.Instance) - int(b.Instance) })
	return st
}

func (s *story) start(n *storyNode, st State, lease time.Duration) {
	cfg := Defaults(n.id, func(int64) int64 { return 0 })
	if lease > 0 {
		cfg.Lease = lease
	}
	cfg.KeepBytes = s.keep
	n.core, n.up = New(cfg, st, s.now), true
	if n.core.campaignAt == 0 {
		n.core.campaignAt = s.now.Add(time.Hour) // stories campaign by command
	}
	n.core.able = true
}

func (s *story) step(n *storyNode, ev Event) {
	if !n.up {
		return
	}
	n.core.Step(s.now, ev)
	s.effects(n)
}

// effects carries out what a member wants, until it wants nothing more.
func (s *story) effects(n *storyNode) {
	for {
		eff := n.core.Take()
		if eff.Empty() {
			break
		}
		for _, r := range eff.Records {
			s.printf("%d records %s", n.id, describe(r))
		}
		n.pending = append(n.pending, eff.Records...)
		for _, m := range eff.Free {
			s.printf("%v", m)
			s.send(n, m)
		}
		for _, v := range eff.Vows {
			s.printf("  after sync: %v", v.m)
		}
		n.vows = append(n.vows, eff.Vows...)
		for _, f := range eff.Fetches {
			s.fetch(n, f)
		}
		for _, e := range eff.Chosen {
			s.printf("%d knows chosen %v %s", n.id, e, text(e))
		}
		for _, r := range eff.Reads {
			s.printf("%d may read at %d (token %d)", n.id, r.Instance, r.Token)
		}
		if eff.Members != nil {
			s.printf("%d goes on under %s", n.id, roles(*eff.Members))
		}
	}
	if l := n.core.Leadership(); l != n.lead {
		n.lead = l
		s.printf("%d: leader %d term %v ready %v", n.id, l.Leader, l.Term, l.Ready)
	}
}

func describe(r Record) string {
	switch r.Kind {
	case RecordPromise:
		return "promise " + r.Ballot.String()
	case RecordAccept:
		return fmt.Sprintf("accept %v %s", r.Entry, text(r.Entry))
	case RecordChosen:
		return fmt.Sprintf("chosen %d", r.Chosen)
	case RecordLease:
		return fmt.Sprintf("leases of %v", r.Lease)
	}
	return fmt.Sprintf("members at %d: %s", r.Chosen, roles(r.Members))
}

func text(e Entry) string {
	if e.Kind == Normal {
		return string(e.Data)
	}
	if ms, err := DecodeMembers(e.Data); e.Kind == Membership && err == nil {
		return roles(ms)
	}
	return ""
}

func roles(ms Members) string {
	var b strings.Builder
	for _, m := range ms.List {
		fmt.Fprintf(&b, "%d%c", m.ID, " vwl"[m.Role])
	}
	return b.String()
}

func (s *story) send(n *storyNode, m Message) {
	if m.To == n.id {
		n.core.Step(s.now, Event{Kind: EventMessage, Message: &m})
		return
	}
	if slices.Contains(s.cut, m.To) || slices.Contains(s.cut, m.From) {
		return
	}
	s.net = append(s.net, m)
}

func (s *story) fetch(n *storyNode, f Fetch) {
	s.printf("%d fetches %d to %d for %d", n.id, f.First, f.Through, f.To)
	m := Message{Kind: MsgLearn, From: n.id, To: f.To, First: f.First, Chosen: n.core.Chosen()}
	ents := map[Instance]Entry{}
	for _, r := range slices.Concat(n.disk, n.pending) {
		if r.Kind == RecordAccept {
			ents[r.Entry.Instance] = r.Entry
		}
	}
	for i := f.First; i <= f.Through; i++ {
		m.Entries = append(m.Entries, ents[i])
	}
	s.printf("%v", m)
	s.send(n, m)
	n.core.Step(s.now, Event{Kind: EventFetched, To: f.To, Through: f.Through})
}

func (s *story) sync(n *storyNode) {
	if !n.up {
		return
	}
	n.disk, n.pending = append(n.disk, n.pending...), nil
	vows := n.vows
	n.vows = nil
	for _, v := range vows {
		m := v.AfterSync()
		if m.To != n.id {
			s.printf("%v", m)
		}
		s.send(n, m)
	}
	s.effects(n)
}

// take removes the messages that a command means from the network.
func (s *story) take(d *datadriven.TestData) []Message {
	count := len(s.net)
	if v := arg(d, "count"); v != "" {
		fmt.Sscan(v, &count) // a story that says nonsense shows it in its output
	}
	match := func(m Message) bool {
		from, to, kind := numbers(d, "from"), numbers(d, "to"), arg(d, "kind")
		return (len(from) == 0 || slices.Contains(from, m.From)) && (len(to) == 0 || slices.Contains(to, m.To)) && (kind == "" || kind == m.Kind.String())
	}
	var taken, rest []Message
	for _, m := range s.net {
		if len(taken) < count && match(m) {
			taken = append(taken, m)
			continue
		}
		rest = append(rest, m)
	}
	s.net = rest
	return taken
}

func (s *story) deliver(d *datadriven.TestData) {
	for _, m := range s.take(d) {
		s.step(s.nodes[m.To-1], Event{Kind: EventMessage, Message: &m})
	}
}

func (s *story) settle() {
	for range 1000 {
		moved := false
		for _, n := range s.nodes {
			if n.up && len(n.vows) > 0 {
				s.sync(n)
				moved = true
			}
		}
		if len(s.net) > 0 {
			m := s.net[0]
			s.net = s.net[1:]
			s.step(s.nodes[m.To-1], Event{Kind: EventMessage, Message: &m})
			moved = true
		}
		if !moved {
			return
		}
	}
	s.printf("does not settle")
}

func (s *story) show(n *storyNode) {
	if !n.up {
		s.printf("%d is down", n.id)
		return
	}
	c := n.core
	s.printf("%d %v promised %v chosen %d held %d lease %v members %s", n.id, c.phase, c.promised, c.chosen, c.held,
		max(0, time.Duration(c.LeaseEnd()-s.now)).Round(time.Millisecond), roles(c.members))
	for i := c.win.base + 1; i <= c.win.last(); i++ {
		if e := c.win.get(i); i > c.chosen && e.Kind != 0 {
			s.printf("  accepted %v %s", e, text(e))
		}
	}
}
