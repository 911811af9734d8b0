// Package telemetry sets up what a node tells about itself while it runs: its
// log, the ring of its latest events, and its metrics.
//
// It is not the status (see api): nothing is decided by what is logged or
// counted here.
//
// Invariants:
//   - A record has a constant message; what varies stands under a key of this
//     package's list (Keys), in snake_case.
//   - Error means that a person must act, Warn that something works less well
//     than it should, Info that a state has changed, once. Debug may be noisy.
//   - The ring never grows beyond its limit and never blocks a writer.
package telemetry
