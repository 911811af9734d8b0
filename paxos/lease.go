package paxos

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// This file is the lease, on both sides. A member that hears from the leader it follows
// refuses everybody else for a while, and says with its answer for how long. The leader
// counts from when it sent what was answered, takes off what two clocks may differ, and
// holds the lease for as long as a majority has granted it, itself included.
//
// So members need not agree on a length, and a member may change its own at any time
// (EventLease): a grant is never taken back or cut short, the next one is longer or
// shorter. What a member has granted is in its memory only; what bounds it is on disk
// (RecordLease), and a restarted member waits that long.

// MaxLease is the longest lease. A message or a record that says a longer one is malformed.
const MaxLease = time.Hour

// minHeartbeats is how many heartbeats a lease lasts at least: one lost message must not
// end it.
const minHeartbeats = 3

// ErrLease refuses a length of leases.
var ErrLease = errors.New("length of leases out of range")

// CheckLease returns ErrLease unless leases of length d are long enough for the heartbeat
// and not longer than MaxLease.
func (c Config) CheckLease(d time.Duration) error {
	if low := minHeartbeats * c.Heartbeat; d < low || d > MaxLease {
		return fmt.Errorf("check lease of %v: %w: from %v (%d heartbeats) to %v", d, ErrLease, low, minHeartbeats, MaxLease)
	}
	return nil
}

// lengths is what a member knows of the leases that it grants.
type lengths struct {
	length time.Duration // of the next
	// bound is the newest RecordLease, 0 before the first. No lease that was granted and
	// may still run is longer.
	bound time.Duration
	// assured is what the disk will be found to say at least, whichever of the records on
	// their way to it arrive. An answer that does not wait for the disk says no more.
	assured time.Duration
	records uint64 // number of the newest RecordLease of this life
	// longUntil is when the last lease has ended that was granted while length, or the
	// bound of an earlier life, was more than it is now.
	longUntil Time
}

// LeaseLength is the length of the leases that this member grants now.
func (c *Core) LeaseLength() time.Duration { return c.grants.length }

// maxGrace limits the waits that are no matter of safety.
const maxGrace = 5 * time.Second

// grace is how long a member gives others for what they are about to do, such as to lead
// after it has promised to them: as long as a lease, unless leases are very long.
func (c *Core) grace() time.Duration { return min(c.grants.length, maxGrace) }

// longestGrant is the longest lease that is granted now: a leader of a release that does
// not count by what it is told counts by the configuration.
func (c *Core) longestGrant() time.Duration { return max(c.grants.length, c.cfg.Lease) }

// setLease changes the length of leases that are granted from now on.
func (c *Core) setLease(d time.Duration) {
	if d <= 0 || d > MaxLease || d == c.grants.length {
		return
	}
	if d < c.grants.length {
		c.grants.longUntil = max(c.grants.longUntil, c.now.Add(c.longestGrant()))
	}
	c.grants.length = d
	if c.grants.bound > 0 {
		c.assureBound()
	}
}

// assureBound records the length of the longest lease before one is granted.
func (c *Core) assureBound() {
	if d := c.longestGrant(); c.grants.bound < d {
		c.recordLease(d)
		c.vow(Message{Kind: MsgRenewed, To: c.cfg.Self, Lease: d, Through: Instance(c.grants.records)})
	}
}

// relaxBound records a shorter length when all leases that were longer are over. Until
// that is on disk a restarted member waits for longer than it must.
func (c *Core) relaxBound() {
	if d := c.longestGrant(); c.grants.bound > d && c.now >= c.grants.longUntil {
		c.recordLease(d)
	}
}

func (c *Core) recordLease(d time.Duration) {
	c.grants.bound = d
	c.grants.assured = min(c.grants.assured, d)
	c.grants.records++
	c.eff.Records = append(c.eff.Records, Record{Kind: RecordLease, Lease: d})
}

