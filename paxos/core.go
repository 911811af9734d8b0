// Package paxos is a Multi-Paxos core: a stable leader, phase 1 once per
// leadership, a pipelined phase 2, leases, hand-over of leadership, catch-up,
// and membership as a value in the log.
//
// A Core is a value without goroutines, clocks, sockets or files. Everything
// that happens to a member enters through Step, and what it wants done leaves
// through Take as Effects, whose types carry the order that safety needs: what
// asserts durability is a Vow, which opens only when the records before it are
// on disk.
//
// The protocol is that of Lamport's "Paxos Made Simple", with these choices:
//
//   - One ballot covers all instances from the first that is not known to be
//     chosen. Acceptors answer phase 1 with everything they accepted from there.
//   - An acceptor accepts instances of one ballot in order and without gaps, so
//     one number, Through, acknowledges all of them.
//   - "Chosen through i" is always said together with a ballot. A member counts
//     an accepted value as chosen only when it accepted it at exactly that
//     ballot, or learned it from a member that knew it to be chosen.
//   - A membership value is a barrier. It is proposed alone, and after it was
//     chosen phase 1 runs again, under the new members.
//
// Invariants: one value per instance for ever; a promise never decreases; at
// most one member at a time has a running lease, as long as the clocks' rates
// differ by no more than Config.ClockError.
package paxos

import (
	"time"
)

// Config holds what a Core needs to know besides its State. Rand must not be nil.
type Config struct {
	Self NodeID
	// Lease is how long a follower refuses everybody else after it heard from the
	// leader, from the start until EventLease says otherwise; MaxLease at most. A member
	// says with each grant how long it is, so members may differ. Only among members of a
	// release that does not say so it must be the same everywhere.
	Lease time.Duration
	// Heartbeat is the longest silence of a leader towards a member.
	Heartbeat time.Duration
	// ClockError bounds how much faster or slower than true time any member's
	// clock runs: 0.01 is one per cent.
	ClockError float64
	// Spread is the range of the random delay before a member campaigns.
	Spread time.Duration
	// MaxInflight limits the bytes proposed but not chosen. At the limit Room is
	// false and the shell keeps further proposals to itself.
	MaxInflight int64
	// MaxMessage limits the bytes of entries in one message, except that a
	// message always carries at least one entry.
	MaxMessage int64
	// KeepBytes limits the chosen entries kept in memory for members that lag.
	KeepBytes int64
	// Rand returns a number in [0, n).
	Rand func(n int64) int64
}

// Defaults returns the configuration of member self with everything else at
// its default.
func Defaults(self NodeID, rand func(n int64) int64) Config {
	return Config{
		Self: self, Lease: 900 * time.Millisecond, Heartbeat: 100 * time.Millisecond, ClockError: 0.01,
		Spread: 150 * time.Millisecond, MaxInflight: 64 << 20, MaxMessage: 1 << 20, KeepBytes: 16 << 20, Rand: rand,
	}
}

// Vow is a message that asserts durability: a promise or an acceptance. It
// cannot be sent by accident, only opened.
type Vow struct{ m Message }

// AfterSync opens the vow. The caller states that every record of the Effects
// that held it, and of all Effects before, is on disk.
func (v Vow) AfterSync() Message { return v.m }

// Fetch asks the shell to read chosen entries from the log, from First on,
// through Through and Limit bytes at most but at least one entry, and to send them
// to To as a MsgLearn from Self. The shell then reports EventFetched, whether or
// not it could.
type Fetch struct {
	To      NodeID
	First   Instance
	Through Instance
	Limit   int64
}

// Effects is what a Core wants done since the last Take: append Records in
// order, send Free at any time, open and send Vows after a sync of the records,
// answer Fetches, apply Chosen in order.
type Effects struct {
	Records []Record
	// Lazy says that nothing waits for Records: they need no sync of their own.
	Lazy    bool
	Free    []Message
	Vows    []Vow // those addressed to Self go back into Step
	Fetches []Fetch
	Chosen  []Entry
	Reads   []ReadIndex // answers, in no order
	// Members is set when a membership became valid.
	Members *Members
}

