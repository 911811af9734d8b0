package mysqld

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"time"
)

const (
	// heartbeatSeconds is how often the source is asked to say that it lives.
	heartbeatSeconds = 2
	// retryCount times one second is longer than any outage.
	retryCount = 1_000_000_000
	// waitStep bounds one statement of WaitForExecuted, so that a caller who
	// gave up leaves no session behind for longer.
	waitStep = 2 * time.Second
)

// Source is where a server replicates from.
type Source struct {
	Host     string
	Port     int
	User     string
	Password string
}

// StartReplica makes the server a replica of the source, by GTID, and starts
// both of its threads. Replication that was configured before is replaced.
//
// GTID_ONLY saves an update of the position tables in each transaction, a third of an
// applier's work: the GTID set tells where to go on. It demands REQUIRE_ROW_FORMAT;
// no client account may change the binlog format.
func (s *Server) StartReplica(ctx context.Context, src Source) error {
	if err := s.StopReplica(ctx, true); err != nil {
		return err
	}
	err := s.exec(ctx, "configure replication", `CHANGE REPLICATION SOURCE TO
		SOURCE_HOST = ?, SOURCE_PORT = ?, SOURCE_USER = ?, SOURCE_PASSWORD = ?,
		SOURCE_AUTO_POSITION = 1, REQUIRE_ROW_FORMAT = 1, GTID_ONLY = 1, GET_SOURCE_PUBLIC_KEY = 1, SOURCE_SSL = 0,
		SOURCE_HEARTBEAT_PERIOD = ?, SOURCE_CONNECT_RETRY = 1, SOURCE_RETRY_COUNT = ?`,
		src.Host, src.Port, src.User, src.Password, heartbeatSeconds, retryCount)
	if err != nil {
		return err
	}
	return s.exec(ctx, "start replication", "START REPLICA")
}

// SetSourcePassword has a replica use another password for its source from now on. Its
// receiver is stopped for a moment and connects anew, the applier goes on. A server that
// is no replica needs nothing. However it ends, the receiver runs again if it ran.
func (s *Server) SetSourcePassword(ctx context.Context, password string) (err error) {
	st, err := s.ReplicaStatus(ctx)
	if err != nil || !st.Configured {
		return err
	}
	if st.IOState != "No" {
		if err := s.exec(ctx, "stop the receiver", "STOP REPLICA IO_THREAD"); err != nil {
			return err
		}
		defer func() {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), gapLimit)
			defer cancel()
			err = errors.Join(err, s.exec(ctx, "start the receiver", "START REPLICA IO_THREAD"))
		}()
	}
	return s.exec(ctx, "set the source's password", "CHANGE REPLICATION SOURCE TO SOURCE_PASSWORD = ?", password)
}

// WithoutApplier calls f while the applier stands still between two transactions.
func (s *Server) WithoutApplier(ctx context.Context, f func(context.Context) error) (err error) {
	if err := s.exec(ctx, "stop the applier", "STOP REPLICA SQL_THREAD"); err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), gapLimit)
		defer cancel()
		err = errors.Join(err, s.exec(ctx, "start the applier", "START REPLICA SQL_THREAD"))
	}()
	return f(ctx)
}

// StopReplica stops replication; the applier finishes the transactions that it
// is in. Reset forgets the source and the relay logs too.
func (s *Server) StopReplica(ctx context.Context, reset bool) error {
	if err := s.exec(ctx, "stop replication", "STOP REPLICA"); err != nil {
		return err
	}
	if !reset {
		return nil
	}
	return s.exec(ctx, "reset replication", "RESET REPLICA ALL")
}

// ReplicaStatus is the state of replication.
type ReplicaStatus struct {
	Configured bool
	IO, SQL    bool   // whether the two threads run
	IOState    string // "Yes", "No" or "Connecting"
	IOErrno    int
	IOError    string
	SQLErrno   int
	SQLError   string
	// Lag is how far the applier is behind, as the server tells; negative
	// when it does not know.
	Lag       time.Duration
	Retrieved string // GTID set received since the last start
}

