package proxy

import "sync/atomic"

// Stats are counts of both ports since the start.
type Stats struct {
	RW, RO PortStats
}

// PortStats are the counts of one port.
type PortStats struct {
	Open       int64  // sessions with a server now
	Waiting    int64  // connections that wait for a route now
	Accepted   uint64 // connections
	Hops       uint64 // of them, forwarded by another member
	Closed     uint64 // sessions that their client or server ended
	Cut        uint64 // sessions ended by Cut, a closed gate, or another master
	Drained    uint64 // sessions ended by Drain
	Refused    uint64 // connections that got no server, and logins that failed in the proxy
	Late       uint64 // commands that came after their session's end was decided, as far as it is followed
	FromClient uint64 // bytes
	ToClient   uint64 // bytes
}

type portCounters struct {
	open, waiting                                 atomic.Int64
	accepted, hops, closed, cut, drained, refused atomic.Uint64
	late, fromClient, toClient                    atomic.Uint64
}

func (c *portCounters) ended(k endKind) {
	switch k {
	case endClosed:
		c.closed.Add(1)
	case endCut:
		c.cut.Add(1)
	case endDrained:
		c.drained.Add(1)
	case endRefused:
		c.refused.Add(1)
	}
}

func (c *portCounters) snapshot() PortStats {
	return PortStats{
		Open: c.open.Load(), Waiting: c.waiting.Load(),
		Accepted: c.accepted.Load(), Hops: c.hops.Load(),
		Closed: c.closed.Load(), Cut: c.cut.Load(), Drained: c.drained.Load(), Refused: c.refused.Load(),
		Late: c.late.Load(), FromClient: c.fromClient.Load(), ToClient: c.toClient.Load(),
	}
}

// Stats returns the counts at this moment.
func (p *Proxy) Stats() Stats {
	return Stats{RW: p.rw.stats.snapshot(), RO: p.ro.stats.snapshot()}
}