// Empty reports whether there is nothing to do.
func (e *Effects) Empty() bool {
	return len(e.Records) == 0 && len(e.Free) == 0 && len(e.Vows) == 0 && len(e.Fetches) == 0 && len(e.Chosen) == 0 && len(e.Reads) == 0 && e.Members == nil
}

// EventKind tells what happened.
type EventKind uint8

// The kinds of events, with the fields that count.
const (
	EventTick      EventKind = 1 // time passed; see Deadline
	EventMessage   EventKind = 2 // Message
	EventPropose   EventKind = 3 // Data; only when Room is true
	EventMembers   EventKind = 4 // Members, Was: propose this membership, unless another than Was is valid by then (nil: in any case)
	EventCandidacy EventKind = 5 // Able, Delay: may this member lead, and how long should it let others go first
	EventTransfer  EventKind = 6 // To: renounce leadership in favour of To (0: of anybody)
	EventFetched   EventKind = 7 // To: a Fetch has been answered; Through is the last instance sent, 0 for none
	EventReadIndex EventKind = 8 // Token: asks for a ReadIndex with this token, which may never come
	EventLease     EventKind = 9 // Lease: grant leases of this length from now on; nothing happens unless it is in (0, MaxLease]
)

// Event is one input of Step.
type Event struct {
	Kind    EventKind
	Message *Message
	Data    []byte
	Members *Members
	Was     *Members
	Able    bool
	Delay   time.Duration
	To      NodeID
	Through Instance
	Token   uint64
	Lease   time.Duration
}

// phase says where a member is on its way to leadership.
type phase uint8

const (
	following phase = iota
	canvassing
	preparing
	leading
)

func (p phase) String() string {
	return [...]string{"following", "canvassing", "preparing", "leading"}[p]
}

// Core is one member of one group. It is not safe for concurrent use.
type Core struct {
	cfg      Config
	now      Time
	eff      Effects
	taken    Effects // what Take has returned
	able     bool
	lag      time.Duration // Event.Delay of the candidacy
	tickedAt Time          // the newest tick

	// What every member knows.
	members  Members
	chosen   Instance // everything through chosen is chosen and stored here
	recorded Instance // newest RecordChosen
	win      window

	// Acceptor.
	promised  Ballot
	seen      uint64   // highest round heard of
	barred    Time     // no promise before this: a lease from before the restart may run
	leader    NodeID   // whose entries are accepted, 0 when nobody is known
	ballot    Ballot   // under which leader speaks; the own one in phase leading
	held      Instance // everything through held is chosen or accepted at ballot
	lacking   Instance // oldest instance of a member that has trimmed what this one lacks
	asked     Time     // when others were asked because of it
	heard     Instance // everything through heard is chosen, in the words of a leader
	durable   Instance // what of held is on disk; counts only while durableAt == ballot
	durableAt Ballot
	vowed     Instance // through where a vow of the own, under ballot, is out or came back
	leaseOf   Ballot   // newest ballot of the member that the lease was granted to
	leaseEnd  Time
	grants    lengths
	ack       Message // acknowledgement to be vowed at the next Take, when ackDue
	ackDue    bool

	// Candidate and leader.
	phase      phase
	campaignAt Time
	patience   time.Duration // of the next attempt with those it asks; 0: the least
	consent    Ballot        // renounced in our favour
	try        attempt
	lead       leadership
}

// New returns a member that starts at time now with what it remembers.
func New(cfg Config, st State, now Time) *Core {
	c := &Core{cfg: cfg, now: now, members: st.Members, chosen: st.Chosen, recorded: st.Chosen, promised: st.Promised, seen: st.Promised.Round}
	c.win.base = st.Chosen
	for _, e := range st.Entries {
		c.win.put(e)
		c.sawRound(e.Ballot)
	}
	c.adoptFirstMembers()
	// A member that forgot its lease with its memory may have granted one up to
	// this moment.
	if !c.promised.IsZero() {
		c.barred = now.Add(max(cfg.Lease, st.Lease))
	}
	c.grants = lengths{length: cfg.Lease, bound: st.Lease, assured: st.Lease, longUntil: c.barred}
	c.postpone(c.barred)
	return c
}

// adoptFirstMembers takes the membership in instance 1 for valid before it is
// known to be chosen. Only the bootstrap proposes there, and only one value.
func (c *Core) adoptFirstMembers() {
	e := c.win.get(1)
	if !c.members.Blank() || e.Kind != Membership {
		return
	}
	if ms, err := DecodeMembers(e.Data); err == nil {
		c.setMembers(ms)
	}
}

