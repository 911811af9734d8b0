package mysqld

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/phxsql/phxsql/internal/binlog"
	"github.com/phxsql/phxsql/internal/gtid"
)

// An XA transaction that the applier of a replica has prepared is not the server's
// own: no binary log of the server says that it is prepared. The next start rolls it
// back; the source sends it again then. And when the server has become the master,
// an XA COMMIT of it is executed but not written to the binary log: the client is
// told that it is done, and no other node hears of it.
//
// So before a replica becomes a master it is started once more, with a binary log
// that says what is prepared. It costs a second or two, and is done only when
// something is.

// Prepared lists the XA transactions that wait for a decision.
func (s *Server) Prepared(ctx context.Context) ([]binlog.XAID, error) {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	rows, err := s.db.QueryContext(ctx, "XA RECOVER CONVERT XID")
	if err != nil {
		return nil, fmt.Errorf("list prepared transactions: %w", err)
	}
	defer rows.Close() //nolint:errcheck // rows.Err says it
	var list []binlog.XAID
	for rows.Next() {
		var format int64
		var global, branch int
		var text string
		if err := rows.Scan(&format, &global, &branch, &text); err != nil {
			return nil, fmt.Errorf("list prepared transactions: %w", err)
		}
		data, err := hex.DecodeString(strings.TrimPrefix(text, "0x"))
		if err != nil || global < 0 || branch < 0 || global+branch != len(data) {
			return nil, fmt.Errorf("list prepared transactions: %q of %d and %d bytes cannot be read", text, global, branch)
		}
		list = append(list, binlog.XAID{Format: int32(format), Global: string(data[:global]), Branch: string(data[global:])})
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("list prepared transactions: %w", err)
	}
	return list, nil
}

// errNotQuiet refuses to restart a server in which something may be written.
var errNotQuiet = errors.New("the server is writable or replicates")

// OwnPrepared makes the XA transactions that are prepared in a read-only server
// whose replication is stopped the server's own, by starting it once more. When
// there are none it does nothing. After an error the server may have ended.
func (s *Server) OwnPrepared(ctx context.Context) (restarted bool, err error) {
	list, err := s.Prepared(ctx)
	if err != nil || len(list) == 0 {
		return false, err
	}
	file, err := s.preparedFile(ctx, list)
	if err != nil {
		return false, fmt.Errorf("own prepared transactions: %w", err)
	}
	s.work.Lock()
	defer s.work.Unlock()
	s.cfg.Logger.Info("mysqld is restarted to own what is prepared", "transactions", len(list))
	if err := s.Kill(); err != nil {
		return true, fmt.Errorf("own prepared transactions: %w", err)
	}
	err = s.beforeStart(ctx)
	if err == nil {
		err = replaceBinlog(s.cfg.path(dataName), file)
	}
	if err == nil {
		err = s.run(ctx)
	}
	if err != nil {
		return true, fmt.Errorf("own prepared transactions: %w", err)
	}
	return true, s.stillPrepared(ctx, list)
}

// preparedFile builds the binary log, after a look at whether the server is quiet:
// what is written after the look would be lost.
func (s *Server) preparedFile(ctx context.Context, list []binlog.XAID) ([]byte, error) {
	quiet, err := s.ReadOnly(ctx)
	if err != nil {
		return nil, err
	}
	st, err := s.ReplicaStatus(ctx)
	if err != nil {
		return nil, err
	}
	if !quiet || st.IO || st.SQL {
		return nil, errNotQuiet
	}
	text, err := s.GTIDExecuted(ctx)
	if err != nil {
		return nil, err
	}
	executed, err := gtid.ParseSet(text)
	if err != nil {
		return nil, err
	}
	return binlog.PreparedFile(s.cfg.Install.Version.Release(), s.cfg.ServerID, time.Now(), executed, list)
}

// stillPrepared checks that nothing that was prepared is missing. A server that has
// lost something is ended: its next start is an ordinary one.
func (s *Server) stillPrepared(ctx context.Context, want []binlog.XAID) error {
	have, err := s.Prepared(ctx)
	if err != nil {
		return err
	}
	for _, x := range want {
		if !slices.Contains(have, x) {
			return errors.Join(fmt.Errorf("own prepared transactions: %v is gone after the start", x), s.Kill())
		}
	}
	return nil
}
