// Package agent is the composition root: it makes the parts of a node from its
// configuration, runs the loop that asks package cluster for decisions and
// carries them out, and answers the admin API.
//
// It takes no decisions of its own: what is done, and in which order, is
// cluster.Decide's business, and this package only knows how each thing is done.
// It is the only package that knows all others.
//
// Goroutines: the loop owns the view and every decision. Slow actions run one at
// a time beside it, and give their results back to it. Others watch the membership,
// announce this node to its peers, and serve the ports. All end when Run
// returns; the server process has ended before the log is closed.
//
// Invariants:
//
//   - Fast actions, closing the gate above all, never wait for a slow one.
//   - What belongs to an earlier life of the server, or to an earlier leadership,
//     never reaches the view.
//   - The server is killed when this process dies, however it dies.
package agent
