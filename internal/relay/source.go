package relay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/phxsql/phxsql/internal/gtid"
	"github.com/phxsql/phxsql/paxos"
)

// maxReplicas limits connections to a Source. There is one replica; a few more
// connections are its own dying ones. What is above is closed at once.
const maxReplicas = 16

// judgeTimeout is how long a replica with transactions that are not known to be
// chosen waits for the log to catch up. At the limit its connection is closed
// and it comes again.
const judgeTimeout = 30 * time.Second

// DivergenceError says that a replica holds transactions that the log does not
// have: it must be rebuilt.
type DivergenceError struct {
	Extra *gtid.Set
}

func (e *DivergenceError) Error() string {
	return fmt.Sprintf("replica holds transactions that were never chosen: %s; rebuild it from another member", clipSet(e.Extra))
}

// SourceOptions says how a Source presents itself.
type SourceOptions struct {
	User, Password string // the one account that may replicate; see also SetPassword

	// ServerID and ServerUUID are those of the cluster's log: the same
	// whoever serves it, and not those of any server.
	ServerID   uint32
	ServerUUID gtid.UUID
	// ServerVersion is what the source says of itself, such as the local
	// server's @@version.
	ServerVersion string

	// CaughtUp returns the instance that the journal must have followed before
	// a replica can be judged to hold what was never chosen, and false
	// when that is not known yet.
	CaughtUp func() (paxos.Instance, bool)
	// OnRefuse, if set, is called when a replica is refused for good: with a
	// *DivergenceError or a *TrimmedError. It must not block.
	OnRefuse func(error)

	// HoldForAudit, if set, is called with the text of each audit notice when the
	// replica has been sent everything before it and nothing behind. Nothing is sent
	// before it returns, which must be within seconds.
	HoldForAudit func(ctx context.Context, text []byte)

	Logger *slog.Logger
}

// SourceStats is what a Source has done so far.
type SourceStats struct {
	Replicas     int    // dumps that run now
	Dumps        uint64 // dumps that began
	Transactions uint64
	Bytes        uint64 // of events
	Through      paxos.Instance
}

// Source is a MySQL source whose binlog is the chosen log.
type Source struct {
	log     Log
	journal *Journal
	o       SourceOptions
	logger  *slog.Logger

	mu        sync.Mutex
	passwords []string // that are taken, the newest first; at most two

	ids      atomic.Uint32
	replicas atomic.Int64
	dumps    atomic.Uint64
	txns     atomic.Uint64
	bytes    atomic.Uint64
	through  atomic.Uint64
}

// NewSource returns a source of the journal's log.
func NewSource(log Log, journal *Journal, o SourceOptions) *Source {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Source{log: log, journal: journal, o: o, logger: o.Logger, passwords: []string{o.Password}}
}

// SetPassword has the source take another password too, and the present one until
// ForgetOld. A replica that is connected stays.
func (s *Source) SetPassword(password string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.passwords[0] != password {
		s.passwords = []string{password, s.passwords[0]}
	}
}

// ForgetOld has the source take only the newest password.
func (s *Source) ForgetOld() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.passwords = s.passwords[:1]
}

func (s *Source) accepted() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.passwords)
}

// Stats returns what the source has done so far. Through is the newest instance
// that the newest dump has sent.
func (s *Source) Stats() SourceStats {
	return SourceStats{
		Replicas: int(s.replicas.Load()), Dumps: s.dumps.Load(), Transactions: s.txns.Load(), Bytes: s.bytes.Load(),
		Through: paxos.Instance(s.through.Load()),
	}
}

// Serve answers replicas on the listener until the context ends, and closes it.
// All connections have ended when it returns.
func (s *Source) Serve(ctx context.Context, ln net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = ln.Close() })
	defer stop()
	var conns sync.WaitGroup
	defer conns.Wait()
	slots := make(chan struct{}, maxReplicas)
	for {
		conn, err := ln.Accept()
		if err != nil {
			cancel()
			if ctx.Err() != nil && errors.Is(err, net.ErrClosed) {
				return fmt.Errorf("serve replicas: %w", context.Cause(ctx))
			}
			return fmt.Errorf("serve replicas: %w", err)
		}
		select {
		case slots <- struct{}{}:
		default:
			s.logger.Warn("replica_refused", "reason", "too many connections", "limit", maxReplicas)
			_ = conn.Close()
			continue
		}
		conns.Go(func() {
			defer func() { <-slots }()
			s.serveConn(ctx, conn)
		})
	}
}

