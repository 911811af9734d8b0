package relay

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/phxsql/phxsql/internal/binlog"
)

// serverMade are statements as servers write them, with whether a server has made them.
var serverMade = []struct {
	text string
	want bool
}{
	{"CREATE USER 'é'@'%' IDENTIFIED WITH 'caching_sha2_password' AS '\\'é' COMMENT '\xe9'", true},
	{"CREATE USER IF NOT EXISTS 'é'@'%' IDENTIFIED WITH 'caching_sha2_password' DEFAULT ROLE 'r'@'%'", true},
	{"ALTER USER 'é'@'%' IDENTIFIED WITH 'caching_sha2_password' AS '\\'x'", true},
	{"ALTER USER IF EXISTS 'u'@'%' COMMENT '\xe9'", true},
	{"ALTER USER IF EXISTS 'é'@'%' DEFAULT ROLE NONE", false},
	{"alter user é default role all", false},
	{"GRANT SELECT (`é`), INSERT ON `d`.`t` TO 'é'@'%'", true},
	{"GRANT DELETE ON *.* TO 'é'@'%' AS 'admin'@'%' WITH ROLE NONE", true},
	{"GRANT PROXY ON 'é' TO 'u'", false},
	{"GRANT 'é' TO 'u' WITH ADMIN OPTION", false},
	{"GRANT 'on', é TO u", false},
	{"GRANT SELECT ON *.* TO '\xe9'", false},
	{"CREATE ROLE 'é'", false},
	{"DROP USER 'é'", false},
	{"REVOKE SELECT ON *.* FROM 'é'", false},
	{"CREATE TABLE `é` " + madeKey + "  `a` int DEFAULT NULL,\n  PRIMARY KEY (`my_row_id`)\n)", true},
	{"CREATE TABLE `é` (\n  `id` int NOT NULL,\n  PRIMARY KEY (`id`)\n) START TRANSACTION", true},
	{"CREATE TABLE é (id INT PRIMARY KEY)", false},
	{"CREATE TABLE `\xe9` " + madeKey + "  `a` int)", false},
	{"CREATE DEFINER=`é`@`%` PROCEDURE `p`()\nSELECT '\xe9'", false},
	{"CREATE DATABASE `é`", false},
	{"CREATE", false}, {"é", false}, {"GRANT '", false}, {"ALTER USER 'é", false}, {"", false},
}

func queryOf(text string, client byte) []byte {
	status := []byte{0, 1, 2, 3, 4, statusCatalog, 3, 's', 't', 'd', statusCharset, client, 0, 45, 0, 8, 0}
	body := make([]byte, queryFixed)
	body[8] = 1
	binary.LittleEndian.PutUint16(body[11:], uint16(len(status)))
	body = append(append(append(body, status...), 'd', 0), text...)
	return binlog.AppendEvent(nil, binlog.Header{Type: binlog.Query}, body, 0)
}

// A statement that the server has made says UTF-8, whatever the client speaks, and
// nothing else of any event changes.
func TestSayUTF8(t *testing.T) {
	const latin1, gbk, utf8mb3 = 8, 28, 33
	for _, c := range serverMade {
		for _, client := range []byte{latin1, gbk, utf8mb3, charsetUTF8MB4} {
			before := queryOf(c.text, client)
			got := bytes.Clone(before)
			sayUTF8(got)
			want := before
			if c.want && (client == latin1 || client == gbk) {
				want = queryOf(c.text, charsetUTF8MB4)
			}
			if !bytes.Equal(got, want) || !binlog.Verify(got) {
				t.Errorf("%q from a client of collation %d: %x, want %x", c.text, client, got, want)
			}
		}
	}
	whole := queryOf(serverMade[0].text, latin1)
	for n := range whole { // what is cut or broken stays as it is
		cut := bytes.Clone(whole[:n])
		sayUTF8(cut)
		broken := bytes.Clone(whole)
		broken[n]++
		was := bytes.Clone(broken)
		sayUTF8(broken)
		if !bytes.Equal(cut, whole[:n]) || !bytes.Equal(broken, was) {
			t.Fatalf("changed: %x, %x", cut, broken)
		}
	}
}

