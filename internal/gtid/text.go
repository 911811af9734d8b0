package gtid

import (
	"fmt"
	"strconv"
	"strings"
)

// MaxText is the longest text that ParseSet reads, in bytes.
const MaxText = 64 << 20

// String returns the set in MySQL's normal form without line breaks:
//
//	uuid:1-5:7,uuid:1:tag:1-3
//
// Sources are in ascending order and a source's untagged numbers come first.
func (s *Set) String() string {
	var b []byte
	var last UUID
	for src, list := range s.Sources() {
		if len(b) == 0 || src.UUID != last {
			if len(b) > 0 {
				b = append(b, ',')
			}
			b = src.UUID.appendTo(b)
			last = src.UUID
		}
		if src.Tag != "" {
			b = append(append(b, ':'), src.Tag...)
		}
		for _, in := range list {
			b = strconv.AppendInt(append(b, ':'), in.First, 10)
			if in.Last != in.First {
				b = strconv.AppendInt(append(b, '-'), in.Last, 10)
			}
		}
	}
	return string(b)
}

// ParseSet reads MySQL's text form of a set: sources separated by commas, white
// space anywhere between the parts, intervals in any order. Empty text is the
// empty set.
func ParseSet(s string) (*Set, error) {
	if len(s) > MaxText {
		return nil, fmt.Errorf("parse GTID set: %d bytes of text, limit %d: %w", len(s), MaxText, ErrMalformed)
	}
	set := &Set{}
	for part := range strings.SplitSeq(s, ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		if err := set.parseSource(part); err != nil {
			return nil, fmt.Errorf("parse GTID set %q: %w", clip(part), err)
		}
	}
	return set, nil
}

// parseSource reads "uuid[:tag]:interval[[:tag]:interval]...".
func (s *Set) parseSource(text string) error {
	name, rest, _ := strings.Cut(text, ":")
	u, err := ParseUUID(strings.TrimSpace(name))
	if err != nil {
		return err
	}
	src := Source{UUID: u}
	wanted := true // an interval must follow the UUID and every tag
	for rest != "" {
		var word string
		word, rest, _ = strings.Cut(rest, ":")
		word = strings.TrimSpace(word)
		if tag := strings.ToLower(word); ValidTag(tag) {
			if wanted && src.Tag != "" {
				return fmt.Errorf("tag %q has no interval: %w", src.Tag, ErrMalformed)
			}
			src.Tag, wanted = tag, true
			continue
		}
		in, err := parseInterval(word)
		if err != nil {
			return err
		}
		s.AddInterval(src, in)
		wanted = false
	}
	if wanted {
		return fmt.Errorf("no interval: %w", ErrMalformed)
	}
	return nil
}

func parseInterval(s string) (Interval, error) {
	a, b, ranged := strings.Cut(s, "-")
	first, err := parseNumber(a)
	last := first
	if err == nil && ranged {
		last, err = parseNumber(b)
	}
	if err != nil || last < first {
		return Interval{}, fmt.Errorf("interval %q: %w", clip(s), ErrMalformed)
	}
	return Interval{first, last}, nil
}

func parseNumber(s string) (int64, error) {
	n, err := strconv.ParseUint(strings.TrimSpace(s), 10, 63)
	if err != nil || n < 1 || n > MaxGNO {
		return 0, ErrMalformed
	}
	return int64(n), nil
}
