package drill

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// LoseData kills the node and removes what its server held; the log stays.
func (n *Node) LoseData() error {
	if err := n.KillAll(); err != nil {
		return err
	}
	n.bare = true
	if err := removeAll(filepath.Join(n.dir, DataPart)); err != nil {
		return fmt.Errorf("remove data of node %d: %w", n.ID, err)
	}
	return nil
}

// removeAll is os.RemoveAll for what a process that was just killed may still be ending
// its writes to.
func removeAll(path string) error {
	ctx, cancel := context.WithTimeout(context.Background(), stopLimit)
	defer cancel()
	return Eventually(ctx, func() error { return os.RemoveAll(path) })
}

// loseData removes the data of a node; the node must get them back by itself, from its
// log or from another node. While another one has not got its own back, nothing is removed:
// what all have lost nobody can give back.
func loseData(name string, at aim) func(*rand.Rand) Fault {
	return func(dice *rand.Rand) Fault {
		var hit []*Node
		return Fault{
			Name: name,
			Break: func(_ context.Context, c *Cluster, m *Node) error {
				hit = at(c, m, dice)
				if slices.ContainsFunc(c.Nodes, func(n *Node) bool { return n.bare }) {
					return refusal(errors.New("another node has not got its data back yet"))
				}
				return c.eachOf(hit, (*Node).LoseData)
			},
			Mend: func(_ context.Context, c *Cluster, _ *Node) error { return c.eachOf(hit, (*Node).Heal) },
		}
	}
}

// crowdSize is the most connections that a crowd opens.
const crowdSize = 400

// crowdConnections is the size of the servers' connection tables where there are crowds,
// for each node: more than the drill's own clients need, which are as many on each port.
const crowdConnections = 50

// crowd connects to the master until its server takes nobody any more, and stays. By
// chance the master is killed then, while its table is full.
func crowd(dice *rand.Rand) Fault {
	leave := func() {}
	return Fault{
		Name: "a crowd takes every connection of the master",
		Break: func(ctx context.Context, c *Cluster, m *Node) error {
			var err error
			if leave, err = c.crowdInto(ctx, m); err != nil {
				return err
			}
			if dice.IntN(2) == 0 {
				wait(ctx, time.Duration(dice.IntN(1000))*time.Millisecond)
				return m.KillAll()
			}
			return nil
		},
		Mend: func(_ context.Context, _ *Cluster, m *Node) error {
			leave()
			return m.Heal()
		},
	}
}

// crowdInto opens connections to a node until one is refused, and returns how they leave.
// A node that is down or paused has no crowd.
func (c *Cluster) crowdInto(ctx context.Context, n *Node) (func(), error) {
	db, err := c.Open(n.RW, "")
	if err != nil {
		return nil, err
	}
	var crowd []*sql.Conn
	leave := func() {
		for _, conn := range crowd {
			_ = conn.Close()
		}
		_ = db.Close()
	}
	if !n.Running() || n.paused {
		return leave, nil
	}
	ctx, cancel := context.WithTimeout(ctx, crowdLimit)
	defer cancel()
	for range crowdSize {
		conn, err := db.Conn(ctx)
		if err != nil {
			break // refused, or there is no master now
		}
		crowd = append(crowd, conn)
	}
	return leave, nil
}

// crowdLimit bounds how long a crowd comes.
const crowdLimit = 5 * time.Second

func init() {
	brief := seconds(0.2, 3)
	Kinds = append(Kinds,
		Kind{Name: "lose-data-follower", Family: "data", Weight: 4, Hold: brief, Make: loseData("a follower loses its data directory", onFollower)},
		Kind{Name: "lose-data-master", Family: "data", Weight: 4, Hold: brief, Make: loseData("the master loses its data directory", onMaster)},
		Kind{
			Name: "crowd", Family: "crowd", Weight: 6, Hold: seconds(1, 5), Make: crowd,
			Prepare: func(o *Options) {
				o.Extra = fmt.Sprintf("max_connections = %d\n", crowdConnections*o.Nodes) + o.Extra
			},
		},
	)
}
