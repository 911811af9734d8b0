package drill

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/phxsql/phxsql/internal/api"
)

// errNotYet says that what is waited for has not come.
var errNotYet = errors.New("not yet")

// The kinds that kill at a certain moment of something else.
func init() {
	brief := seconds(0.2, 3)
	Kinds = append(Kinds,
		Kind{Name: "kill-new-master", Family: "kill", Weight: 10, Hold: brief, Make: killNewMaster},
		Kind{Name: "kill-while-starting", Family: "kill", Weight: 10, Hold: brief, Make: killWhileStarting},
		Kind{Name: "kill-while-rejoining", Family: "kill", Weight: 8, Hold: brief, Make: killWhileRejoining},
		Kind{Name: "stop-while-starting", Family: "orderly", Weight: 5, Hold: brief, Make: stopWhileStarting},
		Kind{Name: "kill-in-switchover", Family: "kill", Weight: 8, Hold: brief, Make: killInSwitchover},
	)
}

// killNewMaster kills the master, and some moments later, while another one is on its
// way, the one that is most likely that.
func killNewMaster(dice *rand.Rand) Fault {
	return Fault{
		Name: "kill the master, and its heir during promotion", Outage: true,
		Break: func(ctx context.Context, c *Cluster, m *Node) error {
			if err := m.KillAll(); err != nil {
				return err
			}
			until := time.Now().Add(time.Duration(dice.IntN(4000)) * time.Millisecond)
			heir := shuffled(c, m, dice)[0]
			for time.Now().Before(until) && ctx.Err() == nil {
				if n := c.promoting(ctx, m); n != nil {
					heir = n
					break
				}
				wait(ctx, 10*time.Millisecond)
			}
			return heir.KillAll()
		},
		Mend: func(_ context.Context, c *Cluster, _ *Node) error { return c.each((*Node).Heal) },
	}
}

// killWhileStarting kills a node, and again each time when it has just been started.
func killWhileStarting(dice *rand.Rand) Fault {
	return Fault{
		Name: "kill the master, and again while it starts", Outage: true,
		Break: func(ctx context.Context, _ *Cluster, m *Node) error {
			for range 1 + dice.IntN(3) {
				if err := m.KillAll(); err != nil {
					return err
				}
				if err := m.Start(); err != nil {
					return err
				}
				wait(ctx, time.Duration(dice.IntN(2500))*time.Millisecond)
			}
			return m.KillAll()
		},
		Mend: func(_ context.Context, _ *Cluster, m *Node) error { return m.Heal() },
	}
}

// stopWhileStarting kills a node, and asks it to stop while it starts. It must end in time.
func stopWhileStarting(dice *rand.Rand) Fault {
	var hit *Node
	return Fault{
		Name: "kill a node, and stop it orderly while it starts", Outage: true,
		Break: func(ctx context.Context, c *Cluster, _ *Node) error {
			hit = shuffled(c, nil, dice)[0]
			if err := hit.KillAll(); err != nil {
				return err
			}
			if err := hit.Start(); err != nil {
				return err
			}
			wait(ctx, time.Duration(dice.IntN(2500))*time.Millisecond)
			if !hit.Running() { // its disk fails
				return nil
			}
			return hit.Stop(ctx)
		},
		Mend: func(context.Context, *Cluster, *Node) error { return hit.Heal() },
	}
}

// killWhileRejoining kills a follower, lets it fall behind, and kills it again each time
// when its server has come up and replicates what it lacks.
func killWhileRejoining(dice *rand.Rand) Fault {
	var hit *Node
	return Fault{
		Name: "kill a follower, and again each time while it catches up",
		Break: func(ctx context.Context, c *Cluster, m *Node) error {
			hit = onFollower(c, m, dice)[0]
			for range 1 + dice.IntN(3) {
				if err := hit.KillAll(); err != nil {
					return err
				}
				wait(ctx, time.Duration(500+dice.IntN(2000))*time.Millisecond)
				if err := hit.Start(); err != nil {
					return err
				}
				hit.waitRejoining(ctx, 8*time.Second)
				wait(ctx, time.Duration(dice.IntN(700))*time.Millisecond)
			}
			return hit.KillAll()
		},
		Mend: func(context.Context, *Cluster, *Node) error { return hit.Heal() },
	}
}

// waitRejoining waits until the node's server runs again and follows, or for so long.
func (n *Node) waitRejoining(ctx context.Context, limit time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	_ = Eventually(ctx, func() error { // what does not come up in time is killed as it is
		m, err := n.self(ctx)
		if err == nil && m.State != api.StateFollower && m.State != api.StateMaster {
			return errNotYet
		}
		return err
	})
}

// killInSwitchover asks for another master and kills the old or the new one meanwhile.
func killInSwitchover(dice *rand.Rand) Fault {
	var hit *Node
	return Fault{
		Name: "kill the master or its heir during a switchover", Outage: true,
		Break: func(ctx context.Context, c *Cluster, m *Node) error {
			heir := shuffled(c, m, dice)[0]
			if hit = m; dice.IntN(2) == 0 {
				hit = heir
			}
			delay := time.Duration(dice.IntN(600)) * time.Millisecond
			ctx, cancel := context.WithCancel(ctx)
			done := make(chan struct{})
			go func() {
				defer close(done)
				_, _ = c.Run(ctx, "switchover", "--to", nodeName(heir)) // whatever becomes of it
			}()
			wait(ctx, delay)
			err := hit.KillAll()
			cancel()
			<-done
			return err
		},
		Mend: func(context.Context, *Cluster, *Node) error { return hit.Heal() },
	}
}
