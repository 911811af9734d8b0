package agent

import (
	"context"
	"fmt"

	"github.com/phxsql/phxsql/internal/api"
	"github.com/phxsql/phxsql/paxos"
)

// LogDump calls f for chosen entries of the local log.
func (a *Agent) LogDump(ctx context.Context, from, to paxos.Instance, f func(api.LogEntry) error) error {
	first, chosen := a.group.First(), a.group.Chosen()
	if from == 0 {
		from = first
	}
	if from < first {
		return api.NotFound("trimmed", fmt.Sprintf("the log here begins at instance %d", first), "ask another member, or begin there")
	}
	if to == 0 || to > chosen {
		to = chosen
	}
	var d api.Describer
	for i := from; i <= to; i++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		e, err := a.group.Read(i)
		if err != nil {
			return fmt.Errorf("dump log: %w", err)
		}
		if err := f(d.Describe(e)); err != nil {
			return err
		}
	}
	return nil
}
