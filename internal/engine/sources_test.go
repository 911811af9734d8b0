package engine

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseList(t *testing.T) {
	got := parseList(`# comment
deb http://mirror.example/debian bookworm main contrib # tail
deb [arch=amd64 signed-by=/etc/keys/a.gpg] https://mirror.example/debian trixie main
deb-src http://mirror.example/debian bookworm main
deb [broken http://mirror.example/debian bookworm main
deb
debian is not an entry
deb http://mirror.example/flat ./
deb mirror+file:/etc/apt/mirrors/debian.list bookworm main
`)
	want := []source{
		{URI: "http://mirror.example/debian", Suite: "bookworm", Components: []string{"main", "contrib"}},
		{URI: "https://mirror.example/debian", Suite: "trixie", Components: []string{"main"}, SignedBy: "/etc/keys/a.gpg"},
		{URI: "mirror+file:/etc/apt/mirrors/debian.list", Suite: "bookworm", Components: []string{"main"}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestParseDeb822(t *testing.T) {
	got := parseDeb822(`# a comment
Types: deb deb-src
# inside a stanza too
URIs: http://a.example/debian
  http://b.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
Enabled: no
URIs: http://off.example/debian
Suites: bookworm
Components: main

Types: deb-src
URIs: http://src.example/debian
Suites: bookworm
Components: main

types: deb
uris: http://inline.example/debian
suites: trixie
components: main
signed-by:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mQINBF
 -----END PGP PUBLIC KEY BLOCK-----
`)
	const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
	main := []string{"main"}
	want := []source{
		{"http://a.example/debian", "bookworm", main, keyring},
		{"http://a.example/debian", "bookworm-updates", main, keyring},
		{"http://b.example/debian", "bookworm", main, keyring},
		{"http://b.example/debian", "bookworm-updates", main, keyring},
		{"http://inline.example/debian", "trixie", main, ""},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestPickMirrorTakesTheMainArchive(t *testing.T) {
	main := []string{"main"}
	sources := []source{
		{URI: "cdrom:[Debian]/", Suite: "bookworm", Components: main},
		{URI: "http://sec.example/debian-security", Suite: "bookworm-security", Components: main},
		{URI: "http://third.example/party", Suite: "bookworm", Components: []string{"pkgs"}},
		{URI: "http://a.example/debian", Suite: "bookworm-updates", Components: main},
		{URI: "http://a.example/debian", Suite: "bookworm", Components: main},
	}
	s, err := pickMirror(sources, "bookworm")
	if err != nil || s.URI != "http://a.example/debian" || s.Suite != "bookworm" {
		t.Errorf("picked %+v, %v", s, err)
	}
	if s, err := pickMirror(sources, ""); err == nil {
		t.Errorf("another system's mirror was picked: %+v", s)
	}
	want := "deb [arch=amd64 signed-by=/k.gpg] http://a.example/debian unstable main\n"
	if got := s.line("unstable", "amd64", "/k.gpg"); got != want {
		t.Errorf("line %q, want %q", got, want)
	}
}

func TestDebianCodename(t *testing.T) {
	for text, want := range map[string]string{
		"ID=debian\nVERSION_CODENAME=bookworm\n":              "bookworm",
		"ID=\"debian\"\nVERSION_CODENAME='trixie'\n":          "trixie",
		"ID=ubuntu\nID_LIKE=debian\nVERSION_CODENAME=noble\n": "",
		"": "",
	} {
		if got := debianCodename(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func FuzzSources(f *testing.F) {
	f.Add("deb [a=b] http://x y main\nTypes: deb\nURIs: x\nSuites: y\n z\n")
	f.Fuzz(func(t *testing.T, text string) {
		for _, s := range append(parseList(text), parseDeb822(text)...) {
			if s.URI == "" || s.Suite == "" {
				t.Errorf("an entry without address or suite: %+v", s)
			}
		}
	})
}
