package paxos

import (
	"slices"
	"time"
)

// This file is the leader: phase 2 in a pipeline, progress of each member,
// membership barrier.

// peer is what a leader knows of a member, itself included.
type peer struct {
	id       NodeID
	votes    bool
	role     Role
	able     bool
	probing  bool     // where to go on is not known: heartbeats only, until it answers
	fetching bool     // the shell is reading the log for it
	match    Instance // durable there under the leader's ballot
	next     Instance // next to send
	told     Instance // chosen through told has been said
	shipped  Instance // sent from the log through here; the next piece waits until it has arrived
	sentAt   Time     // the newest MsgAccept that it answered was sent then
	granted  Time     // the newest message with which it granted the lease was sent then
	until    Time     // the lease that it granted ends then, on the leader's clock
	lastSend Time
	resetAt  Time // next was set back then; answers to older messages say nothing about losses
}

// leadership is the state of a leader.
type leadership struct {
	term    Ballot
	since   Time
	start   Instance // first instance of the term: when it is chosen everything before is known; 0 until phase 1 under the final members has ended
	last    Instance // newest proposal
	peers   []peer
	raising bool     // phase 1 of a higher ballot runs; no new proposals
	barrier Instance // a membership proposed and not yet chosen
	wanted  *Members // to be proposed when everything before is chosen
	was     *Members // that wanted was made from, or nil
	lease   Time     // end of the lease
	renewed Time     // when MsgRenew was sent last
	lapsed  Time     // since when there is no lease, 0 when there is one
}

type position struct {
	id     NodeID
	chosen Instance
}

func (l *leadership) peer(id NodeID) *peer {
	for i := range l.peers {
		if l.peers[i].id == id {
			return &l.peers[i]
		}
	}
	return nil
}

// setPeers follows a membership; what is known of members that stay is kept.
func (l *leadership) setPeers(ms Members, c *Core) {
	old := l.peers
	l.peers = nil
	for _, m := range ms.List {
		p := peer{id: m.ID, probing: m.ID != c.cfg.Self, resetAt: c.now}
		if k := slices.IndexFunc(old, func(p peer) bool { return p.id == m.ID }); k >= 0 {
			p = old[k]
		}
		p.votes, p.role = m.Votes(), m.Role
		l.peers = append(l.peers, p)
	}
}

// restart forgets who acknowledged what under the ballot before, and goes on
// from where the promisers stand.
func (l *leadership) restart(positions []position, self NodeID) {
	l.raising, l.barrier = false, 0
	for i := range l.peers {
		p := &l.peers[i]
		p.match, p.shipped, p.probing = 0, 0, p.id != self
		for _, q := range positions {
			if q.id == p.id {
				p.next, p.probing = q.chosen+1, false
			}
		}
	}
}

// successor is the member fittest to lead after self: able, and furthest.
func (l *leadership) successor(self NodeID) NodeID {
	var best *peer
	for i := range l.peers {
		p := &l.peers[i]
		if p.id == self || p.role != Voter || !p.able || p.probing {
			continue
		}
		if best == nil || best.match < p.match {
			best = p
		}
	}
	if best == nil {
		return 0
	}
	return best.id
}

// Room reports whether a proposal would be taken now. It is false unless this
// member leads, and while a membership change or a limit holds proposals back.
func (c *Core) Room() bool {
	return c.phase == leading && !c.lead.raising && c.lead.barrier == 0 && c.lead.wanted == nil &&
		c.win.bytes(c.chosen, c.lead.last) < c.cfg.MaxInflight
}

// LastProposed is the instance of the newest proposal of this leader.
func (c *Core) LastProposed() Instance { return c.lead.last }

func (c *Core) propose(k EntryKind, data []byte) {
	if !c.Room() {
		panic("paxos: proposal without room")
	}
	c.append(k, data)
}

