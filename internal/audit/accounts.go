package audit

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// Accounts and what is granted to them are compared by the tables that hold them. Of
// each, a rule chooses columns and rows that are the same on all members by right:
//
//   - No times, and no name of who has granted something: replication writes another one.
//   - Not the agents' own accounts and root's, and not those that the server keeps for
//     itself and no client can use: each member changes the former by itself, and the
//     latter depend on the version that has made the data.
//   - Statements are executed by each member's server on its own, and an upgrade changes
//     grants on each member by itself. So members are compared that run one version.
//   - Not what has other characters than those of ASCII, and no comments on accounts: a
//     server writes statements about accounts anew, in UTF-8, and says that they are in the
//     client's characters. Where those are not UTF-8, the others read another name.
//   - Partial revokes are advisory. What a REVOKE does to them depends on those of the
//     account that revokes, and the binary log does not say who that was.
//   - Grants on columns are, too. A GRANT of one privilege on a table and on its columns
//     at once enters the binary log without the columns, and the others lack them.
//   - So are grants on routines. MySQL gives and takes some of them in transactions
//     that no binary log has, when a routine is made or dropped; what it gives depends on
//     the roles that are active in the creator's session, which the others do not know.
//     There is nobody who is right, so nobody is judged: the difference is told.

// The names of what is compared of accounts; see source.
const (
	accountRule = "accounts/1"
	revokeRule  = "partial_revokes/1"
)

// ownHost is where the accounts are that a member changes by itself, and those that a
// server keeps for itself.
const ownHost = "localhost"

// ownUsers are changed by each member by itself: the agents' accounts, and root's, which
// is locked at every start. With one more, the rule gets another name: members of the
// release before do not have it.
var ownUsers = []string{"phxsql_agent", "phxsql_copy", "root"}

type account struct{ user, host string }

func (a account) String() string { return quoted(a.user) + "@" + quoted(a.host) }