// setMembers goes on under other members. An attempt to lead ends: its yes were
// those of the members before.
func (c *Core) setMembers(ms Members) {
	c.members = ms
	c.eff.Members = &ms
	c.abandonAttempt()
	if c.phase == leading {
		c.lead.setPeers(ms, c)
	}
}

func (c *Core) sawRound(b Ballot) { c.seen = max(c.seen, b.Round) }

// Step takes in one event that happened at time now. Time never runs backwards.
func (c *Core) Step(now Time, ev Event) {
	c.now = max(c.now, now)
	switch ev.Kind {
	case EventTick:
		c.tick()
	case EventMessage:
		c.receive(ev.Message)
	case EventPropose:
		c.propose(Normal, ev.Data)
	case EventMembers:
		if c.phase == leading && ev.Members.Check() == nil && c.stillValid(ev.Was) {
			c.lead.wanted, c.lead.was = ev.Members, ev.Was
		}
	case EventCandidacy:
		c.candidacy(ev.Able, ev.Delay)
	case EventTransfer:
		c.transfer(ev.To)
	case EventFetched:
		c.fetched(ev.To, ev.Through)
	case EventReadIndex:
		c.readIndex(ev.Token)
	case EventLease:
		c.setLease(ev.Lease)
	}
	if c.phase == leading {
		c.proposeMembers()
	}
}

func (c *Core) receive(m *Message) {
	if m.To != c.cfg.Self {
		return
	}
	switch m.Kind {
	case MsgCanvass, MsgPrepare, MsgAccept:
		if m.Ballot.Node != m.From {
			return // a ballot has one owner
		}
	}
	switch m.Kind {
	case MsgCanvass:
		c.onCanvass(m)
	case MsgOpinion:
		c.onOpinion(m)
	case MsgPrepare:
		c.onPrepare(m)
	case MsgPromise:
		c.onPromise(m)
	case MsgAccept:
		c.onAccept(m)
	case MsgAccepted:
		c.onAccepted(m)
	case MsgHandover:
		c.onHandover(m)
	case MsgLearn:
		c.onLearn(m)
	case MsgAsk:
		c.onAsk(m)
	case MsgRenew:
		c.onRenew(m)
	case MsgRenewed:
		c.onRenewed(m)
	case MsgReadIndex:
		c.onReadIndex(m)
	case MsgReadAt:
		c.onReadAt(m)
	}
}

// Take returns the effects since the last Take. Messages to members that lag
// behind what is proposed are made here, so that one message carries all that a
// batch of events brought. Records, Free and Chosen are valid until the next Take, which
// uses their memory again; what they refer to may be kept.
func (c *Core) Take() Effects {
	if c.phase == leading {
		c.replicate(false)
	}
	if c.ackDue {
		c.vowAck()
	}
	if c.chosen > c.recorded && len(c.eff.Records) > 0 {
		c.recordChosen()
	}
	c.eff.Lazy = len(c.eff.Vows) == 0
	e := c.eff
	c.eff = c.taken.again()
	c.taken = Effects{Records: e.Records, Free: e.Free, Chosen: e.Chosen}
	c.trim()
	return e
}

// again returns empty effects in the memory of those that were carried out. Vows are
// kept by who carries them out.
func (e *Effects) again() Effects {
	return Effects{Records: again(e.Records), Free: again(e.Free), Chosen: again(e.Chosen)}
}

// maxAgain limits the elements of memory that is used again: a burst must not be kept.
const maxAgain = 1024

// again returns an empty slice in the memory of one whose elements are done with.
func again[E any](s []E) []E {
	clear(s)
	if cap(s) > maxAgain {
		return nil
	}
	return s[:0]
}

func (c *Core) recordChosen() {
	c.recorded = c.chosen
	c.eff.Records = append(c.eff.Records, Record{Kind: RecordChosen, Chosen: c.chosen})
}

// trim drops chosen entries beyond KeepBytes from memory, many at a time.
func (c *Core) trim() {
	if c.Kept() > 2*c.cfg.KeepBytes {
		c.Shed(c.cfg.KeepBytes)
	}
}