func (s *Source) serveConn(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	w := newWire(conn, 4096)
	_ = conn.SetDeadline(time.Now().Add(loginTimeout))
	if err := w.accept(s.o.ServerVersion, s.o.User, s.accepted(), s.ids.Add(1)); err != nil {
		s.logger.Warn("replica_refused", "error", err)
		return
	}
	_ = conn.SetDeadline(time.Time{})
	if err := s.commands(ctx, w); err != nil && ctx.Err() == nil {
		s.logger.Info("replica_left", "error", err)
	}
}

// commands answers a replica until it leaves; the dump is its last command.
func (s *Source) commands(ctx context.Context, w *wire) error {
	var period time.Duration
	for {
		w.seq = 0
		b, err := w.read()
		if err != nil {
			return err
		}
		if len(b) == 0 {
			return fmt.Errorf("empty command: %w", errProtocol)
		}
		switch b[0] {
		case comQuit:
			return nil
		case comPing, comRegisterReplica:
			err = w.ok()
		case comQuery:
			if p, ok := parseHeartbeatPeriod(string(b[1:])); ok {
				period = p
			}
			err = s.query(w, string(b[1:]))
		case comBinlogDump:
			err = w.fail(1236, "HY000", "this source has no files: set SOURCE_AUTO_POSITION = 1")
		case comBinlogDumpGTID:
			r, err := parseDumpRequest(b)
			if err != nil {
				return err
			}
			return s.dump(ctx, w, r, period)
		default:
			err = w.fail(1047, "08S01", fmt.Sprintf("command %d is not for a replica", b[0]))
		}
		if err != nil {
			return err
		}
	}
}

// query answers the questions that a replica asks before it begins.
func (s *Source) query(w *wire, sql string) error {
	text := strings.ToLower(strings.TrimSpace(sql))
	switch {
	case strings.HasPrefix(text, "set "):
		return w.ok()
	case !strings.HasPrefix(text, "select "):
	case strings.Contains(text, "unix_timestamp()"):
		return w.answer("UNIX_TIMESTAMP()", strconv.FormatInt(time.Now().Unix(), 10))
	case strings.Contains(text, "@@global.server_id"):
		return w.answer("@@GLOBAL.SERVER_ID", strconv.FormatUint(uint64(s.o.ServerID), 10))
	case strings.Contains(text, "@@global.server_uuid"):
		return w.answer("@@GLOBAL.SERVER_UUID", s.o.ServerUUID.String())
	case strings.Contains(text, "@@global.gtid_mode"):
		return w.answer("@@GLOBAL.GTID_MODE", "ON")
	case strings.Contains(text, "_binlog_checksum"):
		return w.answer("@source_binlog_checksum", "CRC32")
	}
	s.logger.Warn("replica_query_unknown", "query", clipText(sql))
	return w.fail(1193, "HY000", "this source answers replicas only and does not know: "+clipText(sql))
}

// parseHeartbeatPeriod finds "heartbeat_period = NANOSECONDS" in a SET.
func parseHeartbeatPeriod(sql string) (time.Duration, bool) {
	_, rest, ok := strings.Cut(strings.ToLower(sql), "heartbeat_period")
	if !ok {
		return 0, false
	}
	rest = strings.TrimLeft(rest, " =")
	end := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
	if end < 0 {
		end = len(rest)
	}
	n, err := strconv.ParseInt(rest[:end], 10, 64)
	if err != nil {
		return 0, false
	}
	return time.Duration(n), true
}

// judge returns nil when everything that the replica holds is chosen. What is
// not known to be chosen may only be judged when the journal is current.
func (s *Source) judge(ctx context.Context, set *gtid.Set) error {
	ctx, cancel := context.WithTimeout(ctx, judgeTimeout)
	defer cancel()
	for {
		if err := s.journal.advance(ctx); err != nil {
			return err
		}
		through := s.journal.Through()
		if s.journal.Contains(set) {
			return nil
		}
		if need, known := s.o.CaughtUp(); known && through >= need {
			extra := set.Clone()
			extra.Subtract(s.journal.Executed())
			if extra.Empty() {
				return nil
			}
			return &DivergenceError{Extra: extra}
		}
		timer := time.NewTimer(200 * time.Millisecond) // CaughtUp may change alone
		select {
		case <-s.journal.moved(through):
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("judge replica: the log has not caught up: %w", ctx.Err())
		}
		timer.Stop()
	}
}