func quoted(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

func (a account) own() bool { return a.host == ownHost && slices.Contains(ownUsers, a.user) }

// reserved reports whether an account is one that a server keeps for itself.
func (a account) reserved() bool {
	return a.host == ownHost && (strings.HasPrefix(a.user, "mysql.") || strings.HasPrefix(a.user, "percona."))
}

// schemaPrivileges are columns of mysql.user and mysql.db.
const schemaPrivileges = "select_priv insert_priv update_priv delete_priv create_priv drop_priv grant_priv references_priv index_priv alter_priv " +
	"create_tmp_table_priv lock_tables_priv create_view_priv show_view_priv create_routine_priv alter_routine_priv execute_priv event_priv trigger_priv "

// grantTables are all that are compared, in this order. The first two columns of each are
// the account that a row is about.
var grantTables = []source{
	{rule: accountRule, Table: Table{"mysql", "user"}, columns: "user host " + schemaPrivileges +
		"reload_priv shutdown_priv process_priv file_priv show_db_priv super_priv repl_slave_priv repl_client_priv create_user_priv " +
		"create_tablespace_priv create_role_priv drop_role_priv ssl_type ssl_cipher x509_issuer x509_subject " +
		"max_questions max_updates max_connections max_user_connections plugin authentication_string password_expired password_lifetime " +
		"password_reuse_history password_reuse_time password_require_current account_locked user_attributes"},
	{rule: accountRule, Table: Table{"mysql", "db"}, columns: "user host db " + schemaPrivileges},
	{rule: accountRule, Table: Table{"mysql", "tables_priv"}, columns: "user host db table_name table_priv", where: notEmpty("table_priv")},
	{rule: accountRule, Table: Table{"mysql", "columns_priv"}, columns: "user host db table_name column_name column_priv", advisory: true},
	{rule: accountRule, Table: Table{"mysql", "global_grants"}, columns: "user host priv with_grant_option"},
	{rule: accountRule, Table: Table{"mysql", "role_edges"}, columns: "to_user to_host from_user from_host with_admin_option"},
	{rule: accountRule, Table: Table{"mysql", "default_roles"}, columns: "user host default_role_user default_role_host"},
	{rule: accountRule, Table: Table{"mysql", "proxies_priv"}, columns: "user host proxied_user proxied_host with_grant"},
	{rule: accountRule, Table: Table{"mysql", "procs_priv"}, columns: "user host db routine_type routine_name proc_priv", where: granted, advisory: true},
	{rule: revokeRule, Table: Table{"mysql", "user"}, columns: "user host user_attributes", advisory: true},
}

// notEmpty leaves out rows that say nothing in a column.
func notEmpty(column string) func(context.Context, Session) (string, error) {
	return func(context.Context, Session) (string, error) { return "t." + ident(column) + " <> ''", nil }
}

// granted leaves out grants on routines that do not exist: a member may still be about to
// remove them.
func granted(ctx context.Context, s Session) (string, error) {
	where := `(EXISTS (SELECT 1 FROM information_schema.routines r WHERE r.routine_schema = t.db
		AND r.routine_type = t.routine_type AND r.routine_name = t.routine_name)`
	libraries := 0
	err := one(ctx, s, &libraries, `SELECT COUNT(*) FROM information_schema.tables
		WHERE table_schema = 'information_schema' AND table_name = 'LIBRARIES'`)
	if err == nil && libraries > 0 {
		where += ` OR t.routine_type = 'LIBRARY' AND EXISTS (SELECT 1 FROM information_schema.libraries l
			WHERE l.library_schema = t.db AND l.library_name = t.routine_name)`
	}
	return where + ")", err
}

// accountLine makes a row of a table of accounts what is compared, and reports false for
// one that is not.
func accountLine(table string, r row) (Line, bool) {
	who := account{r.values[0].String, r.values[1].String}
	l := Line{Name: who.String()}
	switch {
	case table == "role_edges", table == "default_roles": // no member gives roles by itself
	case who.reserved() && table == "user":
		l.Text = "a client can log in"
		return l, r.value("account_locked") != "Y"
	case who.own(), who.reserved():
		return l, false
	}
	switch table {
	case "procs_priv":
		l.Name += " on " + strings.ToLower(r.value("routine_type")) + " " + r.value("db") + "." + r.value("routine_name")
	case "tables_priv", "columns_priv":
		l.Name += " on " + r.value("db") + "." + r.value("table_name")
	}
	if i := slices.Index(r.columns, "user_attributes"); i >= 0 {
		r.values[i] = attributes(r.values[i])
	}
	l.Text = r.text()
	return l, !slices.ContainsFunc(r.values, beyondASCII)
}

func beyondASCII(v sql.NullString) bool {
	return strings.ContainsFunc(v.String, func(c rune) bool { return c >= utf8.RuneSelf })
}

// partialRevokes is the attribute of an account that says of which schemas a global
// privilege was taken from it.
const partialRevokes = "Restrictions"

// attributes brings the attributes of an account into one form, without partial revokes
// and comments. None are the same as no object. The state of a second factor that is being
// registered is random on each member.
func attributes(v sql.NullString) sql.NullString {
	var all map[string]any
	if !v.Valid || json.Unmarshal([]byte(v.String), &all) != nil {
		return v
	}
	for _, name := range []string{partialRevokes, "multi_factor_authentication", "metadata"} {
		delete(all, name)
	}
	if len(all) == 0 {
		return sql.NullString{}
	}
	return sql.NullString{String: encoded(all), Valid: true}
}

// revokeLine makes the partial revokes of an account what is compared. The server writes
// them in the order of a hash table.
func revokeLine(r row) (Line, bool) {
	who := account{r.values[0].String, r.values[1].String}
	var all map[string]any
	if who.own() || who.reserved() || json.Unmarshal([]byte(r.value("user_attributes")), &all) != nil {
		return Line{}, false
	}
	revokes, ok := all[partialRevokes].([]any)
	for _, r := range revokes {
		if m, ok := r.(map[string]any); ok {
			sortJSON(m["Privileges"])
		}
	}
	sortJSON(revokes)
	return Line{Name: who.String(), Text: encoded(revokes)}, ok && !slices.ContainsFunc(r.values, beyondASCII)
}

// sortJSON sorts an array in place.
func sortJSON(v any) {
	if list, ok := v.([]any); ok {
		slices.SortFunc(list, func(a, b any) int { return cmp.Compare(encoded(a), encoded(b)) })
	}
}

// encoded is what was decoded; the keys of objects are in order.
func encoded(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("audit: encode what was decoded: %v", err))
	}
	return string(b)
}
