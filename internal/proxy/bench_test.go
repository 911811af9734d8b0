package proxy

import (
	"io"
	"net"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// The benchmarks compare ways to a server that answers a point select: directly
// over its Unix socket, through a relay that is two io.Copy, through the proxy,
// and through two proxies (a hop).

func BenchmarkPointSelect(b *testing.B) {
	socket := echoServer(b)
	relay := naiveRelay(b, socket)
	master := startNode(b, testOptions(socket))
	master.SetRoute(Local())
	other := startNode(b, testOptions("/nowhere"))
	other.SetRoute(Remote(master.rw))
	relay2 := naiveRelayTo(b, "tcp", relay)
	for _, way := range []struct{ name, network, addr string }{
		{"unix", "unix", socket},
		{"relay", "tcp", relay},
		{"proxy", "tcp", master.rw},
		{"relay-relay", "tcp", relay2},
		{"proxy-hop", "tcp", other.rw},
	} {
		b.Run(way.name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetParallelism(8)
			start := cpuTime(b)
			b.RunParallel(func(pb *testing.PB) { pingPong(b, way.network, way.addr, pb.Next) })
			b.ReportMetric(float64(cpuTime(b)-start)/float64(b.N), "cpu-ns/op")
		})
	}
}

// BenchmarkBulk brings large results to the client.
func BenchmarkBulk(b *testing.B) {
	socket := bulkServer(b)
	master := startNode(b, testOptions(socket))
	master.SetRoute(Local())
	other := startNode(b, testOptions("/nowhere"))
	other.SetRoute(Remote(master.rw))
	relay := naiveRelay(b, socket)
	for _, way := range []struct{ name, network, addr string }{
		{"unix", "unix", socket},
		{"relay", "tcp", relay},
		{"proxy", "tcp", master.rw},
		{"relay-relay", "tcp", naiveRelayTo(b, "tcp", relay)},
		{"proxy-hop", "tcp", other.rw},
	} {
		b.Run(way.name, func(b *testing.B) {
			c := benchLogin(b, way.network, way.addr)
			b.SetBytes(int64(len(bulkAnswer)))
			buf := make([]byte, 1<<16)
			for b.Loop() {
				write(b, c, pointSelect)
				for left := len(bulkAnswer); left > 0; {
					n, err := c.Read(buf)
					if err != nil {
						b.Fatal(err)
					}
					left -= n
				}
			}
		})
	}
}

// BenchmarkFollow is the cost of following alone, per answer.
func BenchmarkFollow(b *testing.B) {
	for _, c := range []struct {
		name   string
		answer []byte
	}{{"point select", pointAnswer}, {"1 MiB of 120-byte rows", bulkAnswer}} {
		b.Run(c.name, func(b *testing.B) {
			k := loggedInTalk(b, capsNew)
			b.SetBytes(int64(len(c.answer)))
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := k.followClient(pointSelect); err != nil {
					b.Fatal(err)
				}
				for rest := c.answer; len(rest) > 0; {
					n := min(16<<10, len(rest))
					k.followServer(rest[:n])
					rest = rest[n:]
				}
			}
			if !k.idle() {
				b.Fatal("not idle")
			}
		})
	}
}

// cpuTime is the process's CPU time in nanoseconds: client, proxy and server, but
// not what else the machine does.
func cpuTime(b *testing.B) int64 {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}

var (
	pointSelect = command(comQuery, "SELECT c FROM sbtest1 WHERE id=12345")
	pointAnswer = concat(appendPacket(nil, 1, []byte{1}), columnPacket(2), rowPacket(3, string(make([]byte, 119))), endPacket(4, 2))
	bulkAnswer  = func() []byte {
		b := concat(appendPacket(nil, 1, []byte{1}), columnPacket(2))
		for seq := byte(3); len(b) < 1<<20; seq++ {
			b = append(b, rowPacket(seq, string(make([]byte, 119)))...)
		}
		return append(b, endPacket(0, 2)...)
	}()
)

// pingPong sends a select and reads its answer, again and again.
func pingPong(b *testing.B, network, addr string, next func() bool) {
	c := benchLogin(b, network, addr)
	defer c.Close()
	buf := make([]byte, len(pointAnswer))
	for next() {
		if _, err := c.Write(pointSelect); err != nil {
			b.Error(err)
			return
		}
		if _, err := io.ReadFull(c, buf); err != nil {
			b.Error(err)
			return
		}
	}
}

func benchLogin(b *testing.B, network, addr string) net.Conn {
	c, err := net.Dial(network, addr)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = c.Close() })
	readPacket(b, c)
	write(b, c, loginResponse(capsNew, pluginCaching))
	readPacket(b, c)
	return c
}

func echoServer(b *testing.B) string { return answeringServer(b, pointAnswer) }
func bulkServer(b *testing.B) string { return answeringServer(b, bulkAnswer) }

// answeringServer greets, accepts every login and gives one answer to everything.
func answeringServer(b *testing.B, answer []byte) string {
	socket := filepath.Join(b.TempDir(), "s")
	ln := listen(b, "unix", socket)
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				buf := make([]byte, 1024)
				_, _ = c.Write(greetingPacket(1, capsNew, pluginCaching))
				_, _ = c.Read(buf)
				_, _ = c.Write(okPacket(2, 2))
				for {
					if _, err := c.Read(buf); err != nil {
						return
					}
					if _, err := c.Write(answer); err != nil {
						return
					}
				}
			}()
		}
	}()
	return socket
}

func naiveRelay(b *testing.B, socket string) string { return naiveRelayTo(b, "unix", socket) }

func naiveRelayTo(b *testing.B, network, addr string) string {
	ln := listen(b, "tcp", "127.0.0.1:0")
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go relayOne(c, network, addr)
		}
	}()
	return ln.Addr().String()
}

func relayOne(c net.Conn, network, addr string) {
	defer c.Close()
	s, err := net.Dial(network, addr)
	if err != nil {
		return
	}
	defer s.Close()
	var both sync.WaitGroup
	both.Go(func() { _, _ = io.Copy(s, c); _ = s.(halfCloser).CloseWrite() })
	both.Go(func() { _, _ = io.Copy(c, s); _ = c.(halfCloser).CloseWrite() })
	both.Wait()
}
