package engine

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// suite is the only Debian suite that carries MySQL.
const suite = "unstable"

// keyrings are where Debian's archive keyring is, newest layout first.
var keyrings = []string{
	"/usr/share/keyrings/debian-archive-keyring.pgp",
	"/usr/share/keyrings/debian-archive-keyring.gpg",
}

// apt is a private apt: the system's mirror, proxies and credentials, but its
// own package lists, cache and (nearly empty) list of installed packages. It
// takes no lock of the system's and runs none of the system's hooks.
type apt struct {
	dir  string // holds everything below
	plat platform
}

// newApt prepares a private apt in dir, which must exist.
func newApt(ctx context.Context, dir string) (*apt, error) {
	plat, ok := platforms[runtime.GOARCH]
	if !ok || runtime.GOOS != "linux" {
		return nil, fmt.Errorf("fetch engine: no packages for %s/%s (hint: install MySQL or Percona Server >= 8.4, or name one with %s)",
			runtime.GOOS, runtime.GOARCH, EnvBasedir)
	}
	for _, tool := range []string{"apt-get", "apt-config", "dpkg-deb"} {
		if _, err := exec.LookPath(tool); err != nil {
			return nil, fmt.Errorf("fetch engine: this system has no %s (hint: install MySQL or Percona Server >= 8.4 with your system's package manager, or name one with %s)",
				tool, EnvBasedir)
		}
	}
	a := &apt{dir: dir, plat: plat}
	mirror, err := a.mirror(ctx)
	if err != nil {
		return nil, err
	}
	keyring := mirror.SignedBy
	for _, k := range keyrings {
		if _, err := os.Stat(k); keyring == "" && err == nil {
			keyring = k
		}
	}
	if keyring == "" {
		return nil, fmt.Errorf("fetch engine: Debian's archive keyring is missing (hint: install the package debian-archive-keyring)")
	}
	return a, a.write(mirror.line(suite, plat.debian, keyring))
}

// mirror finds the system's own Debian mirror.
func (a *apt) mirror(ctx context.Context) (source, error) {
	list, parts := "/etc/apt/sources.list", "/etc/apt/sources.list.d"
	out, err := exec.CommandContext(ctx, "apt-config", "shell",
		"LIST", "Dir::Etc::sourcelist/f", "PARTS", "Dir::Etc::sourceparts/d").Output()
	if err == nil {
		for line := range strings.Lines(string(out)) {
			k, v, _ := strings.Cut(strings.TrimSpace(line), "=")
			switch k {
			case "LIST":
				list = strings.Trim(v, "'")
			case "PARTS":
				parts = strings.Trim(v, "'")
			}
		}
	}
	release, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return source{}, fmt.Errorf("read the system's release: %w", err)
	}
	return pickMirror(readSources(list, parts), debianCodename(string(release)))
}

// write lays out the private apt. The settings are given with "-c", which apt
// reads after the system's own, so that they win.
func (a *apt) write(sourceLine string) error {
	for _, d := range []string{"state/lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(a.dir, d), 0o755); err != nil {
			return fmt.Errorf("prepare private apt: %w", err)
		}
	}
	files := map[string]string{
		"sources.list": sourceLine,
		"apt.conf":     a.config(),
		"state/status": a.pretendInstalled(),
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(a.dir, name), []byte(text), 0o644); err != nil {
			return fmt.Errorf("prepare private apt: %w", err)
		}
	}
	return nil
}

func (a *apt) config() string {
	var b strings.Builder
	for _, name := range []string{
		"APT::Update::Pre-Invoke", "APT::Update::Post-Invoke", "APT::Update::Post-Invoke-Success",
		"DPkg::Pre-Invoke", "DPkg::Post-Invoke", "DPkg::Pre-Install-Pkgs", "APT::Default-Release",
		"Acquire::IndexTargets::deb::DEP-11", "Acquire::IndexTargets::deb::DEP-11-icons",
		"Acquire::IndexTargets::deb::DEP-11-icons-small", "Acquire::IndexTargets::deb::DEP-11-icons-large",
		"Acquire::IndexTargets::deb::DEP-11-icons-hidpi", "Acquire::IndexTargets::deb::DEP-11-icons-large-hidpi",
		"Acquire::IndexTargets::deb::CNF", "Acquire::IndexTargets::deb::Contents-deb",
	} {
		fmt.Fprintf(&b, "#clear %s;\n", name)
	}
	set := func(name, value string) { fmt.Fprintf(&b, "%s \"%s\";\n", name, value) }
	set("Dir::State", filepath.Join(a.dir, "state"))
	set("Dir::State::status", filepath.Join(a.dir, "state/status"))
	set("Dir::Cache", filepath.Join(a.dir, "cache"))
	set("Dir::Etc::sourcelist", filepath.Join(a.dir, "sources.list"))
	for _, name := range []string{"sourceparts", "preferences", "preferencesparts", "trusted", "trustedparts"} {
		set("Dir::Etc::"+name, "/dev/null")
	}
	set("Debug::NoLocking", "1")
	set("APT::Install-Recommends", "0")
	set("APT::Get::Assume-Yes", "1")
	set("Acquire::Languages", "none")
	set("Acquire::Retries", "3")
	if os.Geteuid() == 0 {
		// The downloader's own user may not enter the cache directory.
		set("APT::Sandbox::User", "root")
	}
	return b.String()
}

// pretendInstalled is the private list of installed packages. The server's
// package wants perl for helper scripts that are not used here.
func (a *apt) pretendInstalled() string {
	var b strings.Builder
	for _, name := range []string{"perl", "perl-base"} {
		fmt.Fprintf(&b, "Package: %s\nStatus: install ok installed\nArchitecture: %s\nMulti-Arch: allowed\n"+
			"Version: 99\nMaintainer: nobody\nDescription: not needed\n\n", name, a.plat.debian)
	}
	return b.String()
}

// download brings the packages and all they need into the private cache and
// returns the files' names.
func (a *apt) download(ctx context.Context, o Options, packages []string) ([]string, error) {
	o.progress("reading the package list of Debian %s from this system's mirror", suite)
	if err := a.run(ctx, o, "update"); err != nil {
		return nil, err
	}
	args := append([]string{"--download-only", "install"}, packages...)
	if err := a.run(ctx, o, args...); err != nil {
		return nil, err
	}
	debs, err := filepath.Glob(filepath.Join(a.dir, "cache/archives/*.deb"))
	if err != nil || len(debs) == 0 {
		return nil, fmt.Errorf("download %s: apt left no packages", strings.Join(packages, ", "))
	}
	return debs, nil
}

// run runs apt-get. An update that only half worked is an error.
func (a *apt) run(ctx context.Context, o Options, args ...string) error {
	args = append([]string{"-c", filepath.Join(a.dir, "apt.conf"), "-q", "-o", "APT::Update::Error-Mode=any"}, args...)
	cmd := exec.CommandContext(ctx, "apt-get", args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("run apt-get: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("run apt-get: %w", err)
	}
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		if size, ok := strings.CutPrefix(lines.Text(), "Need to get "); ok {
			o.progress("downloading %s", strings.TrimSuffix(size, "."))
		}
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("run apt-get: %w: %s (hint: see that this machine reaches its apt mirror, or install MySQL or Percona Server >= 8.4)",
			err, lastLines(stderr.String(), 5))
	}
	return nil
}

// lastLines joins the last n lines of text for use in an error.
func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "; ")
}