// append gives the next instance to a value and accepts it here. It is sent by
// replicate, while the own disk writes.
func (c *Core) append(k EntryKind, data []byte) {
	c.lead.last++
	e := Entry{Instance: c.lead.last, Ballot: c.ballot, Kind: k, Data: data}
	c.store(e)
	c.held = e.Instance
	c.ack = Message{Kind: MsgAccepted, To: c.cfg.Self, Ballot: c.ballot, Through: c.held, Received: c.held, First: c.held + 1}
	c.ackDue = true
	if k == Membership {
		c.lead.barrier = e.Instance
	}
}

// proposeMembers proposes the wanted membership once the pipeline is drained.
func (c *Core) proposeMembers() {
	l := &c.lead
	if l.wanted == nil || l.raising || l.barrier != 0 || c.chosen < l.last {
		return
	}
	want, was := l.wanted, l.was
	l.wanted, l.was = nil, nil
	if c.stillValid(was) {
		c.append(Membership, want.Encode())
	}
}

// stillValid reports whether a change of a membership would change the valid one: else it
// would undo the change that came between.
func (c *Core) stillValid(was *Members) bool {
	return was == nil || slices.Equal(was.List, c.members.List)
}

// replicate sends members what they lack. With hello every member is spoken to,
// even if there is nothing to send.
func (c *Core) replicate(hello bool) {
	if c.lead.raising {
		return // the old ballot is given up, the new one not yet won
	}
	for i := range c.lead.peers {
		p := &c.lead.peers[i]
		if p.id == c.cfg.Self {
			continue
		}
		sent := c.feed(p)
		if hello && !sent {
			c.sendAccept(p, nil)
		}
	}
}

// maxFlight limits the bytes on their way to one member.
const maxFlight = 16 << 20

// feed sends entries to a member as far as its window allows.
func (c *Core) feed(p *peer) (sent bool) {
	for !p.probing && !p.fetching && p.next <= c.lead.last {
		if p.next <= c.win.base {
			if p.shipped <= p.match {
				p.fetching = true
				c.fetch(p.id, p.next)
			}
			return sent
		}
		if c.inFlight(p) > maxFlight {
			return sent
		}
		es := c.win.from(p.next, c.lead.last, c.cfg.MaxMessage)
		c.sendAccept(p, es)
		sent = true
	}
	return sent
}

// inFlight is the number of bytes sent to a member and not acknowledged.
func (c *Core) inFlight(p *peer) int64 {
	from := max(p.match, c.win.base)
	return c.win.bytes(from, p.next-1)
}

func (c *Core) sendAccept(p *peer, es []Entry) {
	for i := range es {
		es[i].Ballot = c.ballot // chosen entries may still carry the ballot of an earlier leader
	}
	c.free(Message{Kind: MsgAccept, To: p.id, Ballot: c.ballot, First: p.next, Entries: es, Chosen: c.chosen, Sent: c.now, Lease: c.grants.length})
	p.next += Instance(len(es))
	p.told, p.lastSend = c.chosen, c.now
}

// fetched goes on with a member after the shell has sent it chosen entries from
// the log.
func (c *Core) fetched(to NodeID, through Instance) {
	if c.phase != leading {
		return
	}
	p := c.lead.peer(to)
	if p == nil || !p.fetching {
		return
	}
	p.fetching = false
	if through >= p.next {
		p.next, p.shipped = through+1, through
	} else {
		p.probing = true // could not be read: ask again where it stands
	}
}

func (c *Core) onAccepted(m *Message) {
	if m.From == c.cfg.Self {
		c.onDurable(m)
	}
	if m.Reject == RejectBallot {
		c.outbid(m)
		return
	}
	if c.phase != leading || m.Ballot != c.ballot {
		return
	}
	p := c.lead.peer(m.From)
	if p == nil {
		return
	}
	p.able = m.Able
	p.sentAt = max(p.sentAt, m.Sent)
	c.noteGrant(p, m)
	p.match = max(p.match, min(m.Through, c.lead.last))
	c.redirect(p, m)
	c.renewLease()
	c.countVotes()
}

