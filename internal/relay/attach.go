package relay

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/phxsql/phxsql/internal/gtid"
	"github.com/phxsql/phxsql/internal/semisync"
)

// loginTimeout bounds everything before the dump. A server that takes longer
// counts as unreachable.
const loginTimeout = 10 * time.Second

// heartbeatPeriod is how often an idle server shows that it lives, in
// nanoseconds. Nothing depends on it: a Unix socket does not break silently.
const heartbeatPeriod = 10_000_000_000

// attach runs one connection to its end. It reports whether the connection
// reached the dump.
func (t *Tail) attach(ctx context.Context) (connected bool, err error) {
	dialer := net.Dialer{Timeout: loginTimeout}
	conn, err := dialer.DialContext(ctx, "unix", t.o.Socket)
	if err != nil {
		return false, fmt.Errorf("connect to server: %w", err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()

	w := newWire(conn, tailBuffer)
	_ = conn.SetDeadline(time.Now().Add(loginTimeout))
	if err := t.sameServer(conn.(*net.UnixConn)); err != nil {
		return false, err
	}
	if err := w.login(t.o.User, t.o.Password); err != nil {
		return false, err
	}
	executed, err := t.inspect(w)
	if err != nil {
		return false, err
	}
	if err := t.requestDump(w, executed); err != nil {
		return false, err
	}
	_ = conn.SetDeadline(time.Time{})
	return t.follow(ctx, w)
}

// follow reads events and sends acknowledgements until either fails.
func (t *Tail) follow(ctx context.Context, w *wire) (attached bool, err error) {
	s := newStream(t, w.br)
	if err := s.first(); err != nil {
		return false, err
	}
	t.attached()
	t.logger.Info("tail_attached", "socket", t.o.Socket, "epoch", t.o.Epoch)
	group, ctx := errgroup.WithContext(ctx)
	stop := context.AfterFunc(ctx, func() { _ = w.conn.Close() })
	defer stop()
	group.Go(s.run)
	group.Go(func() error {
		var out []byte
		return t.acknowledge(ctx, func(p semisync.Position) error {
			out = semisync.AppendAck(append(out[:0], 0, 0, 0, 0), p)
			n := len(out) - frameHeader
			out[0], out[1] = byte(n), byte(n>>8)
			if _, err := w.conn.Write(out); err != nil {
				return fmt.Errorf("acknowledge %v: %w", p, err)
			}
			return nil
		})
	})
	return true, group.Wait()
}

// sameServer makes sure that the process behind the socket is the one that this
// Tail began with. Another process has another binlog: it may use a GTID again
// for another transaction, and remembered positions mean nothing to it.
func (t *Tail) sameServer(conn *net.UnixConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return fmt.Errorf("ask for the server's process: %w", err)
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return fmt.Errorf("ask for the server's process: %w", err)
	}
	if credErr != nil {
		return fmt.Errorf("ask for the server's process: %w", credErr)
	}
	if t.pid != 0 && t.pid != cred.Pid {
		return fmt.Errorf("process %d listens instead of %d: %w", cred.Pid, t.pid, ErrServerGone)
	}
	t.pid = cred.Pid
	return nil
}

// settings are what a master must be set to, with the reason for the operator.
var settings = []struct{ variable, want, hint string }{
	{"gtid_mode", "ON", "every transaction needs a GTID"},
	{"binlog_checksum", "CRC32", "events are stored and served with their checksums"},
	{"rpl_semi_sync_source_enabled", "1", "commits would not wait for the log"},
	{"rpl_semi_sync_source_wait_point", "AFTER_SYNC", "others would see a transaction before it is chosen"},
	{"rpl_semi_sync_source_wait_no_replica", "1", "commits would not wait while the agent reconnects"},
	{"rpl_semi_sync_source_timeout", "18446744073709551615", "commits would stop waiting after that many milliseconds"},
}

// inspect refuses a server whose settings would lose commits or whose
// transactions are not all in the log. It returns the server's own GTID set:
// announced in the dump, it makes the server send everything that still waits.
// It holds only what was acknowledged before, hence chosen.
func (t *Tail) inspect(w *wire) (*gtid.Set, error) {
	sql := "SELECT @@GLOBAL.gtid_executed"
	for _, s := range settings {
		sql += ", @@GLOBAL." + s.variable
	}
	row, err := w.row(sql)
	if err != nil {
		var e *ServerError
		if errors.As(err, &e) && e.Code == 1193 { // unknown system variable
			return nil, fmt.Errorf("%w: %w (load the plugin semisync_source)", ErrUnfit, err)
		}
		return nil, fmt.Errorf("inspect server: %w", err)
	}
	for i, s := range settings {
		if row[i+1] != s.want {
			return nil, fmt.Errorf("%w: %s is %q, want %q: %s", ErrUnfit, s.variable, row[i+1], s.want, s.hint)
		}
	}
	executed, err := gtid.ParseSet(row[0])
	if err != nil {
		return nil, fmt.Errorf("inspect server: %w", err)
	}
	extra := executed.Clone()
	extra.Subtract(t.before)
	extra.Subtract(t.proposed)
	if !extra.Empty() {
		return nil, fmt.Errorf("%w: %s", ErrDiverged, clipSet(extra))
	}
	lacks := t.before.Clone()
	lacks.Subtract(executed)
	if !lacks.Empty() {
		return nil, fmt.Errorf("%w: it lacks %s of the log and would use these GTIDs again", ErrUnfit, clipSet(lacks))
	}
	return executed, nil
}

// requestDump registers as a semi-synchronous replica and asks for everything
// that is not in the set.
func (t *Tail) requestDump(w *wire, executed *gtid.Set) error {
	for _, sql := range []string{
		fmt.Sprintf("SET @source_heartbeat_period = %d, @master_heartbeat_period = %[1]d", heartbeatPeriod),
		"SET @source_binlog_checksum = 'CRC32', @master_binlog_checksum = 'CRC32'",
		fmt.Sprintf("SET @replica_uuid = '%s', @slave_uuid = '%[1]s'", t.o.ReplicaUUID),
		"SET @rpl_semi_sync_replica = 1, @rpl_semi_sync_slave = 1",
	} {
		if err := w.exec(sql); err != nil {
			return fmt.Errorf("prepare dump: %w", err)
		}
	}
	le := binary.LittleEndian
	b := le.AppendUint32([]byte{comRegisterReplica}, t.o.ReplicaID)
	b = append(b, 0, 0, 0, 0, 0)          // no host, user, password; port 0
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 0) // rank, source's id
	if err := w.command(b); err != nil {
		return fmt.Errorf("register as replica: %w", err)
	}
	if err := w.expectOK("register as replica"); err != nil {
		return err
	}
	return w.command(appendDumpRequest(nil, t.o.ReplicaID, executed))
}