// onAssured notes that a RecordLease is on disk. It counts only if none came after it.
func (c *Core) onAssured(m *Message) {
	if m.Through == Instance(c.grants.records) {
		c.grants.assured = m.Lease
	}
}

// grant lets the sender lead alone for another lease, whose length it returns. What the
// sender has been granted before still runs; what others had is over, or a majority would
// not follow the sender.
func (c *Core) grant(m *Message) time.Duration {
	d := c.grants.length
	if m.Lease == 0 {
		d = c.longestGrant()
	}
	end := c.now.Add(d)
	if c.leaseOf.Node == m.From {
		end = max(end, c.leaseEnd)
	}
	c.leader = m.From
	c.leaseOf = m.Ballot
	c.leaseEnd = end
	c.postpone(c.leaseEnd)
	return d
}

// onRenew grants the lease anew to the leader that is followed already; the
// first grant of a ballot waits for the disk and comes with an acceptance.
func (c *Core) onRenew(m *Message) {
	if c.phase == leading || m.Ballot != c.ballot || c.durableAt != c.ballot || m.Ballot.Less(c.promised) {
		return
	}
	c.abandonAttempt()
	said := min(c.grant(m), c.grants.assured)
	c.free(Message{Kind: MsgRenewed, To: m.From, Ballot: m.Ballot, Able: c.able, Sent: m.Sent, Lease: said})
}

// renew asks for the lease apart from the entries, which may keep a connection
// or a disk busy for longer than the lease.
func (c *Core) renew() {
	if c.now < c.lead.renewed.Add(c.cfg.Heartbeat) {
		return
	}
	c.lead.renewed = c.now
	for i := range c.lead.peers {
		if p := &c.lead.peers[i]; p.id != c.cfg.Self {
			c.free(Message{Kind: MsgRenew, To: p.id, Ballot: c.ballot, Sent: c.now, Lease: c.grants.length})
		}
	}
}

func (c *Core) onRenewed(m *Message) {
	if m.From == c.cfg.Self {
		c.onAssured(m)
		return
	}
	if c.phase != leading || m.Ballot != c.ballot {
		return
	}
	if p := c.lead.peer(m.From); p != nil {
		p.able = m.Able
		c.noteGrant(p, m)
		c.renewLease()
	}
}

// noteGrant notes until when a member lets this leader lead alone. One that does not say
// how long its lease is has the same configuration.
func (c *Core) noteGrant(p *peer, m *Message) {
	if m.Sent == 0 {
		return // it answers nothing that this leader sent
	}
	length := m.Lease
	if length == 0 {
		length = c.cfg.Lease
	}
	p.granted = max(p.granted, m.Sent)
	p.until = max(p.until, m.Sent.Add(c.counted(length)))
}

// counted is what a leader counts of a lease: less than its length by what the rates of two
// clocks may differ.
func (c *Core) counted(length time.Duration) time.Duration {
	return time.Duration(float64(length) * (1 - c.cfg.ClockError) / (1 + c.cfg.ClockError))
}

// renewLease computes the end of the lease: until when each member of some majority
// grants it. The leader itself grants it for a length of its own from now on: while the
// lease runs it promises to nobody.
func (c *Core) renewLease() {
	var buf [MaxMembers]Time
	n := 0
	for i := range c.lead.peers {
		p := &c.lead.peers[i]
		if !p.votes {
			continue
		}
		buf[n] = p.until
		if p.id == c.cfg.Self {
			buf[n] = c.now.Add(c.counted(c.grants.length))
		}
		n++
	}
	ends := buf[:n]
	slices.Sort(ends)
	c.lead.lease = ends[n-c.members.Quorum()]
}

// LeaseEnd is until when this member alone may lead, on its own clock; 0 when
// it holds no lease.
func (c *Core) LeaseEnd() Time {
	if c.phase != leading || c.lead.start == 0 {
		return 0
	}
	return c.lead.lease
}
