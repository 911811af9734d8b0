package engine

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// Version is a server release as "mysqld --version" prints it.
type Version struct {
	Major, Minor, Patch int
	// Flavor is "MySQL", "Percona Server" or "MariaDB".
	Flavor string
}

// The oldest release that works: earlier ones lack the replica-side names and
// the tagged behaviour that the restart recipe was proven on.
const (
	minMajor = 8
	minMinor = 4
)

func (v Version) String() string { return v.Flavor + " " + v.Release() }

// Release is the bare number, such as "9.7.4".
func (v Version) Release() string {
	return fmt.Sprintf("%d.%d.%d", v.Major, v.Minor, v.Patch)
}

// AtLeast reports whether v is release major.minor or newer.
func (v Version) AtLeast(major, minor int) bool {
	return v.Major > major || v.Major == major && v.Minor >= minor
}

func (v Version) check() error {
	if v.Flavor == "MariaDB" {
		return fmt.Errorf("%s is not supported: it releases unconfirmed commits (hint: install MySQL or Percona Server >= %d.%d, or name one with %s)",
			v, minMajor, minMinor, EnvBasedir)
	}
	if !v.AtLeast(minMajor, minMinor) {
		return fmt.Errorf("%s is too old (hint: install MySQL or Percona Server >= %d.%d, or name one with %s)",
			v, minMajor, minMinor, EnvBasedir)
	}
	return nil
}

var versionPattern = regexp.MustCompile(`Ver\s+(\d{1,4})\.(\d{1,4})\.(\d{1,4})`)

// parseVersion reads the line that "mysqld --version" prints.
func parseVersion(line string) (Version, error) {
	m := versionPattern.FindStringSubmatch(line)
	if m == nil {
		return Version{}, fmt.Errorf("parse server version from %q", firstLine([]byte(line)))
	}
	var v Version
	for i, field := range []*int{&v.Major, &v.Minor, &v.Patch} {
		*field, _ = strconv.Atoi(m[i+1]) // at most four digits
	}
	v.Flavor = "MySQL"
	for _, flavor := range []string{"MariaDB", "Percona Server"} {
		if strings.Contains(line, flavor) {
			v.Flavor = flavor
		}
	}
	return v, nil
}
