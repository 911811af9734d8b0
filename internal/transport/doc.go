// Package transport carries messages between the agents of a cluster: consensus
// messages, announcements, and small calls, over TCP with mutual TLS.
//
// There is one connection for each direction of each pair of nodes. The dialer
// writes and the acceptor reads, so that a node that reads slowly never blocks what
// it sends. Only answers flow back on a connection: pongs and results of calls.
// docs/format/transport.md draws the frames.
//
// It is not a reliable channel. A message may be lost (full queue, broken
// connection) and is then counted, never resent: consensus resends what
// it still needs. Messages that arrive are whole. Messages that carry entries and
// MsgAccept and MsgHandover arrive in the order sent; votes and
// acknowledgements may overtake them.
//
// Frames have no checksum of their own: TLS authenticates every record, a flip in
// memory before or after it would not be caught by a sum made beside it, and
// entries carry sums from where they were made to where they are kept.
//
// Invariants: the sender of a message is the node that its certificate names, not
// the one that the message names; no size read from the wire is allocated before it
// was checked; Send never blocks; every queue has a limit.
//
// Goroutines: one accepts, and ends with the listener. One for each peer dials and
// writes, except that a sender writes itself where that needs no waiting; one reads the answers; they end when the peer is removed or the transport
// closed. Two for each accepted connection, one reads and one writes answers; they
// end with the connection. One for each call being handled, whose context ends
// with the connection. Close ends them all and waits.
package transport
