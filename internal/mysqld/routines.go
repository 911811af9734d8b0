package mysqld

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
)

// Routine names a stored procedure or function, or a library of code for them.
type Routine struct {
	Type, Schema, Name string // PROCEDURE, FUNCTION or LIBRARY
}

func (r Routine) String() string { return strings.ToLower(r.Type) + " " + r.Schema + "." + r.Name }

// same reports whether two names are of one routine, for all that capital letters say.
func (r Routine) same(o Routine) bool {
	return r.Type == o.Type && r.Schema == o.Schema && strings.EqualFold(r.Name, o.Name)
}

// UngroundedGrants lists the routines that do not exist and on which accounts are
// granted something. DROP DATABASE leaves such grants on all members, by right. There are
// none where the server is told not to change grants with routines.
func (s *Server) UngroundedGrants(ctx context.Context) ([]Routine, error) {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	libraries := "p.routine_type = 'LIBRARY'" // nothing is granted on any
	if known, err := s.hasLibraries(ctx); err != nil {
		return nil, err
	} else if known {
		libraries = `EXISTS (SELECT 1 FROM information_schema.libraries l WHERE p.routine_type = 'LIBRARY'
			AND l.library_schema = p.db AND l.library_name = p.routine_name)`
	}
	rows, err := s.db.QueryContext(ctx, `SELECT DISTINCT p.routine_type, p.db, p.routine_name COLLATE utf8mb3_bin FROM mysql.procs_priv p
		WHERE @@GLOBAL.automatic_sp_privileges AND NOT `+libraries+` AND NOT EXISTS (
			SELECT 1 FROM information_schema.routines r WHERE r.routine_schema = p.db
			AND r.routine_type = p.routine_type AND r.routine_name = p.routine_name)`)
	if err != nil {
		return nil, fmt.Errorf("list grants on routines: %w", err)
	}
	defer rows.Close() //nolint:errcheck // rows.Err says it
	var list []Routine
	for rows.Next() {
		var r Routine
		if err := rows.Scan(&r.Type, &r.Schema, &r.Name); err != nil {
			return nil, fmt.Errorf("list grants on routines: %w", err)
		}
		list = append(list, r)
	}
	return list, rows.Err()
}

// hasLibraries reports whether the server's version knows libraries.
func (s *Server) hasLibraries(ctx context.Context) (bool, error) {
	var n int
	err := s.one(ctx, "look for libraries", `SELECT COUNT(*) FROM information_schema.tables
		WHERE table_schema = 'information_schema' AND table_name = 'LIBRARIES'`, &n)
	return n > 0, err
}

// EndDropped carries out what a server that was ended has left undone of a DROP
// PROCEDURE, DROP FUNCTION or DROP LIBRARY: it removes what is granted on those of the dropped
// routines that do not exist. Nothing of it enters the binary log. The server must run,
// without replication and clients.
func (s *Server) EndDropped(ctx context.Context, dropped []Routine) error {
	s.work.Lock()
	defer s.work.Unlock()
	if s.PID() == 0 {
		return ErrNotRunning
	}
	left, err := s.UngroundedGrants(ctx)
	if err != nil {
		return err
	}
	left = slices.DeleteFunc(left, func(r Routine) bool { return !slices.ContainsFunc(dropped, r.same) })
	if len(left) == 0 {
		return nil
	}
	err = s.unlogged(ctx, func(conn *sql.Conn) error {
		for _, r := range left {
			if err := run(ctx, conn, "remove grants on a dropped routine", `DELETE FROM mysql.procs_priv
				WHERE db = ? AND routine_type = ? AND routine_name COLLATE utf8mb3_bin = ?`, r.Schema, r.Type, r.Name); err != nil {
				return err
			}
		}
		return run(ctx, conn, "read grants again", "FLUSH NO_WRITE_TO_BINLOG PRIVILEGES")
	})
	if err != nil {
		return fmt.Errorf("end the drop of routines: %w", err)
	}
	s.cfg.Logger.Warn("grants on dropped routines removed", "routines", fmt.Sprint(left))
	return nil
}
