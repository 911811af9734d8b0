package mysqld

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"

	"github.com/go-sql-driver/mysql"
)

// Scheduled events run on the master only. Two things see to that:
//
// The scheduler is off at every start and is switched on by EnableEvents and
// off by DisableEvents. That touches no event and writes nothing.
//
// The server itself stores every event that a replica receives under the status
// REPLICA_SIDE_DISABLED. EnableEvents turns it back by an ALTER EVENT that goes
// through the binary log: as each replica receives it, the event becomes
// REPLICA_SIDE_DISABLED there, and so it does on the old master when that comes
// back as a replica. No node is ever changed behind the log's back.
//
// A replica cannot tell a disabled event from an enabled one: both arrive as
// REPLICA_SIDE_DISABLED. The master therefore keeps the names of the disabled
// ones in a replicated table (RecordEvents). An event that was disabled in the
// last moment before a crash may come back enabled.

// metaSchema holds what the agent replicates with the data. It is made when
// there is something to keep.
const metaSchema = "phxsql_meta"

const (
	createMeta  = "CREATE DATABASE IF NOT EXISTS " + metaSchema
	createTable = "CREATE TABLE IF NOT EXISTS " + metaSchema + `.disabled_events (
		event_schema VARCHAR(64) COLLATE utf8mb4_bin NOT NULL, event_name VARCHAR(64) COLLATE utf8mb4_bin NOT NULL,
		PRIMARY KEY (event_schema, event_name)) ENGINE = InnoDB`
	selectMeta = "SELECT event_schema, event_name FROM " + metaSchema + ".disabled_events"
	insertMeta = "INSERT IGNORE INTO " + metaSchema + ".disabled_events VALUES (?, ?)"
	deleteMeta = "DELETE FROM " + metaSchema + ".disabled_events WHERE event_schema = ? AND event_name = ?"
)

// The server's answers that are expected here.
const (
	errNoSuchTable  = 1146
	errNoSuchSchema = 1049
)

// errEventPast are the refusals to alter an event whose time has passed.
var errEventPast = map[uint16]bool{1544: true, 1588: true, 1589: true}

// ErrReadOnly refuses what would write on a server that is not the master.
var ErrReadOnly = errors.New("mysqld is read-only")

type eventName struct{ schema, name string }

// event is what ALTER EVENT would change unless the session agrees with it.
type event struct {
	eventName
	definer, sqlMode, timeZone string
	client, collation, dbCol   string
}

// RecordEvents keeps the names of the disabled events in the replicated table,
// so that a promotion leaves them disabled. Call it on the writable master
// every second or so; it writes to the binary log only when something changed,
// and waits for the acknowledgement then.
func (s *Server) RecordEvents(ctx context.Context) error {
	now, err := s.eventNames(ctx, "SELECT event_schema, event_name FROM information_schema.events WHERE status = 'DISABLED'")
	if err != nil {
		return fmt.Errorf("list disabled events: %w", err)
	}
	kept, err := s.disabledEvents(ctx)
	if err != nil {
		return err
	}
	if len(now) > 0 && kept == nil {
		if err := errors.Join(s.exec(ctx, "make the table of disabled events", createMeta),
			s.exec(ctx, "make the table of disabled events", createTable)); err != nil {
			return err
		}
	}
	return errors.Join(s.recordEach(ctx, insertMeta, now, kept), s.recordEach(ctx, deleteMeta, kept, now))
}

// recordEach runs query for each name that is in the first set only.
func (s *Server) recordEach(ctx context.Context, query string, names, except map[eventName]bool) error {
	for n := range names {
		if except[n] {
			continue
		}
		if err := s.exec(ctx, "record a disabled event", query, n.schema, n.name); err != nil {
			return err
		}
	}
	return nil
}

// disabledEvents reads the replicated table; nil when there is none.
func (s *Server) disabledEvents(ctx context.Context) (map[eventName]bool, error) {
	names, err := s.eventNames(ctx, selectMeta)
	var refused *mysql.MySQLError
	if errors.As(err, &refused) && (refused.Number == errNoSuchTable || refused.Number == errNoSuchSchema) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the table of disabled events: %w", err)
	}
	return names, nil
}

func (s *Server) eventNames(ctx context.Context, query string) (map[eventName]bool, error) {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	rows, err := s.db.QueryContext(ctx, query)
	if err != nil {
		return nil, err
	}
	defer rows.Close() //nolint:errcheck // rows.Err says it
	names := map[eventName]bool{}
	for rows.Next() {
		var n eventName
		if err := rows.Scan(&n.schema, &n.name); err != nil {
			return nil, err
		}
		names[n] = true
	}
	return names, rows.Err()
}

