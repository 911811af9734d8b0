package paxos

import (
	"slices"
	"time"
)

// This file is the way to leadership: canvass, phase 1, adoption, hand-over,
// and the raise of a leader's own ballot.

// attempt is a candidate's or a raising leader's phase 1.
type attempt struct {
	ballot    Ballot
	first     Instance // phase 1 covers all instances from first on
	yes       []NodeID
	no        []NodeID // who refused
	found     []Entry  // highest-ballot entry per instance of the promises, ascending
	sentAt    Time
	behind    bool       // somebody refused because this member lacks chosen instances
	positions []position // what the promisers have chosen
	raising   bool       // this member leads and only raises its ballot
}

func (c *Core) candidacy(able bool, delay time.Duration) {
	c.able, c.lag = able, delay
	if !able {
		c.abandonAttempt()
	}
}

// postpone sets the time of the next campaign: not before t, and after the
// delays that let better candidates go first.
func (c *Core) postpone(t Time) {
	c.campaignAt = t.Add(c.lag + time.Duration(c.cfg.Rand(int64(c.cfg.Spread)+1)))
}

// await gives the attempt at leadership time for answers, and then another try. An attempt
// in which less than a majority answered in time may have asked members that are far away,
// so the next one waits twice as long. A majority whose answers take longer than a lease
// could not keep a leader either.
func (c *Core) await() {
	least := c.cfg.Spread + 2*c.cfg.Heartbeat
	c.patience = min(max(c.patience, least), max(c.grace(), least))
	c.postpone(c.now.Add(c.patience))
}

// giveUp looks back at an attempt that did not succeed in time.
func (c *Core) giveUp() {
	if c.phase != following && len(c.try.yes)+len(c.try.no) < c.members.Quorum() {
		c.patience *= 2
	}
}

func (c *Core) mayLead() bool {
	me, ok := c.members.Find(c.cfg.Self)
	return ok && me.Role == Voter && c.able
}

func (c *Core) tickFollower() {
	if c.leader != 0 && c.now >= c.leaseEnd {
		c.leader = 0
	}
	if c.now < c.campaignAt || c.now < c.leaseEnd || c.now < c.barred {
		return
	}
	if !c.mayLead() {
		c.inquire()
		return
	}
	c.canvass()
}

// inquire asks all members what was chosen. A member that cannot lead does so
// when nobody speaks to it: those who could may have left the membership, and what
// says so may be what it lacks.
func (c *Core) inquire() {
	c.postpone(c.now.Add(c.grace()))
	for _, m := range c.members.List {
		if m.ID != c.cfg.Self {
			c.free(Message{Kind: MsgAsk, To: m.ID, First: c.chosen + 1})
		}
	}
}

// canvass asks whether a Prepare would be granted, before anything is promised.
func (c *Core) canvass() {
	c.giveUp()
	c.leader = 0
	c.phase = canvassing
	c.begin()
	c.await()
	c.broadcast(MsgCanvass)
	c.consented(c.cfg.Self)
}

func (c *Core) begin() {
	c.seen++
	c.try = attempt{ballot: Ballot{Round: c.seen, Node: c.cfg.Self}, first: c.chosen + 1, sentAt: c.now}
}

func (c *Core) broadcast(k MessageKind) {
	for _, m := range c.members.List {
		if m.Votes() && m.ID != c.cfg.Self && !slices.Contains(c.try.yes, m.ID) {
			c.free(Message{Kind: k, To: m.ID, Ballot: c.try.ballot, First: c.try.first, Chosen: c.chosen, Consent: c.consent})
		}
	}
}

// consented counts a yes and goes on when there is a majority.
func (c *Core) consented(from NodeID) {
	if m, ok := c.members.Find(from); !ok || !m.Votes() || slices.Contains(c.try.yes, from) {
		return
	}
	c.try.yes = append(c.try.yes, from)
	if len(c.try.yes) < c.members.Quorum() {
		return
	}
	// The own promise must be among them: on disk, it keeps a restarted
	// candidate from leading twice with one ballot.
	switch {
	case c.phase == canvassing:
		c.await()
		c.prepare(false)
	case slices.Contains(c.try.yes, c.cfg.Self):
		c.adopt()
	}
}

func (c *Core) onOpinion(m *Message) {
	c.sawRound(m.Promised)
	if c.phase != canvassing || m.Ballot != c.try.ballot {
		return
	}
	if m.Reject == RejectNone {
		c.consented(m.From)
		return
	}
	c.refused(m)
}

// refused looks at why: members that lack the log are taught, so that they can
// consent next time.
func (c *Core) refused(m *Message) {
	if v, ok := c.members.Find(m.From); ok && v.Votes() && !slices.Contains(c.try.no, m.From) {
		c.try.no = append(c.try.no, m.From)
	}
	if m.Reject == RejectBehind {
		c.try.behind = true
	}
	if m.Reject == RejectBlank {
		c.teach(m.From, 1)
	}
}

// prepare runs phase 1 for all instances not known to be chosen.
func (c *Core) prepare(raising bool) {
	c.begin()
	c.try.raising = raising
	if !raising {
		c.phase = preparing
	}
	c.broadcast(MsgPrepare)
	c.onPrepare(&Message{Kind: MsgPrepare, From: c.cfg.Self, To: c.cfg.Self, Ballot: c.try.ballot, First: c.try.first, Chosen: c.chosen, Consent: c.consent})
}

