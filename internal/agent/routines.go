package agent

import (
	"context"
	"errors"
	"fmt"

	"github.com/phxsql/phxsql/internal/gtid"
	"github.com/phxsql/phxsql/internal/mysqld"
	"github.com/phxsql/phxsql/internal/relay"
)

// droppedRoutines finds in the log which routines a server has dropped; see
// relay.Journal.Dropped.
type droppedRoutines func(ctx context.Context, executed *gtid.Set) ([]relay.Routine, error)

// endDropped carries out what an earlier life of the server, or of the one that its data
// are a copy of, has left undone of DROP PROCEDURE, DROP FUNCTION and DROP LIBRARY: see
// relay.Routine. It is done once in each life, while no replication runs and before clients
// write: what is made by them would be taken for a remainder. Role is held.
func (d *localServer) endDropped(ctx context.Context) error {
	if d.ended.Load() || d.dropped == nil {
		return nil
	}
	left, err := d.UngroundedGrants(ctx)
	if err != nil {
		return err
	}
	if len(left) > 0 {
		if err := d.endThose(ctx); err != nil {
			return fmt.Errorf("end the drop of routines: %w", err)
		}
	}
	d.ended.Store(true)
	return nil
}

func (d *localServer) endThose(ctx context.Context) error {
	executed, err := d.executed(ctx)
	if err != nil {
		return err
	}
	found, err := d.dropped(ctx, executed)
	if err != nil {
		return err
	}
	list := make([]mysqld.Routine, len(found))
	for i, r := range found {
		list[i] = mysqld.Routine(r)
	}
	return d.EndDropped(ctx, list)
}

// endDroppedLater does what StartReplica has put off, once the log knows of all that the
// server holds. Replication stands still for that moment. Role is not held.
func (d *localServer) endDroppedLater(ctx context.Context) error {
	if d.ended.Load() || d.dropped == nil || !d.role.TryLock() { // who changes the role does it
		return nil
	}
	defer d.role.Unlock()
	executed, err := d.executed(ctx)
	if err != nil {
		return err
	}
	switch _, err := d.dropped(ctx, executed); {
	case errors.Is(err, relay.ErrLogShort):
		return nil
	case err != nil:
		return err
	}
	d.renewal.Lock()
	defer d.renewal.Unlock()
	return d.WithoutApplier(ctx, d.endDropped)
}
