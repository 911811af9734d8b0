package relay

import (
	"encoding/binary"
	"hash/crc32"
	"strings"
	"unicode/utf8"

	"github.com/phxsql/phxsql/internal/binlog"
)

// A server writes some statements into its binary log not as the client has sent them but
// as it has made them itself, in UTF-8: accounts with the hash of a password, privileges
// with the roles that count, a table with the key that it was given. It says of them all
// the same that they are in the client's characters. Where these are others, a replica
// reads other names: it makes another account, or finds no such schema and stops, as every
// replica would (seen on 9.7.4). So the log says UTF-8 of such a statement. What was sent
// as it is stays as it is.
//
// Statements that are of both kinds, the head from the server and the body from the client,
// are left alone: there are no characters in which both can be read.

// madeKey is how the server begins the columns of a table that it gives a key.
const madeKey = "(\n  `my_row_id` bigint unsigned NOT NULL AUTO_INCREMENT /*!80023 INVISIBLE */,\n"

// sayUTF8 makes an event, whole and with its checksum, say that its statement is in UTF-8
// if the server has made it.
func sayUTF8(event []byte) {
	h, err := binlog.ParseHeader(event)
	if err != nil || h.Type != binlog.Query || int(h.Size) != len(event) || len(event) < binlog.HeaderSize+binlog.ChecksumSize {
		return
	}
	end := len(event) - binlog.ChecksumSize
	body := event[binlog.HeaderSize:end]
	text := queryBytes(body)
	if text == nil || isASCII(text) {
		return
	}
	st := readStatus(body)
	if st.client == nil || st.isUTF8() || !madeByServer(string(text)) || !binlog.Verify(event) {
		return
	}
	binary.LittleEndian.PutUint16(st.client, charsetUTF8MB4)
	binary.LittleEndian.PutUint32(event[end:], crc32.ChecksumIEEE(event[:end]))
}

func isASCII(text []byte) bool {
	for _, b := range text {
		if b >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// madeByServer reports whether a statement in the binary log was made by the server, all
// its names included.
func madeByServer(text string) bool {
	l := lexer{rest: text}
	switch l.next(); {
	case l.is("CREATE"):
		l.next()
		return l.is("USER") || l.is("TABLE") && tableByServer(text)
	case l.is("ALTER"):
		l.next()
		return l.is("USER") && !l.defaultRole()
	case l.is("GRANT"):
		return l.privileges() && utf8.ValidString(text)
	}
	return false
}

// tableByServer tells a table that was given a key, and one that was made of a query.
func tableByServer(text string) bool {
	return strings.HasPrefix(text, "CREATE TABLE `") && utf8.ValidString(text) &&
		(strings.Contains(text, madeKey) || strings.HasSuffix(text, " START TRANSACTION"))
}

// defaultRole reports, behind ALTER USER, whether the account gets default roles: that is
// sent as it is.
func (l *lexer) defaultRole() bool {
	l.next()
	for l.is("IF") || l.is("EXISTS") {
		l.next()
	}
	if l.kind == tokenBroken {
		return true // it is not what a server makes
	}
	l.next() // behind the name
	if l.kind == tokenSign && l.text == "@" {
		l.next()
		l.next()
	}
	return l.is("DEFAULT")
}

// privileges reports, behind GRANT, whether it grants privileges. Roles are granted as the
// client has sent it, and so is PROXY.
func (l *lexer) privileges() bool {
	for l.next(); l.kind != tokenEnd && l.kind != tokenBroken; l.next() {
		switch {
		case l.is("ON"):
			return true
		case l.is("TO"), l.is("PROXY"):
			return false
		}
	}
	return false
}
