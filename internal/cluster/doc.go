// Package cluster takes the decisions of a node: when its server starts, whom
// it follows, when it becomes the master, and when it must stop being it.
//
// Decide is a pure function from what a node knows (View) to what it should do
// now (Actions). It has no clock, no I/O, no memory: durations come as values
// in the view, and everything under way is in the view too. The shell (package
// agent) collects the view, carries the actions out, and asks again after each
// change. Asking twice with the same view gives the same answer.
//
// It is not the consensus: who leads is decided by package paxos. A leader is
// not yet the master. The way from one to the other is
//
//	leader ready -> epoch value chosen -> everything before it executed
//	  -> replica stopped -> tail attached -> writable -> events on -> gate open
//
// and the gate opens last. The way back closes the gate first.
//
// Invariants, kept as code in Check and tested with random views:
//
//   - The gate opens only on the leader, under a lease, with the node's own
//     epoch as the newest of the log, everything before it executed, the tail
//     attached and the server writable.
//   - The gate is closed before a server is killed or leadership is given away.
//   - A server that may hold transactions of unknown fate ("dirty") is neither
//     stopped politely, nor used as a replica, nor handed over: it is killed.
//   - A server is never made writable while it replicates or without a tail.
package cluster
