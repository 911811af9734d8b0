package mysqld

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/go-sql-driver/mysql"
)

// ErrUserExists says that the account is there already.
var ErrUserExists = errors.New("the account exists already")

// errCannotUser is the server's answer to CREATE USER for an account that exists.
const errCannotUser = 1396

// adminStatic are the static privileges of an application's administrator.
//
// Not among them: SHUTDOWN and SUPER (release or bypass unconfirmed commits),
// RELOAD (RESET BINARY LOGS AND GTIDS), REPLICATION SLAVE (a second semi-sync
// replica could acknowledge), FILE and CREATE TABLESPACE (files of the
// machine).
var adminStatic = []string{
	"SELECT", "INSERT", "UPDATE", "DELETE", "CREATE", "DROP", "PROCESS", "REFERENCES", "INDEX", "ALTER",
	"SHOW DATABASES", "CREATE TEMPORARY TABLES", "LOCK TABLES", "EXECUTE", "REPLICATION CLIENT",
	"CREATE VIEW", "SHOW VIEW", "CREATE ROUTINE", "ALTER ROUTINE", "CREATE USER", "EVENT", "TRIGGER",
	"CREATE ROLE", "DROP ROLE",
}

// adminDynamic are the dynamic ones. Not among them: SYSTEM_VARIABLES_ADMIN and
// SESSION_VARIABLES_ADMIN (semi-sync, super_read_only, sql_log_bin), BINLOG_ADMIN
// and all of replication, CLONE_ADMIN, INNODB_REDO_LOG_ENABLE, and SYSTEM_USER,
// which guards the agent's account.
var adminDynamic = []string{
	"ALLOW_NONEXISTENT_DEFINER", "APPLICATION_PASSWORD_ADMIN", "CONNECTION_ADMIN", "FLUSH_OPTIMIZER_COSTS",
	"FLUSH_PRIVILEGES", "FLUSH_STATUS", "FLUSH_TABLES", "FLUSH_USER_RESOURCES", "ROLE_ADMIN",
	"SET_ANY_DEFINER", "SHOW_ROUTINE", "XA_RECOVER_ADMIN",
}

// systemRevoked are taken away for the schema mysql: with a write to its tables
// one can grant anything, install code, or break the agent's account.
const systemRevoked = "INSERT, UPDATE, DELETE, CREATE, DROP, REFERENCES, INDEX, ALTER, CREATE TEMPORARY TABLES, " +
	"LOCK TABLES, CREATE VIEW, CREATE ROUTINE, ALTER ROUTINE, EVENT, TRIGGER"

// maxUserName is the longest account name that MySQL takes.
const maxUserName = 32

// CheckUserName says why an account name cannot be a client's.
func CheckUserName(name string) error {
	switch {
	case name == "":
		return errors.New("create user: the name is empty")
	case len(name) > maxUserName:
		return fmt.Errorf("create user %q: the name is longer than %d characters", name, maxUserName)
	case name == "root", strings.HasPrefix(name, "mysql."), strings.HasPrefix(name, "phxsql_"):
		return fmt.Errorf("create user %q: the name is reserved (hint: choose another one)", name)
	}
	return nil
}

// CreateUser makes a client account that may do everything that does not
// endanger the cluster, and may grant what it has. The statements are written
// to the binary log: call it on the master only, with its tail attached. The
// account is for any host, as the server sees every client come from its socket.
// It is locked until it is complete: one that an interrupted call has left is made
// complete. ErrUserExists says that nothing was done.
func (s *Server) CreateUser(ctx context.Context, name, password string) error {
	if err := CheckUserName(name); err != nil {
		return err
	}
	if unfinished, err := s.lockedUser(ctx, name); err != nil {
		return err
	} else if unfinished {
		return s.completeUser(ctx, name, password)
	}
	err := s.exec(ctx, "create user", "CREATE USER ?@'%' IDENTIFIED BY ? ACCOUNT LOCK", name, password)
	var refused *mysql.MySQLError
	if errors.As(err, &refused) && refused.Number == errCannotUser {
		return fmt.Errorf("create user %q: %w", name, ErrUserExists)
	}
	if err != nil {
		return err
	}
	return s.completeUser(ctx, name, password)
}

// HasClients reports whether there is any account that clients can use.
func (s *Server) HasClients(ctx context.Context) (bool, error) {
	var n int
	err := s.one(ctx, "count accounts", `SELECT COUNT(*) FROM mysql.user WHERE account_locked = 'N'
		AND user <> 'root' AND user NOT LIKE 'mysql.%' AND user NOT LIKE 'phxsql\\_%'`, &n)
	return n > 0, err
}

// lockedUser reports whether the account is there and locked.
func (s *Server) lockedUser(ctx context.Context, name string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	var n int
	row := s.db.QueryRowContext(ctx, "SELECT COUNT(*) FROM mysql.user WHERE user = ? AND host = '%' AND account_locked = 'Y'", name)
	if err := row.Scan(&n); err != nil {
		return false, fmt.Errorf("look for user %q: %w", name, err)
	}
	return n > 0, nil
}

// completeUser gives a locked account its privileges, and unlocks it.
func (s *Server) completeUser(ctx context.Context, name, password string) error {
	dynamic, err := s.knownPrivileges(ctx, adminDynamic)
	if err != nil {
		return err
	}
	list := strings.Join(append(append([]string{}, adminStatic...), dynamic...), ", ")
	if err := s.exec(ctx, "grant privileges", "GRANT "+list+" ON *.* TO ?@'%' WITH GRANT OPTION", name); err != nil {
		return err
	}
	if err := s.exec(ctx, "revoke privileges", "REVOKE IF EXISTS "+systemRevoked+" ON mysql.* FROM ?@'%'", name); err != nil {
		return err
	}
	return s.exec(ctx, "unlock user", "ALTER USER ?@'%' IDENTIFIED BY ? ACCOUNT UNLOCK", name, password)
}

// knownPrivileges keeps those that this server's version has.
func (s *Server) knownPrivileges(ctx context.Context, want []string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	rows, err := s.db.QueryContext(ctx, "SHOW PRIVILEGES")
	if err != nil {
		return nil, fmt.Errorf("list privileges: %w", err)
	}
	defer rows.Close() //nolint:errcheck // rows.Err says it
	have := map[string]bool{}
	for rows.Next() {
		var name, scope, comment string
		if err := rows.Scan(&name, &scope, &comment); err != nil {
			return nil, fmt.Errorf("list privileges: %w", err)
		}
		have[strings.ToUpper(name)] = true
	}
	var known []string
	for _, w := range want {
		if have[w] {
			known = append(known, w)
		}
	}
	return known, rows.Err()
}
