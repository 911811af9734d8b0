package paxos

import "time"

// This file is the acceptor and the learner: phase 1b and phase 2b.

// refusal says why a candidate would not be promised m.Ballot now.
func (c *Core) refusal(m *Message) Reject {
	switch {
	case c.now < c.barred:
		return RejectLease
	case c.leaseHeldAgainst(m):
		return RejectLease
	case m.Ballot.Less(c.promised), m.Ballot == c.promised && m.Kind == MsgCanvass:
		return RejectBallot
	case m.Chosen < c.chosen:
		return RejectBehind
	case c.members.Blank() && m.First > 1:
		return RejectBlank
	}
	return RejectNone
}

// leaseHeldAgainst reports whether a lease runs that the candidate neither
// holds nor has been given up in favour of.
func (c *Core) leaseHeldAgainst(m *Message) bool {
	if c.phase == leading && m.From != c.cfg.Self && c.now < c.lead.lease {
		return true // the leader counts itself when it computes its lease
	}
	return c.leaseOf.Node != m.From && c.now < c.leaseEnd && !c.renounced(m.Consent)
}

// renounced reports whether the lease that was granted is one that its holder
// gave up with the given ballot.
func (c *Core) renounced(consent Ballot) bool {
	return consent.Node == c.leaseOf.Node && !consent.Less(c.leaseOf)
}

func (c *Core) onCanvass(m *Message) {
	c.sawRound(m.Ballot)
	r := c.refusal(m)
	c.free(Message{Kind: MsgOpinion, To: m.From, Ballot: m.Ballot, Reject: r, Promised: c.promised, Chosen: c.chosen, Able: c.able})
	if _, ok := c.members.Find(m.From); r == RejectBehind || r != RejectNone && !ok {
		c.teach(m.From, m.Chosen+1) // a member that was removed must hear of it
	}
}

// teach sends chosen entries to a member that lacks them.
func (c *Core) teach(to NodeID, first Instance) {
	if first > c.chosen {
		return
	}
	if es := c.win.from(first, c.chosen, c.cfg.MaxMessage); es != nil {
		c.free(Message{Kind: MsgLearn, To: to, First: first, Chosen: c.chosen, Entries: es})
		return
	}
	c.fetch(to, first)
}

// fetch has chosen entries that are no longer in memory sent from the log.
func (c *Core) fetch(to NodeID, first Instance) {
	c.eff.Fetches = append(c.eff.Fetches, Fetch{To: to, First: first, Through: min(c.chosen, c.win.base), Limit: c.cfg.MaxMessage})
}

// onAsk answers with what was chosen, or asks back when the other side knows more:
// new voters may not know yet whom to ask.
func (c *Core) onAsk(m *Message) {
	if m.First > c.chosen+1 {
		c.free(Message{Kind: MsgAsk, To: m.From, First: c.chosen + 1})
		return
	}
	c.teach(m.From, m.First)
}

func (c *Core) onPrepare(m *Message) {
	c.sawRound(m.Ballot)
	if r := c.refusal(m); r != RejectNone {
		c.free(Message{Kind: MsgPromise, To: m.From, Ballot: m.Ballot, Reject: r, Promised: c.promised, Chosen: c.chosen})
		if r == RejectBehind {
			c.teach(m.From, m.Chosen+1)
		}
		return
	}
	if c.phase == leading && m.From != c.cfg.Self {
		c.stepDown()
	}
	c.promise(m.Ballot)
	if m.From != c.cfg.Self {
		c.abandonAttempt()
		c.postpone(c.now.Add(c.grace()))
	}
	var es []Entry
	if first := max(m.First, c.chosen+1); c.win.last() >= first {
		es = c.win.from(first, c.win.last(), maxPromise)
	}
	c.vow(Message{Kind: MsgPromise, To: m.From, Ballot: m.Ballot, First: m.First, Chosen: c.chosen, Entries: withoutHoles(es)})
}

// maxPromise is no limit: a promise must report everything that was accepted
// above the chosen prefix, and Config.MaxInflight bounds that.
const maxPromise = 1 << 62

func withoutHoles(es []Entry) []Entry {
	out := es[:0]
	for _, e := range es {
		if e.Kind != 0 {
			out = append(out, e)
		}
	}
	return out
}

// promise raises the durable promise. It never decreases, and has a record of
// its own, so that no accepted or learned value can take it back.
func (c *Core) promise(b Ballot) {
	if !c.promised.Less(b) {
		return
	}
	c.promised = b
	c.sawRound(b)
	c.eff.Records = append(c.eff.Records, Record{Kind: RecordPromise, Ballot: b})
}

func (c *Core) onAccept(m *Message) {
	c.sawRound(m.Ballot)
	if m.Ballot.Less(c.promised) {
		c.free(Message{Kind: MsgAccepted, To: m.From, Ballot: m.Ballot, Reject: RejectBallot, Promised: c.promised, Chosen: c.chosen})
		return
	}
	granted := c.follow(m)
	gap, fresh := c.accept(m)
	c.countChosen(m.Chosen)
	a := Message{
		Kind: MsgAccepted, To: m.From, Ballot: m.Ballot, Able: c.able, Chosen: c.chosen, Sent: m.Sent, Lease: granted,
		First: m.First + Instance(len(m.Entries)), Received: c.held, Through: c.held,
	}
	if gap {
		a.Reject = RejectGap
	}
	if fresh || c.durableAt != c.ballot || c.vowed < c.held {
		c.ack, c.ackDue = a, true
		return
	}
	// Nothing new: the lease is granted at once, without waiting for the disk.
	a.Through, a.Lease = c.durable, min(granted, c.grants.assured)
	c.free(a)
}