// Err describes why replication has stopped; nil while it runs or is only
// waiting for its source.
func (r ReplicaStatus) Err() error {
	switch {
	case !r.Configured, r.IO && r.SQL:
		return nil
	case !r.SQL && r.SQLErrno != 0:
		return fmt.Errorf("apply: error %d: %s", r.SQLErrno, r.SQLError)
	case r.IOState == "No" && r.IOErrno != 0:
		return fmt.Errorf("receive: error %d: %s", r.IOErrno, r.IOError)
	case r.IOState == "Connecting" && r.SQL:
		return nil
	}
	return errors.New("replication is stopped")
}

// ReplicaStatus reads the state of replication.
func (s *Server) ReplicaStatus(ctx context.Context) (ReplicaStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	row, err := s.namedRow(ctx, "SHOW REPLICA STATUS")
	if err != nil || row == nil {
		return ReplicaStatus{Lag: -1}, err
	}
	st := ReplicaStatus{
		Configured: true,
		IOState:    row["Replica_IO_Running"],
		IO:         row["Replica_IO_Running"] == "Yes",
		SQL:        row["Replica_SQL_Running"] == "Yes",
		IOError:    row["Last_IO_Error"],
		SQLError:   row["Last_SQL_Error"],
		Retrieved:  row["Retrieved_Gtid_Set"],
		Lag:        -1,
	}
	st.IOErrno, _ = strconv.Atoi(row["Last_IO_Errno"])   // 0 when the server says nothing
	st.SQLErrno, _ = strconv.Atoi(row["Last_SQL_Errno"]) // the same
	if n, err := strconv.Atoi(row["Seconds_Behind_Source"]); err == nil {
		st.Lag = time.Duration(n) * time.Second
	}
	if st.SQLErrno != 0 {
		// The status only points at the worker, which knows the statement. The
		// table is filled without performance_schema, too.
		row, err := s.namedRow(ctx, `SELECT LAST_ERROR_MESSAGE FROM performance_schema.replication_applier_status_by_worker
			WHERE LAST_ERROR_NUMBER <> 0 ORDER BY LAST_ERROR_TIMESTAMP LIMIT 1`)
		if err == nil && row["LAST_ERROR_MESSAGE"] != "" {
			st.SQLError = row["LAST_ERROR_MESSAGE"]
		}
	}
	return st, nil
}

// namedRow reads the first row by column name; nil when there is none.
func (s *Server) namedRow(ctx context.Context, query string) (map[string]string, error) {
	rows, err := s.db.QueryContext(ctx, query)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", query, err)
	}
	defer rows.Close() //nolint:errcheck // rows.Err says it
	if !rows.Next() {
		return nil, rows.Err()
	}
	names, err := rows.Columns()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", query, err)
	}
	values := make([]sql.NullString, len(names))
	into := make([]any, len(names))
	for i := range values {
		into[i] = &values[i]
	}
	if err := rows.Scan(into...); err != nil {
		return nil, fmt.Errorf("%s: %w", query, err)
	}
	row := make(map[string]string, len(names))
	for i, name := range names {
		row[name] = values[i].String
	}
	return row, nil
}

// WaitForExecuted returns when the server has executed every transaction of
// the set, or with ctx's error. Replication waits for the locks of clients, which
// may hold them for ever: when nothing at all was executed for a while, the
// sessions of all clients are ended.
func (s *Server) WaitForExecuted(ctx context.Context, set string) error {
	before := "none" // not a set
	for {
		now, err := s.GTIDExecuted(ctx)
		if err != nil {
			return err
		}
		if now == before {
			ended, err := s.KillClients(ctx)
			if err != nil {
				return err
			}
			s.cfg.Logger.Warn("sessions ended: replication was held up", "sessions", ended)
		}
		before = now
		var late int
		row := s.db.QueryRowContext(ctx, "SELECT WAIT_FOR_EXECUTED_GTID_SET(?, ?)", set, waitStep.Seconds())
		if err := row.Scan(&late); err != nil {
			return fmt.Errorf("wait until the server has executed a GTID set: %w", err)
		}
		if late == 0 {
			return nil
		}
	}
}