// prepareAgain asks those who have not answered once more: with the same ballot,
// so that a slow disk or network can still answer, unless a higher one is around.
func (c *Core) prepareAgain() {
	if c.seen > c.try.ballot.Round {
		c.prepare(c.try.raising)
		return
	}
	c.try.sentAt = c.now
	c.broadcast(MsgPrepare)
}

func (c *Core) inPhase1() bool { return c.phase == preparing || c.phase == leading && c.lead.raising }

func (c *Core) onPromise(m *Message) {
	c.sawRound(m.Promised)
	if !c.inPhase1() || m.Ballot != c.try.ballot {
		return
	}
	if m.Reject != RejectNone {
		c.refused(m)
		return
	}
	// A promise for another range may be of a life before a restart.
	if m.First != c.try.first || slices.Contains(c.try.yes, m.From) {
		return
	}
	c.merge(m.Entries)
	c.try.positions = append(c.try.positions, position{m.From, m.Chosen})
	c.consented(m.From)
}

// merge keeps, for each instance, the entry of the highest ballot.
func (c *Core) merge(es []Entry) {
	for _, e := range es {
		k, found := slices.BinarySearchFunc(c.try.found, e.Instance, func(a Entry, i Instance) int { return int(int64(a.Instance) - int64(i)) })
		switch {
		case !found:
			c.try.found = slices.Insert(c.try.found, k, e)
		case c.try.found[k].Ballot.Less(e.Ballot):
			c.try.found[k] = e
		}
	}
}

// adopt ends phase 1: the values found are proposed again under the new ballot,
// up to the first membership, behind which another phase 1 is needed.
func (c *Core) adopt() {
	if c.try.raising {
		if c.outvoted() {
			c.stepDown()
			return
		}
	} else {
		c.startTerm()
	}
	c.ballot, c.held = c.try.ballot, c.chosen
	c.lead.restart(c.try.positions, c.cfg.Self)
	c.lead.last = c.chosen
	for _, e := range c.try.found {
		if e.Instance <= c.chosen {
			continue
		}
		for c.lead.last+1 < e.Instance { // nobody in a majority accepted anything there: not chosen
			c.append(Noop, nil)
		}
		c.append(e.Kind, e.Data)
		if e.Kind == Membership {
			break
		}
	}
	if c.lead.start == 0 && c.lead.barrier == 0 {
		c.append(Noop, nil)
		c.lead.start = c.lead.last
	}
	c.try = attempt{}
	c.replicate(true)
}

// outvoted reports whether phase 1 of a raise found an instance that went to
// another proposer since: then this leader has lost its term without knowing.
func (c *Core) outvoted() bool {
	for _, e := range c.try.found {
		if e.Instance > c.chosen && c.ballot.Less(e.Ballot) {
			return true
		}
	}
	return false
}

func (c *Core) startTerm() {
	c.phase = leading
	c.leader = c.cfg.Self
	c.consent, c.patience = Ballot{}, 2*time.Duration(c.now-c.try.sentAt)
	c.lead = leadership{term: c.try.ballot, since: c.now}
	c.lead.setPeers(c.members, c)
}

// raise runs phase 1 again under a higher ballot while leadership and lease go on.
func (c *Core) raise() {
	if c.lead.raising {
		return
	}
	c.lead.raising = true
	c.prepare(true)
}

func (c *Core) abandonAttempt() {
	if c.phase == canvassing || c.phase == preparing {
		c.phase = following
		c.try = attempt{}
	}
}

// stepDown ends leadership. Proposals that are not known to be chosen have an
// unknown outcome from here on.
func (c *Core) stepDown() {
	c.phase = following
	c.leader = 0
	c.lead = leadership{}
	c.try = attempt{}
	c.ackDue = false
	c.postpone(c.now.Add(c.grace()))
}

// transfer renounces leadership at once, and then names a successor that may
// ignore the lease. With to 0 the best member that is able is taken. What is
// renounced is the ballot under which the leases were granted, even while a higher
// one is being won: that one may not be on disk, and after a restart this member
// could win it again.
func (c *Core) transfer(to NodeID) {
	if c.phase != leading {
		return
	}
	if to == 0 {
		to = c.lead.successor(c.cfg.Self)
	}
	if m, ok := c.members.Find(to); !ok || m.Role != Voter || to == c.cfg.Self {
		return
	}
	b := c.ballot
	c.replicate(false)
	c.stepDown()
	c.leaseOf, c.leaseEnd = b, c.now.Add(c.grace()) // lets nobody else in before the successor
	c.postpone(c.now.Add(2 * c.grace()))
	c.free(Message{Kind: MsgHandover, To: to, Ballot: b, Promised: c.promised, Chosen: c.chosen})
}

func (c *Core) onHandover(m *Message) {
	if !c.mayLead() || c.phase == leading || m.Ballot.Node != m.From || m.Ballot.Less(c.leaseOf) {
		return
	}
	c.abandonAttempt()
	if c.leaseOf.Node == m.From {
		c.leaseEnd = c.now
	}
	c.sawRound(m.Ballot)
	c.sawRound(m.Promised)
	c.consent = m.Ballot
	c.leader = 0
	c.postpone(c.now.Add(c.grace()))
	c.prepare(false)
}
