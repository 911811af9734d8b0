package drill

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"time"
)

// Whom a fault hits, given the master before it.
type aim func(c *Cluster, master *Node, dice *rand.Rand) []*Node

func onMaster(_ *Cluster, m *Node, _ *rand.Rand) []*Node { return []*Node{m} }

// shuffled are all nodes but one, in some order.
func shuffled(c *Cluster, but *Node, dice *rand.Rand) []*Node {
	var ns []*Node
	for _, n := range c.Nodes {
		if n != but {
			ns = append(ns, n)
		}
	}
	dice.Shuffle(len(ns), func(i, j int) { ns[i], ns[j] = ns[j], ns[i] })
	return ns
}

func onFollower(c *Cluster, m *Node, dice *rand.Rand) []*Node { return shuffled(c, m, dice)[:1] }

// onMinority is the master with as many others as may fail.
func onMinority(c *Cluster, m *Node, dice *rand.Rand) []*Node {
	return append(shuffled(c, m, dice)[:(len(c.Nodes)-1)/2-1], m)
}

// onMajority is the smallest majority, the master in it or not.
func onMajority(c *Cluster, _ *Node, dice *rand.Rand) []*Node {
	return shuffled(c, nil, dice)[:len(c.Nodes)/2+1]
}

func onAll(c *Cluster, _ *Node, dice *rand.Rand) []*Node { return shuffled(c, nil, dice) }

// strike is a fault that does the same to each of the nodes it aims at, and heals them.
func strike(name string, outage bool, at aim, do func(*Node) error) func(*rand.Rand) Fault {
	return func(dice *rand.Rand) Fault {
		var hit []*Node
		return Fault{
			Name: name, Outage: outage,
			Break: func(_ context.Context, c *Cluster, m *Node) error {
				hit = at(c, m, dice)
				return c.eachOf(hit, func(n *Node) error {
					if !n.Running() {
						return nil // an earlier fault has killed it
					}
					return do(n)
				})
			},
			Mend: func(_ context.Context, c *Cluster, _ *Node) error { return c.eachOf(hit, (*Node).Heal) },
		}
	}
}

// killServer kills a mysqld, if there is one at this moment.
func killServer(n *Node) error {
	if _, err := n.ServerPID(); err != nil {
		return nil
	}
	return ignoreGone(n.KillServer())
}

// hangServer stops a mysqld where it is, if there is one at this moment.
func hangServer(n *Node) error {
	if _, err := n.ServerPID(); err != nil {
		return nil
	}
	return ignoreGone(n.PauseServer())
}

func pauseBoth(n *Node) error { return errors.Join(n.Pause(), hangServer(n)) }

func init() {
	brief, long := seconds(0.2, 3), seconds(1, 7)
	kill := func(name, text string, weight int, outage bool, at aim, do func(*Node) error) {
		Kinds = append(Kinds, Kind{Name: name, Family: "kill", Weight: weight, Hold: brief, Make: strike(text, outage, at, do)})
	}
	kill("kill-master", "kill the master's agent and mysqld", 20, false, onMaster, (*Node).KillAll)
	kill("kill-master-agent", "kill the master's agent", 10, false, onMaster, (*Node).KillAgent)
	kill("kill-master-mysqld", "kill the master's mysqld", 10, false, onMaster, killServer)
	kill("kill-follower", "kill a follower's agent and mysqld", 8, false, onFollower, (*Node).KillAll)
	kill("kill-follower-agent", "kill a follower's agent", 5, false, onFollower, (*Node).KillAgent)
	kill("kill-follower-mysqld", "kill a follower's mysqld", 5, false, onFollower, killServer)
	kill("kill-majority", "kill a majority", 8, true, onMajority, (*Node).KillAll)
	kill("kill-all", "kill all nodes", 8, true, onAll, (*Node).KillAll)
	kill("kill-all-mysqld", "kill every mysqld", 5, true, onAll, killServer)
	pause := func(name, text string, weight int, outage bool, at aim, do func(*Node) error) {
		Kinds = append(Kinds, Kind{Name: name, Family: "pause", Weight: weight, Hold: long, Make: strike(text, outage, at, do)})
	}
	pause("pause-master", "pause the master's agent", 10, false, onMaster, (*Node).Pause)
	pause("pause-master-node", "pause the master's agent and mysqld", 8, false, onMaster, pauseBoth)
	pause("pause-follower", "pause a follower's agent", 8, false, onFollower, (*Node).Pause)
	pause("pause-majority", "pause the agents of a majority", 6, true, onMajority, (*Node).Pause)
	pause("pause-all", "pause all agents and servers", 5, true, onAll, pauseBoth)
	Kinds = append(Kinds,
		Kind{Name: "hang-master-mysqld", Family: "hang", Weight: 8, Hold: seconds(4, 14), Make: strike("hang the master's mysqld", true, onMaster, hangServer)},
		Kind{Name: "hang-follower-mysqld", Family: "hang", Weight: 5, Hold: long, Make: strike("hang a follower's mysqld", false, onFollower, hangServer)},
		Kind{Name: "stutter-master", Family: "pause", Weight: 8, Hold: seconds(0, 0.5), Make: stutter},
		Kind{Name: "crawl-master", Family: "pause", Weight: 8, Hold: seconds(0, 1), Make: crawl},
		Kind{Name: "restart-master", Family: "orderly", Weight: 6, Hold: seconds(0, 1), Make: restartMaster},
		Kind{Name: "switchover", Family: "orderly", Weight: 10, Hold: seconds(0, 0.5), Make: switchOver},
	)
}