// Kept is the number of bytes that chosen entries take in memory.
func (c *Core) Kept() int64 { return c.win.bytes(c.win.base, c.chosen) }

// KeptFrom is the oldest instance that is still in memory, if any is.
func (c *Core) KeptFrom() Instance { return c.win.base + 1 }

// Shed drops the oldest chosen entries from memory until they take no more than the
// given number of bytes. Members that lag are then served from the log. It is no event:
// nothing but memory and speed depends on it.
func (c *Core) Shed(bytes int64) {
	cut := c.win.base
	for c.win.bytes(cut, c.chosen) > bytes {
		cut++
	}
	c.win.drop(cut)
}

func (c *Core) tick() {
	c.tickedAt = c.now
	if c.chosen > c.recorded && len(c.eff.Records) == 0 {
		c.recordChosen()
	}
	c.relaxBound()
	switch c.phase {
	case leading:
		c.tickLeader()
	default:
		c.tickFollower()
	}
}

// Deadline is when the next tick is due: not before a tenth of a heartbeat has passed
// since the last one, at the latest after a heartbeat. It moves with each event. A tick
// that comes earlier does no harm, one that comes later holds up heartbeats or an
// election.
func (c *Core) Deadline() Time {
	at := c.tickedAt.Add(c.cfg.Heartbeat)
	soon := func(t Time) { at = min(at, t) }
	switch {
	case c.phase != leading:
		soon(max(c.campaignAt, c.leaseEnd, c.barred))
	case c.lead.raising:
		soon(c.try.sentAt.Add(2 * c.cfg.Heartbeat))
	default:
		soon(c.lead.renewed.Add(c.cfg.Heartbeat))
		for i := range c.lead.peers {
			p := &c.lead.peers[i]
			switch {
			case p.id == c.cfg.Self:
			case p.told < c.chosen && !p.probing:
				soon(c.now)
			default:
				soon(p.lastSend.Add(c.cfg.Heartbeat))
			}
		}
	}
	return max(at, c.tickedAt.Add(c.cfg.Heartbeat/10))
}

func (c *Core) free(m Message) {
	m.From = c.cfg.Self
	c.eff.Free = append(c.eff.Free, m)
}

func (c *Core) vow(m Message) {
	m.From = c.cfg.Self
	c.eff.Vows = append(c.eff.Vows, Vow{m})
}

// learnChosen advances chosen through i; everything through i must be stored.
func (c *Core) learnChosen(i Instance) {
	for c.chosen < i {
		c.chosen++
		e := c.win.get(c.chosen)
		if e.Kind == 0 {
			panic("paxos: a hole was declared chosen")
		}
		c.eff.Chosen = append(c.eff.Chosen, e)
		if e.Kind == Membership {
			if ms, err := DecodeMembers(e.Data); err == nil {
				c.recorded = c.chosen
				c.eff.Records = append(c.eff.Records, Record{Kind: RecordMembers, Chosen: c.chosen, Members: ms})
				c.setMembers(ms)
			}
		}
	}
	c.held = max(c.held, c.chosen)
}

// Leadership says who leads, as far as a member knows.
type Leadership struct {
	Leader NodeID // 0 when nobody is known to lead
	// Term is the ballot with which this member became leader, and changes with
	// each leadership; it is zero unless this member leads. Proposals of one
	// term are chosen in order or not at all.
	Term Ballot
	// Ready says that this member leads and knows everything that was chosen
	// before its term.
	Ready bool
}

// Leadership returns who leads now.
func (c *Core) Leadership() Leadership {
	if c.phase == leading {
		return Leadership{Leader: c.cfg.Self, Term: c.lead.term, Ready: c.lead.start != 0 && c.chosen >= c.lead.start}
	}
	return Leadership{Leader: c.leader}
}

// Chosen is the instance through which everything is known to be chosen.
func (c *Core) Chosen() Instance { return c.chosen }

// Members is the valid membership; it is blank before the first.
func (c *Core) Members() Members { return c.members }

// Promised is the acceptor's promise.
func (c *Core) Promised() Ballot { return c.promised }

// Heard is the newest instance that a leader said to be chosen.
func (c *Core) Heard() Instance { return max(c.heard, c.chosen) }
