package relay

import "strings"

// routineChange is what a statement does to a stored routine.
type routineChange uint8

const (
	routineUntouched  routineChange = iota // it is none of the others
	routineDropped                         // DROP {PROCEDURE | FUNCTION | LIBRARY}
	routineCreated                         // CREATE {PROCEDURE | FUNCTION | LIBRARY}
	routineUnreadable                      // it may be one of them: of which routine cannot be told
	numRoutineChanges = iota
)

// parseRoutine tells what a statement does to which routine. Cut says that text is only
// the statement's beginning.
// The schema is empty where the statement names none. It knows no more of the language
// than that takes: comments, those that are executed, names with and without quotes,
// and the words that may stand before the name (reference manual, "DROP PROCEDURE and
// DROP FUNCTION Statements", "CREATE PROCEDURE and CREATE FUNCTION Statements", "DROP
// LIBRARY Statement", "CREATE LIBRARY Statement"). Names
// are returned as they are written, byte for byte.
func parseRoutine(text string, cut bool) (Routine, routineChange) {
	l := lexer{rest: text, cut: cut}
	change := routineUntouched
	switch l.next(); {
	case l.is("DROP"):
		change = routineDropped
	case l.is("CREATE"):
		change = routineCreated
	case l.kind == tokenBroken:
		return Routine{}, routineUnreadable
	default:
		return Routine{}, routineUntouched
	}
	l.next()
	if change == routineCreated && !l.skipDefiner() {
		return Routine{}, routineUnreadable
	}
	if l.kind == tokenBroken || l.kind == tokenEnd {
		return Routine{}, routineUnreadable
	}
	if !l.is(Procedure) && !l.is(Function) && !l.is(Library) {
		return Routine{}, routineUntouched
	}
	r := Routine{Type: strings.ToUpper(l.text)}
	l.next()
	if l.is("IF") {
		for !l.is("EXISTS") {
			if l.next(); l.kind != tokenWord {
				return Routine{}, routineUnreadable
			}
		}
		l.next()
	}
	if !l.name(&r) {
		return Routine{}, routineUnreadable
	}
	return r, change
}

// skipDefiner passes what may stand between CREATE and the type of a routine. It
// reports false when that cannot be read.
func (l *lexer) skipDefiner() bool {
	if l.is("OR") { // OR REPLACE
		l.next()
		l.next()
	}
	if l.is("DEFINER") {
		if l.next(); l.text != "=" {
			return false
		}
		l.next() // the account
		if l.kind != tokenWord && l.kind != tokenQuoted {
			return false
		}
		for l.next(); l.text == "@" || l.text == "(" || l.text == ")"; l.next() {
			if l.kind != tokenSign {
				return false
			}
			if l.text == "@" {
				l.next() // the host
			}
		}
	}
	if l.is("AGGREGATE") {
		l.next()
	}
	return true
}

// name reads a name with or without a schema. It reports false when there is none, or
// when it is not known where it ends.
func (l *lexer) name(r *Routine) bool {
	if l.kind != tokenWord && l.kind != tokenQuoted {
		return false
	}
	r.Name = l.text
	l.next()
	if l.kind == tokenSign && l.text == "." {
		r.Schema = r.Name
		if l.next(); l.kind != tokenWord && l.kind != tokenQuoted {
			return false
		}
		r.Name = l.text
		l.next()
	}
	return l.kind != tokenBroken && r.Name != ""
}

// tokenKind is what a token of a statement is.
type tokenKind uint8

const (
	tokenEnd      tokenKind = iota
	tokenWord               // a keyword or a name without quotes
	tokenQuoted             // in back quotes, or double or single quotes; text is what they hold
	tokenSign               // one byte of anything else
	tokenBroken             // a comment or quotes that do not end, or the statement is cut here
	numTokenKinds = iota
)

// lexer cuts a statement into tokens. The newest one is kind and text.
type lexer struct {
	rest string
	cut  bool // the statement goes on behind rest
	kind tokenKind
	text string
}

// is reports whether the newest token is a keyword.
func (l *lexer) is(keyword string) bool {
	return l.kind == tokenWord && strings.EqualFold(l.text, keyword)
}

// next reads a token.
func (l *lexer) next() {
	if !l.skipBlanks() || l.cut && l.rest == "" {
		l.broken()
		return
	}
	if l.rest == "" {
		l.kind, l.text = tokenEnd, ""
		return
	}
	switch c := l.rest[0]; {
	case c == '`' || c == '"' || c == '\'':
		l.quoted(c)
	case isWord(c):
		n := 1
		for n < len(l.rest) && isWord(l.rest[n]) {
			n++
		}
		if l.cut && n == len(l.rest) {
			l.broken() // the word may go on
			return
		}
		l.kind, l.text, l.rest = tokenWord, l.rest[:n], l.rest[n:]
	case l.cut && len(l.rest) < len("/*!"):
		l.broken() // a comment may begin here
	default:
		l.kind, l.text, l.rest = tokenSign, l.rest[:1], l.rest[1:]
	}
}

func (l *lexer) broken() { l.kind, l.text, l.rest = tokenBroken, "", "" }

// isWord reports whether a byte may stand in a name without quotes.
func isWord(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '$' || c == '_' || c >= 0x80
}

// quoted reads what quotes hold; two of them are one that belongs to it.
func (l *lexer) quoted(quote byte) {
	var text strings.Builder
	for i := 1; i < len(l.rest); i++ {
		if l.rest[i] != quote {
			text.WriteByte(l.rest[i])
			continue
		}
		if i+1 == len(l.rest) || l.rest[i+1] != quote {
			l.kind, l.text, l.rest = tokenQuoted, text.String(), l.rest[i+1:]
			return
		}
		text.WriteByte(quote)
		i++
	}
	l.broken()
}

// skipBlanks passes blanks and comments. The marks around an executed comment are
// blanks, what stands between them is not: a server writes to its binary log only
// those that it has executed. It reports false for a comment that does not end.
func (l *lexer) skipBlanks() bool {
	for {
		l.rest = strings.TrimLeft(l.rest, " \t\r\n\v\f")
		switch {
		case strings.HasPrefix(l.rest, "/*!"):
			l.rest = strings.TrimLeft(l.rest[3:], "0123456789")
		case strings.HasPrefix(l.rest, "*/"):
			l.rest = l.rest[2:]
		case strings.HasPrefix(l.rest, "/*"):
			_, rest, ok := strings.Cut(l.rest[2:], "*/")
			if !ok {
				return false
			}
			l.rest = rest
		case strings.HasPrefix(l.rest, "#"), isDashComment(l.rest):
			_, l.rest, _ = strings.Cut(l.rest, "\n")
		default:
			return true
		}
	}
}

// isDashComment reports whether two dashes begin a comment: a blank follows them.
func isDashComment(s string) bool {
	return strings.HasPrefix(s, "--") && (len(s) == 2 || s[2] <= ' ')
}
