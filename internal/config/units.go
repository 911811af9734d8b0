package config

import (
	"errors"
	"fmt"
	"math"
	"net"
	"strconv"
	"strings"
	"time"
)

// Duration is a length of time written with a unit, such as "900ms" or "10s".
type Duration time.Duration

// D returns the duration as Go's own type.
func (d Duration) D() time.Duration { return time.Duration(d) }

func (d Duration) String() string { return time.Duration(d).String() }

// MarshalText writes the duration with its unit.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads a duration with its unit.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil {
		return fmt.Errorf("%q is not a length of time with a unit, such as \"900ms\" or \"10s\"", b)
	}
	*d = Duration(v)
	return nil
}

// Size is a number of bytes written with a unit, such as "64MiB".
type Size int64

var sizeUnits = []struct {
	suffix string
	factor Size
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
	{"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"B", 1},
}

func (s Size) String() string {
	for i := 3; i >= 0; i-- {
		if u := sizeUnits[i]; s >= u.factor && s%u.factor == 0 {
			return strconv.FormatInt(int64(s/u.factor), 10) + u.suffix
		}
	}
	return strconv.FormatInt(int64(s), 10) + "B"
}

// MarshalText writes the size with the largest unit that keeps it exact.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads a whole number with a unit.
func (s *Size) UnmarshalText(b []byte) error {
	v, err := parseSize(string(b))
	if err != nil {
		return fmt.Errorf("%q is not a size with a unit, such as \"64MiB\" or \"2GiB\"", b)
	}
	*s = v
	return nil
}

func parseSize(text string) (Size, error) {
	for _, u := range sizeUnits {
		num, ok := strings.CutSuffix(text, u.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(strings.TrimSpace(num), 10, 63)
		if err != nil {
			return 0, err
		}
		if n > math.MaxInt64/uint64(u.factor) {
			return 0, errors.New("too large")
		}
		return Size(n) * u.factor, nil
	}
	return 0, errors.New("no unit")
}

func splitAddr(a string) (host, port string, ok bool) {
	host, port, err := net.SplitHostPort(a)
	return host, port, err == nil
}

func joinAddr(host, port string) string { return net.JoinHostPort(host, port) }

func isWildcard(host string) bool {
	if host == "" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsUnspecified()
}
