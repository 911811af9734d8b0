package paxos

// This file is the read index: any member learns how far its own state must be for
// a read of it to be linearizable.
//
// A member that wants to read asks the leader, and the leader answers with what it
// knows to be chosen, if its lease runs at a moment after the question came and it
// knows everything from before its term. Under the lease nobody else got a value
// chosen, so whatever was answered to any proposer or reader before the question is
// within. The answer stays true however late it arrives: it is about the moment of
// the question. Questions and answers change nobody's state and may be lost; who
// gets no answer asks again.

// ReadIndex answers an EventReadIndex: a read of a state that has everything through
// Instance sees all that was answered to anybody before the event.
type ReadIndex struct {
	Token    uint64
	Instance Instance
}

// readIndex answers at once on a leader that may, and asks the leader elsewhere.
// Where nobody is known to lead, and where the lease is gone, nothing comes of it.
func (c *Core) readIndex(token uint64) {
	switch {
	case c.phase == leading && c.mayAnswer():
		c.eff.Reads = append(c.eff.Reads, ReadIndex{token, c.chosen})
	case c.phase != leading && c.leader != 0:
		c.free(Message{Kind: MsgReadIndex, To: c.leader, Sent: Time(token)})
	}
}

// mayAnswer reports whether nothing can be chosen now that this leader does not know.
func (c *Core) mayAnswer() bool {
	return c.now < c.LeaseEnd() && c.chosen >= c.lead.start
}

func (c *Core) onReadIndex(m *Message) {
	if c.phase == leading && c.mayAnswer() {
		c.free(Message{Kind: MsgReadAt, To: m.From, Ballot: c.ballot, Chosen: c.chosen, Sent: m.Sent})
	}
}

func (c *Core) onReadAt(m *Message) {
	c.eff.Reads = append(c.eff.Reads, ReadIndex{uint64(m.Sent), m.Chosen})
}