// EnableEvents lets scheduled events run on this server, which must be the
// writable master with its tail attached: for each event that came by
// replication one statement is written to the binary log, and waits for its
// acknowledgement. It may be called again. An event whose time has passed stays
// as it is. Where the configuration switches the scheduler off, it stays off.
func (s *Server) EnableEvents(ctx context.Context) error {
	readOnly, err := s.someReadOnly(ctx)
	if err != nil {
		return err
	}
	if readOnly {
		return fmt.Errorf("enable events: %w", ErrReadOnly)
	}
	events, err := s.replicatedEvents(ctx)
	if err != nil {
		return err
	}
	if err := s.alterEvents(ctx, events); err != nil {
		return err
	}
	if !s.cfg.schedulerWanted() {
		return nil
	}
	return s.exec(ctx, "start the event scheduler", "SET GLOBAL event_scheduler = ON")
}

// DisableEvents keeps further events from starting. One that runs goes on until
// super_read_only or a KILL stops it.
func (s *Server) DisableEvents(ctx context.Context) error {
	return s.exec(ctx, "stop the event scheduler", "SET GLOBAL event_scheduler = OFF")
}

// schedulerWanted reports whether the user lets the scheduler run on a master,
// as it does by MySQL's default.
func (c Config) schedulerWanted() bool {
	for name, v := range c.Options {
		if canonical(name) != "event_scheduler" {
			continue
		}
		switch strings.ToUpper(v) {
		case "OFF", "0", "DISABLED", "FALSE":
			return false
		}
	}
	return true
}

// replicatedEvents lists the events that wait for a decision.
func (s *Server) replicatedEvents(ctx context.Context) ([]event, error) {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	rows, err := s.db.QueryContext(ctx, `SELECT event_schema, event_name, definer, sql_mode, time_zone,
		character_set_client, collation_connection, database_collation
		FROM information_schema.events WHERE status IN ('REPLICA_SIDE_DISABLED', 'SLAVESIDE_DISABLED')`)
	if err != nil {
		return nil, fmt.Errorf("list events: %w", err)
	}
	defer rows.Close() //nolint:errcheck // rows.Err says it
	var events []event
	for rows.Next() {
		var e event
		if err := rows.Scan(&e.schema, &e.name, &e.definer, &e.sqlMode, &e.timeZone, &e.client, &e.collation, &e.dbCol); err != nil {
			return nil, fmt.Errorf("list events: %w", err)
		}
		events = append(events, e)
	}
	return events, rows.Err()
}

// alterEvents uses a session of its own, which is thrown away: its settings are
// those of the last event.
func (s *Server) alterEvents(ctx context.Context, events []event) error {
	if len(events) == 0 {
		return nil
	}
	disabled, err := s.disabledEvents(ctx)
	if err != nil {
		return err
	}
	conn, err := s.db.Conn(ctx)
	if err != nil {
		return fmt.Errorf("enable events: %w", err)
	}
	defer discard(conn)
	for _, e := range events {
		if err := e.alter(ctx, conn, !disabled[e.eventName]); err != nil {
			return fmt.Errorf("enable event %s.%s: %w", e.schema, e.name, err)
		}
	}
	return nil
}

// discard closes a session instead of giving it back to the pool.
func discard(conn *sql.Conn) {
	_ = conn.Raw(func(any) error { return driver.ErrBadConn })
	_ = conn.Close()
}

// alter changes nothing but the status: ALTER EVENT would otherwise take the
// definer, SQL mode and time zone of the session.
func (e event) alter(ctx context.Context, conn *sql.Conn, enable bool) error {
	_, err := conn.ExecContext(ctx, `SET SESSION sql_mode = ?, time_zone = ?, character_set_client = ?,
		collation_connection = ?, collation_database = ?`, e.sqlMode, e.timeZone, e.client, e.collation, e.dbCol)
	if err != nil {
		return err
	}
	user, host := e.definer, ""
	if i := strings.LastIndexByte(e.definer, '@'); i >= 0 {
		user, host = e.definer[:i], e.definer[i+1:]
	}
	status := " DISABLE"
	if enable {
		status = " ENABLE"
	}
	_, err = conn.ExecContext(ctx, "ALTER DEFINER = "+ident(user)+"@"+ident(host)+
		" EVENT "+ident(e.schema)+"."+ident(e.name)+status)
	var refused *mysql.MySQLError
	if errors.As(err, &refused) && errEventPast[refused.Number] {
		return nil
	}
	return err
}

func ident(name string) string { return "`" + strings.ReplaceAll(name, "`", "``") + "`" }