// follow takes the sender for the leader and grants it a lease, whose length it
// returns: an answer may say it when all records so far are on disk.
func (c *Core) follow(m *Message) time.Duration {
	if c.phase != following {
		if c.phase == leading {
			c.stepDown()
		}
		c.abandonAttempt()
	}
	c.consent = Ballot{}
	if c.ballot != m.Ballot {
		c.ballot = m.Ballot
		c.held, c.vowed = c.chosen, 0
		c.flushAck()
	}
	c.promise(m.Ballot)
	c.assureBound()
	return c.grant(m)
}

// flushAck forgets an acknowledgement that was due under another ballot.
func (c *Core) flushAck() { c.ackDue = false }

// accept stores the entries that follow what is held. It reports whether
// entries before m.First are missing, and whether anything was stored.
func (c *Core) accept(m *Message) (gap, fresh bool) {
	if m.First > c.held+1 {
		return true, false
	}
	for i := range m.Entries {
		e := m.Entries[i]
		if e.Instance != m.First+Instance(i) {
			return true, fresh // not a run of instances: take nothing more of it
		}
		if e.Instance <= c.held {
			continue
		}
		e.Ballot = m.Ballot
		c.store(e)
		c.held = e.Instance
		fresh = true
	}
	c.adoptFirstMembers()
	return false, fresh
}

func (c *Core) store(e Entry) {
	c.win.put(e)
	c.eff.Records = append(c.eff.Records, Record{Kind: RecordAccept, Entry: e})
}

// countChosen applies the leader's word that everything through i is chosen,
// under the ballot it speaks with. Only what is held at that very ballot, and is
// on disk here, counts.
func (c *Core) countChosen(i Instance) {
	c.heard = max(c.heard, i)
	if c.durableAt == c.ballot {
		c.learnChosen(min(c.heard, c.durable))
	}
}

// vowAck vows the newest acknowledgement to the leader, and tells the member
// itself when its records are on disk.
func (c *Core) vowAck() {
	c.ackDue = false
	c.vowed = c.ack.Through
	c.vow(c.ack)
	if c.ack.To != c.cfg.Self {
		own := c.ack
		own.To = c.cfg.Self
		c.vow(own)
	}
}

// onDurable notes that everything through m.Through is on disk here.
func (c *Core) onDurable(m *Message) {
	if m.Ballot != c.ballot {
		return
	}
	if c.durableAt != c.ballot {
		c.durableAt, c.durable = c.ballot, 0
	}
	c.durable = max(c.durable, m.Through)
	if c.phase != leading {
		c.countChosen(0)
	}
}

// onLearn stores entries that the sender knows to be chosen. They are taken
// whatever this member accepted there before.
func (c *Core) onLearn(m *Message) {
	if m.First > c.chosen+1 {
		c.onTrimmed(m)
		return
	}
	if c.phase == leading {
		if !c.overtaken(m.Entries) {
			return
		}
		c.stepDown()
	}
	through := c.chosen
	for i := range m.Entries {
		e := m.Entries[i]
		if e.Instance != m.First+Instance(i) {
			break
		}
		if e.Instance <= c.chosen {
			continue
		}
		c.sawRound(e.Ballot)
		c.store(e)
		through = e.Instance
	}
	if through == c.chosen {
		return
	}
	c.learnChosen(through)
	c.ackLearned()
	if c.chosen < m.Chosen && (c.leader == 0 || c.now >= c.leaseEnd) {
		c.free(Message{Kind: MsgAsk, To: m.From, First: c.chosen + 1})
	}
	if c.try.behind && c.phase != leading {
		c.abandonAttempt()
		c.campaignAt = c.now // it was refused for what it has learned now
	}
}

// onTrimmed notes that a member no longer has what this one lacks, and asks the
// others. Where nobody has it the application must bring a snapshot.
func (c *Core) onTrimmed(m *Message) {
	if len(m.Entries) > 0 || c.phase == leading {
		return
	}
	c.lacking = m.First
	if c.now < c.asked.Add(c.cfg.Heartbeat) {
		return
	}
	c.asked = c.now
	for _, o := range c.members.List {
		if o.ID != c.cfg.Self && o.ID != m.From {
			c.free(Message{Kind: MsgAsk, To: o.ID, First: c.chosen + 1})
		}
	}
}

// Lacking is the oldest instance that another member could still teach, when
// that is beyond what this member needs next; else 0. A member that goes on
// lacking needs a snapshot of the application through Lacking-1 or later.
func (c *Core) Lacking() Instance {
	if c.lacking <= c.chosen+1 {
		return 0
	}
	return c.lacking
}

// overtaken reports whether a chosen entry shows that a higher ballot than the
// own one has chosen something: then what this leader proposed may be void.
func (c *Core) overtaken(es []Entry) bool {
	for i := range es {
		if es[i].Instance > c.chosen && c.ballot.Less(es[i].Ballot) {
			return true
		}
	}
	return false
}

// ackLearned tells the leader, if there is one, what is held now.
func (c *Core) ackLearned() {
	if c.phase == leading || c.ballot.IsZero() || c.leader == 0 {
		return
	}
	if !c.ackDue {
		c.ack = Message{Kind: MsgAccepted, To: c.leader, Ballot: c.ballot, Able: c.able}
		c.ackDue = true
	}
	c.ack.Received, c.ack.Through, c.ack.Chosen = c.held, c.held, c.chosen
	c.ack.First = max(c.ack.First, c.held+1)
}