const (
	dumpHeartbeatV2 = 1 << 1 // the replica understands version 2 heartbeats

	firstEventPos = 4
)

// appendDumpRequest appends COM_BINLOG_DUMP_GTID.
//
//	+-----------+-----------+---------------+------+----------+---------------+----------+
//	| command   | flags u16 | server id u32 | file | position | size of set   | GTID set |
//	| u8 = 0x1e |           |               | (u32 | u64      | u32           |          |
//	|           |           |               | + n) |          |               |          |
//	+-----------+-----------+---------------+------+----------+---------------+----------+
func appendDumpRequest(b []byte, id uint32, set *gtid.Set) []byte {
	le := binary.LittleEndian
	b = append(b, comBinlogDumpGTID)
	b = le.AppendUint16(b, dumpHeartbeatV2)
	b = le.AppendUint32(b, id)
	b = le.AppendUint32(b, 0)
	b = le.AppendUint64(b, firstEventPos)
	encoded := set.AppendBinary(nil)
	b = le.AppendUint32(b, uint32(len(encoded)))
	return append(b, encoded...)
}

// dumpRequest is what a replica asks for.
type dumpRequest struct {
	flags    uint16
	serverID uint32
	executed *gtid.Set
}

// parseDumpRequest reads COM_BINLOG_DUMP_GTID, the command byte included.
func parseDumpRequest(b []byte) (dumpRequest, error) {
	le := binary.LittleEndian
	fail := fmt.Errorf("parse dump request: %w", errProtocol)
	if len(b) < 11 || b[0] != comBinlogDumpGTID {
		return dumpRequest{}, fail
	}
	r := dumpRequest{flags: le.Uint16(b[1:]), serverID: le.Uint32(b[3:])}
	name := le.Uint32(b[7:])
	if b = b[11:]; uint64(len(b)) < uint64(name)+12 {
		return dumpRequest{}, fail
	}
	b = b[name+8:]
	if n := le.Uint32(b); uint64(n) != uint64(len(b)-4) {
		return dumpRequest{}, fail
	}
	var err error
	if r.executed, err = gtid.DecodeSet(b[4:]); err != nil {
		return dumpRequest{}, fmt.Errorf("parse dump request: %w", err)
	}
	return r, nil
}