// redirect sets next back when messages to a member were lost.
func (c *Core) redirect(p *peer, m *Message) {
	switch {
	case m.From == c.cfg.Self:
	case p.probing:
		p.next, p.probing, p.resetAt, p.shipped = m.Received+1, false, c.now, 0
	case m.Received+1 < m.First && m.Sent > p.resetAt && !p.fetching:
		p.next, p.resetAt, p.shipped = min(p.next, m.Received+1), c.now, 0
	case m.Received+1 > p.next && m.Received <= c.lead.last:
		p.next = m.Received + 1 // learned from elsewhere
	}
}

// outbid handles the news that a member promised a higher ballot. Under a running
// lease nobody else leads, so this leader raises its own; without one it goes.
func (c *Core) outbid(m *Message) {
	c.sawRound(m.Promised)
	if c.phase != leading || m.Ballot != c.ballot || !c.ballot.Less(m.Promised) {
		return
	}
	if c.now < c.lead.lease {
		c.raise()
		return
	}
	c.stepDown()
}

// countVotes finds the newest instance that a majority holds durably under the
// own ballot.
func (c *Core) countVotes() {
	var buf [MaxMembers]Instance
	n := 0
	for i := range c.lead.peers {
		if p := &c.lead.peers[i]; p.votes {
			buf[n] = p.match
			n++
		}
	}
	votes := buf[:n]
	slices.Sort(votes)
	through := votes[n-c.members.Quorum()]
	if through <= c.chosen || c.lead.raising {
		return
	}
	barrier := c.lead.barrier
	c.learnChosen(through)
	if barrier != 0 && c.chosen >= barrier {
		c.passBarrier()
	}
}

// passBarrier goes on under the new members: promises of the old ones say
// nothing about instances behind the barrier.
func (c *Core) passBarrier() {
	c.lead.barrier = 0
	c.renewLease()
	if me, ok := c.members.Find(c.cfg.Self); !ok || me.Role != Voter {
		c.replicate(true)
		c.stepDown()
		return
	}
	c.replicate(true)
	c.raise()
}

func (c *Core) tickLeader() {
	if c.patienceEnds() {
		c.stepDown()
		return
	}
	if c.lead.raising {
		if c.now >= c.try.sentAt.Add(2*c.cfg.Heartbeat) {
			c.prepareAgain() // promises or requests were lost
		}
		return
	}
	c.renew()
	for i := range c.lead.peers {
		p := &c.lead.peers[i]
		if p.id == c.cfg.Self {
			continue
		}
		if c.now >= max(p.sentAt, c.lead.since).Add(2*c.grace()) {
			p.probing = true
		}
		if c.now >= p.lastSend.Add(c.cfg.Heartbeat) || p.told < c.chosen && !p.probing {
			c.sendAccept(p, nil)
		}
	}
}

// patienceEnds reports whether the lease has been gone for a whole lease: then
// the leader makes room. Until then it may still get it back.
func (c *Core) patienceEnds() bool {
	c.renewLease()
	if c.now < c.lead.lease {
		c.lead.lapsed = 0
		return false
	}
	if c.lead.lapsed == 0 {
		c.lead.lapsed = c.now
	}
	return c.now >= c.lead.lapsed.Add(c.grace())
}

// Progress is what a leader knows of a member.
type Progress struct {
	ID      NodeID
	Match   Instance // durable there under the leader's ballot
	Next    Instance // next to send
	Probing bool     // it has not answered of late
	Able    bool     // it could lead
	Silent  time.Duration
}

// Progress returns what this leader knows of the others; nil when it does not lead.
func (c *Core) Progress() []Progress {
	if c.phase != leading {
		return nil
	}
	var out []Progress
	for i := range c.lead.peers {
		p := &c.lead.peers[i]
		if p.id == c.cfg.Self {
			continue
		}
		out = append(out, Progress{ID: p.id, Match: p.match, Next: p.next, Probing: p.probing, Able: p.able, Silent: time.Duration(c.now - max(p.sentAt, p.granted, c.lead.since))})
	}
	return out
}
