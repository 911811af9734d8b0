package netlab

import (
	"fmt"
	"net"
	"os"
)

// Loopback is this process's own address on the loopback interface. All programs' connections
// come from 127.0.0.1: one of them could get the port of a server there while it is stopped, and
// keep it from coming back. On an address that nobody connects from, ports are free that were.
func Loopback() string {
	pid := os.Getpid()
	return fmt.Sprintf("127.%d.%d.%d", 1+pid>>16&0x3f, pid>>8&0xff, pid&0xff)
}

// FreePorts finds ports of an address that nobody listens on.
func FreePorts(host string, n int) ([]int, error) {
	var ports []int
	for range n {
		l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
		if err != nil {
			return nil, fmt.Errorf("find free port: %w", err)
		}
		defer l.Close() // after all were found: none comes twice
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}
