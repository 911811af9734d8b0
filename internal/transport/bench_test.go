package transport

import (
	"fmt"
	"testing"

	"github.com/phxsql/phxsql/paxos"
)

// counter is a handler that returns a token for every message.
type counter struct{ tokens chan struct{} }

func (c *counter) HandleMessages(_ paxos.NodeID, _ paxos.Group, msgs []paxos.Message) {
	for range msgs {
		<-c.tokens
	}
}

func (c *counter) HandleApp(paxos.NodeID, []byte) { <-c.tokens }

// benchPair returns a node that sends to node 2, and the tokens that bound what is
// in flight.
func benchPair(b *testing.B, insecure bool, inFlight int) (*node, chan struct{}) {
	tokens := make(chan struct{}, inFlight)
	var nodes [2]*Transport
	for i := range nodes {
		opt := options(b, paxos.NodeID(i+1))
		opt.PingEvery = 0
		if insecure {
			opt.Credentials, opt.Insecure = nil, true
		}
		tr, err := New(opt)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { tr.Close() })
		if err := tr.Start(&counter{tokens}); err != nil {
			b.Fatal(err)
		}
		nodes[i] = tr
	}
	one := &node{Transport: nodes[0]}
	one.SetPeers([]Peer{{ID: 2, Addr: nodes[1].Addr().String()}})
	waitPeer(b, one, 2, func(s PeerStatus) bool { return s.Connected })
	return one, tokens
}

func modeName(insecure bool) string {
	if insecure {
		return "insecure"
	}
	return "tls"
}

// BenchmarkMessages sends messages of one entry each, in batches; one operation is
// one message sent, received and handled.
func BenchmarkMessages(b *testing.B) {
	for _, insecure := range []bool{false, true} {
		for _, size := range []int{100, 1000, 64 << 10} {
			for _, n := range []int{1, 64} {
				b.Run(fmt.Sprintf("%s/size=%d/batch=%d", modeName(insecure), size, n), func(b *testing.B) {
					one, tokens := benchPair(b, insecure, min(4096, (8<<20)/size))
					msgs := accepts(1, 2, n, size)
					b.SetBytes(int64(size))
					b.ReportAllocs()
					for i := 0; b.Loop(); i++ {
						tokens <- struct{}{}
						if i%n == n-1 {
							one.Send(2, 0, msgs)
						}
					}
				})
			}
		}
	}
}

// BenchmarkLatency sends one message when the one before it was handled: one
// operation is the way of a message from Send to the handler.
func BenchmarkLatency(b *testing.B) {
	for _, insecure := range []bool{false, true} {
		b.Run(modeName(insecure), func(b *testing.B) {
			one, tokens := benchPair(b, insecure, 1)
			msgs := accepts(1, 2, 1, 100)
			b.ReportAllocs()
			for b.Loop() {
				tokens <- struct{}{}
				one.Send(2, 0, msgs)
			}
		})
	}
}
