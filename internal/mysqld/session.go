package mysqld

import (
	"context"
	"database/sql"
	"fmt"
)

// Session opens a session of the agent's own. End closes it for good: its settings
// and what it has open never reach another user of the pool.
func (s *Server) Session(ctx context.Context) (session *sql.Conn, end func(), err error) {
	conn, err := s.db.Conn(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("open session: %w", err)
	}
	return conn, func() { discard(conn) }, nil
}
