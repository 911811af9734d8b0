// Package relay carries transactions between a MySQL server and the replicated
// log, both ways.
//
//   - Tail attaches to the local master as its only semi-synchronous replica,
//     proposes what it reads, and acknowledges what is chosen.
//   - Journal follows the chosen log and knows which of its values count, which
//     GTIDs they hold, and where a replica that has some of them must begin.
//   - Source is the MySQL source that the local follower replicates from. It
//     sends chosen transactions only.
//
// The package does not decide who is master, does not start servers and does
// not implement consensus: it needs the three small interfaces Log, Proposer
// and Ledger.
//
// Which values count: a Transactions or Chunk value counts only if its epoch and
// node are those of the newest Epoch value before it in the log; it is void
// otherwise. An Epoch value whose number is not above that of the newest one is
// void too. An Epoch value discards an unfinished chunked transaction. These
// rules look at nothing but the log, so all members judge alike.
//
// Invariants:
//
//   - A position is acknowledged only after the value that ends there was chosen
//     and counts. A chosen value that is void was written by a deposed master.
//   - A follower is never sent anything that is not chosen and does not count.
//   - Memory is bounded whatever the size of a transaction or of an event.
package relay

import (
	"context"

	"github.com/phxsql/phxsql/paxos"
)

// Log is the chosen log as this package reads it.
type Log interface {
	// Chosen is the newest instance that is chosen and can be read.
	Chosen() paxos.Instance
	// WaitChosen returns when Chosen is at least i, or with the context's
	// error.
	WaitChosen(ctx context.Context, i paxos.Instance) error
	// Read returns the entry at a chosen instance from First on. Its data is
	// not changed by anyone.
	Read(i paxos.Instance) (paxos.Entry, error)
	// First is the oldest instance that is kept.
	First() paxos.Instance
}
