package engine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// source is one "deb" entry of the system's apt sources.
type source struct {
	URI        string
	Suite      string
	Components []string
	SignedBy   string // an absolute path, or empty
}

// errNoMirror says that the system's apt sources name no Debian archive.
var errNoMirror = errors.New("find a Debian mirror in the system's apt sources: there is none " +
	"(hint: install MySQL or Percona Server >= 8.4 from your system's packages, or name one with " + EnvBasedir + ")")

// parseList reads the one-line format of sources.list(5):
//
//	deb [ option=value ... ] uri suite component ...
//
// Lines that are not understood are skipped, as they cannot be used.
func parseList(text string) []source {
	var out []source
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		rest, ok := strings.CutPrefix(strings.TrimSpace(line), "deb")
		if !ok || rest == "" || !strings.ContainsAny(rest[:1], " \t[") {
			continue
		}
		rest = strings.TrimSpace(rest)
		var s source
		if strings.HasPrefix(rest, "[") {
			options, after, ok := strings.Cut(rest[1:], "]")
			if !ok {
				continue
			}
			s.SignedBy = listOption(options, "signed-by")
			rest = after
		}
		f := strings.Fields(rest)
		if len(f) < 3 {
			continue
		}
		s.URI, s.Suite, s.Components = f[0], f[1], f[2:]
		out = append(out, s)
	}
	return out
}

func listOption(options, name string) string {
	for _, o := range strings.Fields(options) {
		if k, v, ok := strings.Cut(o, "="); ok && strings.EqualFold(k, name) {
			return keyringPath(v)
		}
	}
	return ""
}

// parseDeb822 reads the stanza format of sources.list(5). A stanza stands for
// every pair of its URIs and suites.
func parseDeb822(text string) []source {
	var out []source
	for _, fields := range stanzas(text) {
		if !slices.Contains(strings.Fields(fields["types"]), "deb") || isNo(fields["enabled"]) {
			continue
		}
		for _, uri := range strings.Fields(fields["uris"]) {
			for _, suite := range strings.Fields(fields["suites"]) {
				out = append(out, source{
					URI: uri, Suite: suite,
					Components: strings.Fields(fields["components"]),
					SignedBy:   keyringPath(fields["signed-by"]),
				})
			}
		}
	}
	return out
}

// stanzas splits deb822 text into maps of lower-case field names. A line that
// begins with a blank goes on with the field before it; '#' begins a comment.
func stanzas(text string) []map[string]string {
	var out []map[string]string
	var cur map[string]string
	last := ""
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		switch {
		case strings.TrimSpace(line) == "":
			cur, last = nil, ""
		case strings.HasPrefix(line, "#"):
		case line[0] == ' ' || line[0] == '\t':
			if cur != nil && last != "" {
				cur[last] += "\n" + strings.TrimSpace(line)
			}
		default:
			name, value, ok := strings.Cut(line, ":")
			if !ok {
				continue
			}
			if cur == nil {
				cur = map[string]string{}
				out = append(out, cur)
			}
			last = strings.ToLower(strings.TrimSpace(name))
			cur[last] = strings.TrimSpace(value)
		}
	}
	return out
}

func isNo(v string) bool {
	return slices.Contains([]string{"no", "false", "without", "off", "disable"}, strings.ToLower(v))
}

// keyringPath keeps a signed-by value only when it is the path of one keyring.
// Fingerprints and keys written into the source are left to the default.
func keyringPath(v string) string {
	if strings.HasPrefix(v, "/") && !strings.ContainsAny(v, ", \n") {
		return v
	}
	return ""
}

// readSources reads a sources.list file and a sources.list.d folder; either
// may be absent.
func readSources(list, parts string) []source {
	var out []source
	if b, err := os.ReadFile(list); err == nil {
		out = append(out, parseList(string(b))...)
	}
	files, _ := filepath.Glob(filepath.Join(parts, "*")) // the pattern is well-formed
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		switch filepath.Ext(f) {
		case ".list":
			out = append(out, parseList(string(b))...)
		case ".sources":
			out = append(out, parseDeb822(string(b))...)
		}
	}
	return out
}

// pickMirror chooses the entry that serves the main Debian archive: a plain
// release suite (no "-updates", "-security") with the component main. The
// codename is this system's own release, empty when it is not Debian.
func pickMirror(sources []source, codename string) (source, error) {
	suites := []string{"stable", "oldstable", "testing", "unstable", "sid"}
	if codename != "" {
		suites = append(suites, codename)
	}
	for _, s := range sources {
		if !slices.Contains(suites, s.Suite) || !slices.Contains(s.Components, "main") ||
			strings.HasPrefix(s.URI, "cdrom:") || strings.ContainsAny(s.URI, "\"\n") {
			continue
		}
		return s, nil
	}
	return source{}, errNoMirror
}

// debianCodename returns the release name of a Debian system from the text of
// os-release(5), or "" for any other system.
func debianCodename(osRelease string) string {
	fields := map[string]string{}
	for line := range strings.Lines(osRelease) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			fields[k] = strings.Trim(v, `"'`)
		}
	}
	if fields["ID"] != "debian" {
		return ""
	}
	return fields["VERSION_CODENAME"]
}

// line is the entry that asks the same mirror for another suite.
func (s source) line(suite, arch, keyring string) string {
	return fmt.Sprintf("deb [arch=%s signed-by=%s] %s %s main\n", arch, keyring, s.URI, suite)
}
