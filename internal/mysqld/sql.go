package mysqld

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
)

const (
	// queryTimeout bounds statements that answer at once or not at all.
	queryTimeout = 5 * time.Second
	// dialTimeout bounds a connection to the Unix socket.
	dialTimeout = 2 * time.Second
	// idleConnections stay open, so that the agent is in when clients fill
	// the server.
	idleConnections = 3
	maxPool         = 8
)

// errWrongServer says that the server that answers is not configured as it
// must be.
var errWrongServer = errors.New("the server is not configured as it must be")

// openPool makes connections of the agent's account. The password is asked for each
// time: it may change.
func openPool(socket string, password func() string) (*sql.DB, error) {
	c := socketConfig(socket, AgentUser, "")
	err := c.Apply(mysql.BeforeConnect(func(_ context.Context, c *mysql.Config) error {
		c.Passwd = password()
		return nil
	}))
	if err != nil {
		return nil, fmt.Errorf("prepare connections to mysqld: %w", err)
	}
	connector, err := mysql.NewConnector(c)
	if err != nil {
		return nil, fmt.Errorf("prepare connections to mysqld: %w", err)
	}
	db := sql.OpenDB(connector)
	db.SetMaxIdleConns(idleConnections)
	db.SetMaxOpenConns(maxPool)
	return db, nil
}

func socketConfig(socket, user, password string) *mysql.Config {
	c := mysql.NewConfig()
	c.User, c.Passwd = user, password
	c.Net, c.Addr = "unix", socket
	c.Timeout = dialTimeout
	c.InterpolateParams = true
	c.Logger = noLog{} // the error is returned as well
	return c
}

type noLog struct{}

func (noLog) Print(...any) {}

// exec runs a statement that may take as long as ctx allows.
func (s *Server) exec(ctx context.Context, what, query string, args ...any) error {
	if _, err := s.db.ExecContext(ctx, query, args...); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// one reads one row of a statement that answers at once.
func (s *Server) one(ctx context.Context, what, query string, into ...any) error {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	if err := s.db.QueryRowContext(ctx, query).Scan(into...); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// verify asks a server that has just answered whether it is the one that was
// meant, as fenced as it must be.
func (s *Server) verify(ctx context.Context) error {
	var id uint64
	var readOnly, semiSync, wait, replicaUpdates int
	err := s.one(ctx, "ask mysqld", `SELECT @@GLOBAL.server_id, @@GLOBAL.super_read_only,
		@@GLOBAL.rpl_semi_sync_source_enabled, @@GLOBAL.rpl_semi_sync_source_wait_no_replica,
		@@GLOBAL.log_replica_updates`, &id, &readOnly, &semiSync, &wait, &replicaUpdates)
	var refused *mysql.MySQLError
	if errors.As(err, &refused) && (refused.Number == 1045 || refused.Number == 1193) {
		return fmt.Errorf("%w: %w", errWrongServer, err) // the account or a variable is missing
	}
	if err != nil {
		return err
	}
	if id != uint64(s.cfg.ServerID) || readOnly != 1 || semiSync != 1 || wait != 1 || replicaUpdates != 0 {
		return fmt.Errorf("start mysqld: server_id=%d super_read_only=%d semi_sync=%d wait_no_replica=%d log_replica_updates=%d: %w",
			id, readOnly, semiSync, wait, replicaUpdates, errWrongServer)
	}
	return nil
}

// Ping asks the server for a sign of life.
func (s *Server) Ping(ctx context.Context) error {
	var x int
	return s.one(ctx, "ping mysqld", "SELECT 1", &x)
}

// GTIDExecuted returns the set of transactions that the engine holds, in
// MySQL's text form without blanks.
func (s *Server) GTIDExecuted(ctx context.Context) (string, error) {
	var set string
	err := s.one(ctx, "read gtid_executed", "SELECT @@GLOBAL.gtid_executed", &set)
	return strings.Join(strings.Fields(set), ""), err
}

// ServerUUID returns the server's own UUID, under which it writes GTIDs.
func (s *Server) ServerUUID(ctx context.Context) (string, error) {
	var uuid string
	err := s.one(ctx, "read server_uuid", "SELECT @@GLOBAL.server_uuid", &uuid)
	return uuid, err
}

// Version returns what the running server says of its version.
func (s *Server) Version(ctx context.Context) (string, error) {
	var v string
	err := s.one(ctx, "read version", "SELECT @@GLOBAL.version", &v)
	return v, err
}

// SetReadOnly sets super_read_only. Setting it waits until no commit waits for
// an acknowledgement any more and holds new writers meanwhile; when ctx ends
// first, the server may still carry it out later.
func (s *Server) SetReadOnly(ctx context.Context, on bool) error {
	if on {
		return s.exec(ctx, "set super_read_only", "SET GLOBAL super_read_only = ON")
	}
	return s.exec(ctx, "clear super_read_only", "SET GLOBAL read_only = OFF")
}

// ReadOnly reports whether super_read_only is set and in force. While a
// SetReadOnly waits, the server shows super_read_only already, but not yet the
// read_only that goes with it.
func (s *Server) ReadOnly(ctx context.Context) (bool, error) {
	var on bool
	err := s.one(ctx, "read super_read_only", "SELECT @@GLOBAL.super_read_only AND @@GLOBAL.read_only", &on)
	return on, err
}

// Flush makes durable everything that the server had committed when it was
// called, GTIDs included, and returns the set that was executed before: after a
// power cut the engine holds at least that. It waits for the disk, not for
// acknowledgements.
func (s *Server) Flush(ctx context.Context) (executed string, err error) {
	if executed, err = s.GTIDExecuted(ctx); err != nil {
		return "", err
	}
	if err := s.exec(ctx, "flush the engine's log", "FLUSH LOCAL ENGINE LOGS"); err != nil {
		return "", err
	}
	return executed, nil
}

// SemiSync is how the server sees its semi-sync replica.
type SemiSync struct {
	Clients int64 // attached replicas
	Waiting int64 // sessions that wait for an acknowledgement
	Yes     int64 // commits that were acknowledged
	No      int64 // commits that were not: never anything but 0
}

// SemiSync reads the server's semi-sync counters.
func (s *Server) SemiSync(ctx context.Context) (SemiSync, error) {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	rows, err := s.db.QueryContext(ctx, "SHOW GLOBAL STATUS LIKE 'Rpl\\_semi\\_sync\\_source\\_%'")
	if err != nil {
		return SemiSync{}, fmt.Errorf("read semi-sync status: %w", err)
	}
	defer rows.Close() //nolint:errcheck // rows.Err says it
	var out SemiSync
	fields := map[string]*int64{
		"Rpl_semi_sync_source_clients":       &out.Clients,
		"Rpl_semi_sync_source_wait_sessions": &out.Waiting,
		"Rpl_semi_sync_source_yes_tx":        &out.Yes,
		"Rpl_semi_sync_source_no_tx":         &out.No,
	}
	for rows.Next() {
		var name, value string
		if err := rows.Scan(&name, &value); err != nil {
			return SemiSync{}, fmt.Errorf("read semi-sync status: %w", err)
		}
		if dst := fields[name]; dst != nil {
			if _, err := fmt.Sscan(value, dst); err != nil {
				return SemiSync{}, fmt.Errorf("read semi-sync status %s: %w", name, err)
			}
		}
	}
	return out, rows.Err()
}