// stutter stops the master's agent for about as long as a lease, again and again.
func stutter(dice *rand.Rand) Fault {
	return Fault{
		Name: "pause the master's agent for about a lease, again and again", Outage: true,
		Break: func(ctx context.Context, _ *Cluster, m *Node) error {
			for range 3 + dice.IntN(3) {
				if err := m.pulse(ctx, time.Duration(500+dice.IntN(900))*time.Millisecond, time.Duration(50+dice.IntN(400))*time.Millisecond); err != nil {
					return err
				}
			}
			return nil
		},
		Mend: func(_ context.Context, _ *Cluster, m *Node) error { return m.Heal() },
	}
}

// crawl pauses the master's agent until another node has taken over, and then lets it go
// on for moments only, again and again: it finds the commands that clients have sent
// meanwhile, and that it is deposed, at about the same time.
func crawl(dice *rand.Rand) Fault {
	return Fault{
		Name: "pause the master's agent until another takes over, then let it crawl",
		Break: func(ctx context.Context, c *Cluster, m *Node) error {
			if !m.Running() {
				return nil
			}
			if err := m.ignoreEnd(m.Pause()); err != nil {
				return err
			}
			short, cancel := context.WithTimeout(ctx, takeoverLimit)
			defer cancel()
			_ = Eventually(short, func() error { return c.MasterBesides(short, m) }) // overlapping faults may prevent it
			wait(ctx, time.Duration(500+dice.IntN(2000))*time.Millisecond)           // clients see it, and use old connections
			for range 200 {
				if err := m.pulse(ctx, time.Duration(2+dice.IntN(10))*time.Millisecond, time.Duration(30+dice.IntN(470))*time.Microsecond); err != nil {
					return err
				}
			}
			return nil
		},
		Mend: func(_ context.Context, _ *Cluster, m *Node) error { return m.Heal() },
	}
}

// pulse stops the agent for a time and then lets it go on for a time. One that does not
// run, or ends meanwhile, is left alone.
func (n *Node) pulse(ctx context.Context, stopped, running time.Duration) error {
	if !n.Running() {
		return nil
	}
	if err := n.ignoreEnd(n.Pause()); err != nil {
		return err
	}
	wait(ctx, stopped)
	if err := n.ignoreEnd(n.Resume()); err != nil {
		return err
	}
	wait(ctx, running)
	return nil
}

// ignoreEnd drops the error of a signal to an agent that has ended by itself, as it does
// when its disk fails.
func (n *Node) ignoreEnd(err error) error {
	if errors.Is(err, os.ErrProcessDone) || !n.Running() {
		return nil
	}
	return err
}

// takeoverLimit is how long a fault waits for another node to take over.
const takeoverLimit = 20 * time.Second

// restartMaster stops the master as an operator does, and starts it again.
func restartMaster(*rand.Rand) Fault {
	return Fault{
		Name: "stop the master orderly",
		Break: func(ctx context.Context, _ *Cluster, m *Node) error {
			if !m.Running() || m.paused {
				return nil
			}
			return m.Stop(ctx)
		},
		Mend: func(_ context.Context, _ *Cluster, m *Node) error { return m.Heal() },
	}
}

// switchOver asks for another master. The cluster may refuse, with a reason.
func switchOver(dice *rand.Rand) Fault {
	return Fault{
		Name: "planned switchover",
		Break: func(ctx context.Context, c *Cluster, m *Node) error {
			_, err := c.Run(ctx, "switchover", "--to", nodeName(shuffled(c, m, dice)[0]))
			return refusal(err)
		},
	}
}
