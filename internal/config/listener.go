package config

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// PortHolder names the process that listens on a TCP port, such as
// "mysqld (pid 42)". It is empty if that cannot be told: a process of another
// user, or no /proc.
func PortHolder(port string) string {
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return ""
	}
	inodes := map[string]bool{}
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		data, err := os.ReadFile(table)
		if err != nil {
			continue
		}
		listeningInodes(data, uint16(n), inodes)
	}
	if len(inodes) == 0 {
		return ""
	}
	links, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, link := range links {
		to, err := os.Readlink(link)
		if err != nil || !inodes[to] {
			continue
		}
		proc := filepath.Dir(filepath.Dir(link))
		name, err := os.ReadFile(filepath.Join(proc, "comm"))
		if err != nil {
			continue
		}
		return fmt.Sprintf("%s (pid %s)", bytes.TrimSpace(name), filepath.Base(proc))
	}
	return ""
}

// listeningInodes adds the sockets of a table of /proc/net that listen on the
// port, written as links in /proc/PID/fd are. Columns: number, local address,
// remote address, state (0A listens), queues, timer, retransmits, user, timeout,
// inode.
func listeningInodes(table []byte, port uint16, into map[string]bool) {
	suffix := fmt.Sprintf(":%04X", port)
	for line := range strings.Lines(string(table)) {
		f := strings.Fields(line)
		if len(f) > 9 && f[3] == "0A" && strings.HasSuffix(f[1], suffix) {
			into["socket:["+f[9]+"]"] = true
		}
	}
}
