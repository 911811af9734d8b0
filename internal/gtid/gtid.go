// Package gtid holds global transaction identifiers and sets of them, in
// MySQL's text and binary forms.
//
// A set is a list of intervals for each source (server UUID and tag). Adding
// the number that follows the newest one of the same source costs no search and
// no allocation, because that is what a master does once per transaction.
//
// It is not an index of a log: a number may be used again with other content
// after a transaction was rolled back, and only the log's index tells which
// of the two counts.
//
// Invariants of a set: the intervals of a source are ascending, not empty, and
// neither overlap nor touch; a source without intervals is not kept. Two sets
// with the same members are therefore equal in every representation.
package gtid

import (
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// ErrMalformed is wrapped by every error about text or bytes that are not a
// GTID or a set of them.
var ErrMalformed = errors.New("malformed GTID")

// MaxGNO is the largest transaction number.
const MaxGNO = math.MaxInt64 - 1

// MaxTag is the longest tag in bytes.
const MaxTag = 32

// UUID identifies a server.
type UUID [16]byte

// IsZero reports whether u is the UUID of no server.
func (u UUID) IsZero() bool { return u == UUID{} }

func (u UUID) String() string {
	var b [36]byte
	return string(u.appendTo(b[:0]))
}

func (u UUID) appendTo(b []byte) []byte {
	for i, part := range [...][]byte{u[0:4], u[4:6], u[6:8], u[8:10], u[10:16]} {
		if i > 0 {
			b = append(b, '-')
		}
		b = hex.AppendEncode(b, part)
	}
	return b
}

// ParseUUID reads the form with hyphens, in either case.
func ParseUUID(s string) (UUID, error) {
	var u UUID
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return UUID{}, fmt.Errorf("parse uuid %q: %w", clip(s), ErrMalformed)
	}
	digits := s[0:8] + s[9:13] + s[14:18] + s[19:23] + s[24:36]
	if _, err := hex.Decode(u[:], []byte(digits)); err != nil {
		return UUID{}, fmt.Errorf("parse uuid %q: %w", clip(s), ErrMalformed)
	}
	return u, nil
}

// Source is what counts transactions: a server, or one tag on it. The tag is
// empty for most and in lower case.
type Source struct {
	UUID UUID
	Tag  string
}

func (s Source) compare(o Source) int {
	for i := range s.UUID {
		if s.UUID[i] != o.UUID[i] {
			return int(s.UUID[i]) - int(o.UUID[i])
		}
	}
	return strings.Compare(s.Tag, o.Tag)
}

// GTID names one transaction. GNO is 1 to MaxGNO.
type GTID struct {
	Source
	GNO int64
}

func (g GTID) String() string {
	b := g.UUID.appendTo(make([]byte, 0, 64))
	b = append(b, ':')
	if g.Tag != "" {
		b = append(append(b, g.Tag...), ':')
	}
	return string(strconv.AppendInt(b, g.GNO, 10))
}

// Parse reads one GTID.
func Parse(s string) (GTID, error) {
	set, err := ParseSet(s)
	if err != nil {
		return GTID{}, err
	}
	if set.Count() != 1 {
		return GTID{}, fmt.Errorf("parse %q: not one GTID: %w", clip(s), ErrMalformed)
	}
	for g := range set.All() {
		return g, nil
	}
	panic("gtid: a set of one has no member")
}

// ValidTag reports whether s is a tag in its normal form: 1 to 32 lower-case
// letters, digits and underscores that do not begin with a digit.
func ValidTag(s string) bool {
	if s == "" || len(s) > MaxTag {
		return false
	}
	for i, c := range []byte(s) {
		letter := c >= 'a' && c <= 'z' || c == '_'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return true
}

// clip keeps text from a peer short in an error.
func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "..."
	}
	return s
}
