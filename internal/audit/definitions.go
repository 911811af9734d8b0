package audit

import (
	"context"
	"database/sql"
	"slices"
	"strings"
)

// Definitions of routines and triggers are what clients have written, and so the same on
// all members. Not compared are times; the modes in which they were made, of which a
// replica puts one (NO_DIR_IN_CREATE) in the place of the client's; and what a server makes
// of a text in its own way, which depends on the version that read it: the types of
// parameters, the bodies of views. Events are not: each member's server turns them on and
// off, and drops them, by itself.
//
// A client's server writes the head of such a statement (definer, name of a routine,
// comment) into the binary log as UTF-8, and says that it is in the client's characters.
// Where these are others, a replica reads other letters: the names, and the comments, are
// then not those of the master, and nobody is judged for that.

// definitionRule names what is compared of definitions; see source.
const definitionRule = "definitions/1"

// definitions are all that are compared. The first two columns name one.
var definitions = []source{
	{rule: definitionRule, Table: Table{"information_schema", "ROUTINES"}, where: schemaOf("routine_schema"),
		columns: "routine_schema routine_name routine_type definer security_type sql_data_access is_deterministic routine_comment routine_definition " + clientCharset},
	{rule: definitionRule, Table: Table{"information_schema", "TRIGGERS"}, where: schemaOf("trigger_schema"),
		columns: "trigger_schema trigger_name event_object_table event_manipulation action_timing action_order definer action_statement " + clientCharset},
}

// schemaOf leaves out the server's own schemas.
func schemaOf(column string) func(context.Context, Session) (string, error) {
	return func(context.Context, Session) (string, error) {
		return "t." + ident(column) + " NOT IN (" + systemSchemas + ")", nil
	}
}

// clientCharset is the column that says in which characters a definition was written.
const clientCharset = "character_set_client"

// definitionLine makes a row of definitions what is compared, and reports false for one
// that is not.
func definitionLine(r row) (Line, bool) {
	kind, foreign := "trigger", !strings.HasPrefix(r.value(clientCharset), "utf8")
	if k := r.value("routine_type"); k != "" {
		kind = strings.ToLower(k)
		if foreign && beyondASCII(r.values[slices.Index(r.columns, "routine_name")]) {
			return Line{}, false
		}
	}
	if foreign && beyondASCII(r.values[slices.Index(r.columns, "definer")]) {
		return Line{}, false
	}
	for i, c := range r.columns {
		if c == clientCharset || c == "routine_comment" && foreign {
			r.values[i] = sql.NullString{}
		}
	}
	return Line{Name: kind + " " + r.values[0].String + "." + r.values[1].String, Text: r.text()}, true
}
