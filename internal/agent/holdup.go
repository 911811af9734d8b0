package agent

import (
	"context"
	"time"

	"github.com/phxsql/phxsql/internal/gtid"
)

// Replication and clients of the read-only port can wait for each other for ever: a LOCK
// TABLES holds what it has got while it waits for a table that a prepared XA transaction
// keeps locked, and the decision about that one waits for its turn behind a transaction that
// needs the former. MySQL sees no deadlock in that, and goes on waiting when the client has
// gone.
const (
	holdupLimit = 20 * time.Second // how long a client may wait for locks while replication does
	holdupLook  = 5 * time.Second  // the pause between two looks
)

// holdup is since when a replica has executed nothing.
type holdup struct {
	executed *gtid.Set
	since    time.Time
	looked   time.Time
}

// due reports whether it is time to look for what holds replication up. It is told what the
// server has executed by now.
func (h *holdup) due(executed *gtid.Set, now time.Time) bool {
	if h.executed == nil || !h.executed.Equal(executed) {
		h.executed, h.since = executed, now
		return false
	}
	if now.Sub(h.since) < holdupLimit || now.Sub(h.looked) < holdupLook {
		return false
	}
	h.looked = now
	return true
}

// endHoldup ends the sessions of clients that wait for locks while replication does, once
// that has lasted.
func (d *localServer) endHoldup(ctx context.Context, executed *gtid.Set) error {
	if !d.holdup.due(executed, time.Now()) {
		return nil
	}
	_, err := d.EndLockWaiters(ctx, holdupLimit)
	return err
}
