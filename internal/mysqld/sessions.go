package mysqld

import (
	"context"
	"errors"
	"fmt"

	"github.com/go-sql-driver/mysql"
)

// errNoSuchThread is the server's answer to KILL for a session that has ended.
const errNoSuchThread = 1094

// InTransaction returns the connection ids of the sessions that have an open
// transaction in InnoDB. One that was begun but has touched nothing yet is not
// among them. The server's view may be 100 ms old.
func (s *Server) InTransaction(ctx context.Context) (map[uint64]bool, error) {
	ids, err := s.ids(ctx, "SELECT trx_mysql_thread_id FROM information_schema.innodb_trx WHERE trx_mysql_thread_id <> 0")
	if err != nil {
		return nil, fmt.Errorf("list open transactions: %w", err)
	}
	open := make(map[uint64]bool, len(ids))
	for _, id := range ids {
		open[id] = true
	}
	return open, nil
}

// KillClients ends every session but the agent's and the server's own, and
// returns how many there were. A session that waits in its commit goes on
// waiting, without a client.
func (s *Server) KillClients(ctx context.Context) (int, error) {
	ids, err := s.ids(ctx, "SELECT id FROM information_schema.processlist WHERE user NOT IN ('"+
		AgentUser+"', 'system user', 'event_scheduler')")
	if err != nil {
		return 0, fmt.Errorf("list sessions: %w", err)
	}
	for _, id := range ids {
		ctx, cancel := context.WithTimeout(ctx, queryTimeout)
		_, err := s.db.ExecContext(ctx, "KILL CONNECTION ?", id)
		cancel()
		var refused *mysql.MySQLError
		if err != nil && (!errors.As(err, &refused) || refused.Number != errNoSuchThread) {
			return 0, fmt.Errorf("kill session %d: %w", id, err)
		}
	}
	return len(ids), nil
}

// Committing counts the sessions that are in a commit on their way to the binary log.
// What waits there for its acknowledgement, or for a client's lock, is not among them.
func (s *Server) Committing(ctx context.Context) (int, error) {
	ids, err := s.ids(ctx, "SELECT id FROM information_schema.processlist WHERE state = 'waiting for handler commit'")
	if err != nil {
		return 0, fmt.Errorf("count commits: %w", err)
	}
	return len(ids), nil
}

func (s *Server) ids(ctx context.Context, query string) ([]uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	rows, err := s.db.QueryContext(ctx, query)
	if err != nil {
		return nil, err
	}
	defer rows.Close() //nolint:errcheck // rows.Err says it
	var ids []uint64
	for rows.Next() {
		var id uint64
		if err := rows.Scan(&id); err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, rows.Err()
}