// foreign are statements of a client with other characters than UTF-8; each @ is one that
// is not ASCII.
var foreign = []string{
	"CREATE DATABASE `d@`",
	"CREATE TABLE `d@`.`t@` (`c@` INT COMMENT '@', e ENUM('@', 'x') DEFAULT '@') COMMENT '@'",
	"CREATE TABLE `d@`.`k@` (`c@` INT PRIMARY KEY COMMENT '@')",
	"CREATE TABLE `d@`.`s@` AS SELECT 1 AS `a@`",
	"CREATE TABLE `d@`.`r@` (`i@` INT PRIMARY KEY COMMENT '@') AS SELECT 1 AS `i@`",
	"CREATE TABLE `d@`.`l@` LIKE `d@`.`t@`",
	"CREATE USER 'n@' IDENTIFIED BY 'p'",
	"ALTER USER 'n@' IDENTIFIED BY 'q' RETAIN CURRENT PASSWORD",
	"SET PASSWORD FOR 'n@' = 'r'",
	"ALTER USER 'n@' WITH MAX_USER_CONNECTIONS 3",
	"CREATE ROLE 'r@'",
	"GRANT 'r@' TO 'n@' WITH ADMIN OPTION",
	"ALTER USER 'n@' DEFAULT ROLE 'r@'",
	"GRANT SELECT (`c@`) ON `d@`.`t@` TO 'n@'",
	"GRANT UPDATE, DELETE ON *.* TO 'n@'",
	"REVOKE UPDATE ON *.* FROM 'n@'",
	"GRANT INSERT ON `d@`.* TO 'n@'",
	"CREATE USER 'g@' DEFAULT ROLE 'r@'",
	"RENAME USER 'g@' TO 'h@'",
	"CREATE USER 'g@'",
	"DROP USER 'h@'",
	"DROP ROLE 'r@'",
	"ALTER TABLE `d@`.`t@` ADD `n@` INT",
}

// charactersOfClients: what clients write whose characters are not UTF-8 is the same on a
// follower.
func charactersOfClients(t *testing.T, r *rig, follower *server) {
	db := r.master.conns(1)
	do := func(q string) {
		t.Helper()
		if _, err := db.Exec(q); err != nil {
			t.Fatalf("%q: %v", q, err)
		}
	}
	do("SET sql_generate_invisible_primary_key = ON")
	do("SET NAMES latin1")
	for _, c := range []string{"\xe9", "é"} { // the second one is what a client sends that does not know its own characters
		for _, q := range foreign {
			do(strings.ReplaceAll(q, "@", c))
		}
	}
	r.drain()
	follower.waitFor(r.journal.Executed())
	const odd = " WHERE LENGTH(user) <> CHAR_LENGTH(user)"
	for _, q := range []string{
		"SELECT GROUP_CONCAT(HEX(user), authentication_string, update_priv, delete_priv, max_user_connections ORDER BY user) FROM mysql.user" + odd,
		"SELECT GROUP_CONCAT(HEX(user), HEX(db), insert_priv ORDER BY user) FROM mysql.db" + odd,
		"SELECT GROUP_CONCAT(HEX(user), HEX(db), HEX(table_name), HEX(column_name) ORDER BY user) FROM mysql.columns_priv" + odd,
		"SELECT GROUP_CONCAT(HEX(table_schema), HEX(table_name), HEX(table_comment) ORDER BY table_schema, table_name) FROM information_schema.tables WHERE table_schema LIKE 'd_%'",
		"SELECT GROUP_CONCAT(HEX(column_name), HEX(column_comment), HEX(column_type), HEX(column_default) ORDER BY table_schema, table_name, column_name) FROM information_schema.columns WHERE table_schema LIKE 'd_%'",
	} {
		if a, b := r.master.one(q), follower.one(q); a != b || a == "" {
			t.Errorf("%s:\nmaster   %s\nfollower %s", q, a, b)
		}
	}
}
