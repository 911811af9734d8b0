package node_test

import (
	"context"
	"fmt"
	"log"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/phxsql/phxsql/paxos"
	"github.com/phxsql/phxsql/paxos/node"
)

// counter adds up the numbers that are proposed. It lives in memory: after a
// restart all values are applied again.
type counter struct{ sum int }

func (*counter) Applied() paxos.Instance { return 0 }

func (c *counter) Apply(_ paxos.Instance, value []byte) any {
	n, _ := strconv.Atoi(string(value)) // what is no number counts nothing, on all members alike
	c.sum += n
	return c.sum
}

// Three nodes in one process replicate a counter.
func Example() {
	dir, err := os.MkdirTemp("", "counter")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)

	var listeners []net.Listener
	var members []paxos.Member
	for id := paxos.NodeID(1); id <= 3; id++ {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			log.Fatal(err)
		}
		listeners = append(listeners, l)
		members = append(members, paxos.Member{ID: id, Role: paxos.Voter, Addr: l.Addr().String()})
	}
	nodes := map[paxos.NodeID]*node.Node{}
	for i, m := range members {
		n, err := node.Open(node.Options{
			Dir: filepath.Join(dir, fmt.Sprint(m.ID)), ID: m.ID, Cluster: "counter", Members: members, Listener: listeners[i],
			Groups: []node.Group{{ID: 1, Machine: &counter{}}}, Insecure: true, SegmentSize: 1 << 20,
		})
		if err != nil {
			log.Fatal(err)
		}
		defer n.Close()
		nodes[m.ID] = n
	}

	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	leader, err := nodes[1].WaitLeader(ctx, 1)
	if err != nil {
		log.Fatal(err)
	}
	for _, v := range []string{"20", "22"} {
		_, sum, err := nodes[leader].Propose(ctx, 1, []byte(v))
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(sum)
	}
	// Output:
	// 20
	// 42
}
