package mysqld

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/go-sql-driver/mysql"
)

// gapLimit bounds the end of a moment in which a server is without super_read_only.
const gapLimit = 10 * time.Second

// ErrNotNow says that something is under way in the server that a rotation must not
// meet. It can be repeated.
var ErrNotNow = errors.New("the server is between two roles, or is being copied")

// SecretSize is the length in bytes of what Rotate takes.
const SecretSize = 2 * secretSize

// password is that of the agent's account.
func (s *Server) password() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.secret
}

// Rotate gives the agent's accounts new passwords: that of AgentUser is secret,
// lower-case hex of SecretSize bytes, that of CopyUser is made of it. At no moment can
// the agent not log in: the server takes the old passwords beside the new ones until
// ForgetOld, and they stand in the file from which the next start takes them before
// anybody uses them. It may be interrupted anywhere, and repeated.
//
// Nothing of it enters the binary log. A replica loses super_read_only for a moment,
// read_only not. Should a client write in that moment nevertheless, its commit waits
// for an acknowledgement that nobody gives; then super_read_only cannot be set again,
// and the server is killed: its next start takes back what was never acknowledged. The
// caller makes sure that no tail is attached meanwhile and that the server keeps its
// role.
func (s *Server) Rotate(ctx context.Context, secret string) error {
	if len(secret) != SecretSize || !isHex(secret) {
		return fmt.Errorf("rotate passwords: the new one does not have the form of one")
	}
	if s.password() == secret {
		return nil
	}
	return s.accountsIn(ctx, "rotate passwords", func(conn *sql.Conn) error {
		if conn == nil {
			return s.keepSecret(secret)
		}
		return s.exchange(ctx, conn, secret)
	})
}

// ForgetOld has the server take only the new passwords. The caller waits with it until
// nobody is any more in a login that has begun with the old one. A start does the same.
func (s *Server) ForgetOld(ctx context.Context) error {
	if !s.twoPasswords.Load() {
		return nil
	}
	return s.accountsIn(ctx, "forget old passwords", func(conn *sql.Conn) error {
		if conn == nil {
			s.twoPasswords.Store(false) // the next start does it
			return nil
		}
		for _, user := range []string{AgentUser, CopyUser} {
			if err := run(ctx, conn, "forget an old password", fmt.Sprintf("ALTER USER '%s'@'%s' DISCARD OLD PASSWORD", user, agentHost)); err != nil {
				return err
			}
		}
		s.twoPasswords.Store(false)
		return nil
	})
}

// accountsIn has f change accounts on a connection that does not write the binary log;
// it is nil when no server runs.
func (s *Server) accountsIn(ctx context.Context, what string, f func(*sql.Conn) error) error {
	if !s.work.TryLock() {
		return fmt.Errorf("%s: %w", what, ErrNotNow)
	}
	defer s.work.Unlock()
	err := error(nil)
	if s.PID() == 0 {
		err = f(nil)
	} else {
		err = s.withinGap(ctx, f)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// keepSecret makes the password the one that the agent uses, now and at the next start.
func (s *Server) keepSecret(secret string) error {
	if err := writeSecret(s.cfg.path(secretName), secret+"\n"); err != nil {
		return fmt.Errorf("write the agent's secret: %w", err)
	}
	if err := writeSecret(s.cfg.path(accountsName), accounts(secret)); err != nil {
		return fmt.Errorf("write the account file: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.secret = secret
	return nil
}

// withinGap calls f while accounts can be changed in a server that runs; work is held.
func (s *Server) withinGap(ctx context.Context, f func(*sql.Conn) error) error {
	readOnly, err := s.someReadOnly(ctx)
	if err != nil {
		return err
	}
	if readOnly {
		st, err := s.ReplicaStatus(ctx)
		if err != nil {
			return err
		}
		if !st.Configured || !st.SQL {
			return ErrNotNow
		}
	}
	return s.unlogged(ctx, f)
}

// unlogged calls f with a connection that writes past the binary log, and past
// super_read_only. The caller sees to it that nobody else writes meanwhile.
func (s *Server) unlogged(ctx context.Context, f func(*sql.Conn) error) (err error) {
	conn, err := s.db.Conn(ctx)
	if err != nil {
		return err
	}
	// The connection does not write the binary log any more: nobody else may have it.
	defer discard(conn)
	if err := run(ctx, conn, "keep out of the binary log", "SET SESSION sql_log_bin = 0"); err != nil {
		return err
	}
	readOnly, err := s.someReadOnly(ctx)
	if err != nil {
		return err
	}
	if readOnly {
		if err := run(ctx, conn, "clear super_read_only", "SET GLOBAL super_read_only = OFF"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, s.closeGap(ctx, conn)) }()
	}
	return f(conn)
}

// someReadOnly reports whether any write is refused.
func (s *Server) someReadOnly(ctx context.Context) (bool, error) {
	var on bool
	err := s.one(ctx, "read super_read_only", "SELECT @@GLOBAL.super_read_only OR @@GLOBAL.read_only", &on)
	return on, err
}

// closeGap sets super_read_only again, whatever has happened, or ends the server.
func (s *Server) closeGap(ctx context.Context, conn *sql.Conn) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), gapLimit)
	defer cancel()
	err := run(ctx, conn, "set super_read_only", "SET GLOBAL super_read_only = ON")
	if err == nil {
		return nil
	}
	s.cfg.Logger.Error("mysqld is killed: it does not become read-only again", "error", err)
	return errors.Join(err, s.Kill())
}

// exchange has the server take the new passwords too, and uses them once it is sure
// of that.
func (s *Server) exchange(ctx context.Context, conn *sql.Conn, secret string) error {
	old := s.password()
	for _, a := range []struct{ user, before, after string }{
		{AgentUser, old, secret}, {CopyUser, copySecret(old), copySecret(secret)},
	} {
		if s.accepts(ctx, a.user, a.after) == nil {
			continue // of an interrupted rotation; once more would push the old one out
		}
		err := run(ctx, conn, "set a new password", fmt.Sprintf(
			"ALTER USER '%s'@'%s' IDENTIFIED WITH caching_sha2_password BY ? RETAIN CURRENT PASSWORD", a.user, agentHost), a.after)
		if err != nil {
			return err
		}
		if err := s.accepts(ctx, a.user, a.after); err != nil {
			return err
		}
	}
	s.twoPasswords.Store(true)
	return s.keepSecret(secret)
}

// accepts returns nil if an account can log in with a password.
func (s *Server) accepts(ctx context.Context, user, password string) error {
	connector, err := mysql.NewConnector(socketConfig(s.Socket(), user, password))
	if err != nil {
		return fmt.Errorf("log in as %s: %w", user, err)
	}
	c, err := connector.Connect(ctx)
	if err != nil {
		return fmt.Errorf("log in as %s: %w", user, err)
	}
	return c.Close()
}

func run(ctx context.Context, conn *sql.Conn, what, query string, args ...any) error {
	if _, err := conn.ExecContext(ctx, query, args...); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}
