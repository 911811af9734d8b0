package mysqld

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

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
	return len(ids), s.killSessions(ctx, ids)
}

// waitsForLock is true of a thread that waits for a lock on tables, on definitions, or on
// everything, but not on rows.
const waitsForLock = "state LIKE 'Waiting for %lock'"

// EndLockWaiters ends the sessions of clients that have waited for such a lock for so long,
// if replication waits for one, too, and returns how many there were. They hold what they
// have got already, and the server does not notice that a client has gone while it waits.
// Who holds what it asked for, and waits for nothing, is left alone.
func (s *Server) EndLockWaiters(ctx context.Context, longer time.Duration) (int, error) {
	return s.endLockWaiters(ctx, longer, "system user")
}

// endLockWaiters is EndLockWaiters for what replicates under a given name.
func (s *Server) endLockWaiters(ctx context.Context, longer time.Duration, replication string) (int, error) {
	ids, err := s.ids(ctx, "SELECT id FROM information_schema.processlist WHERE user NOT IN ('"+
		AgentUser+"', 'system user', 'event_scheduler') AND "+waitsForLock+" AND time >= "+strconv.Itoa(int(longer.Seconds()))+
		" AND EXISTS (SELECT 1 FROM information_schema.processlist WHERE user = '"+replication+"' AND "+waitsForLock+")")
	if err != nil {
		return 0, fmt.Errorf("list sessions that wait for locks: %w", err)
	}
	if len(ids) > 0 {
		s.cfg.Logger.Warn("sessions ended: they and replication waited for each other's locks", "sessions", len(ids))
	}
	return len(ids), s.killSessions(ctx, ids)
}

// killSessions ends sessions; those that have ended already are no error.
func (s *Server) killSessions(ctx context.Context, ids []uint64) error {
	for _, id := range ids {
		ctx, cancel := context.WithTimeout(ctx, queryTimeout)
		_, err := s.db.ExecContext(ctx, "KILL CONNECTION ?", id)
		cancel()
		var refused *mysql.MySQLError
		if err != nil && (!errors.As(err, &refused) || refused.Number != errNoSuchThread) {
			return fmt.Errorf("kill session %d: %w", id, err)
		}
	}
	return nil
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
