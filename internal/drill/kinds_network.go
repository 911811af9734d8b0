package drill

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

// ways are directions in which packets are lost.
type ways [][2]*Node

func (w ways) cut() error {
	var errs []error
	for _, p := range w {
		errs = append(errs, p[0].Cut(p[1]))
	}
	return errors.Join(errs...)
}

func (w ways) restore() error {
	var errs []error
	for _, p := range w {
		errs = append(errs, p[0].Uncut(p[1]))
	}
	return errors.Join(errs...)
}

// between are all ways from one group to another, and back if both is true.
func between(as, bs []*Node, both bool) ways {
	var w ways
	for _, a := range as {
		for _, b := range bs {
			if a == b {
				continue
			}
			w = append(w, [2]*Node{a, b})
			if both {
				w = append(w, [2]*Node{b, a})
			}
		}
	}
	return w
}

// without are the nodes that are not in a group.
func (c *Cluster) without(group []*Node) []*Node {
	var out []*Node
	for _, n := range c.Nodes {
		in := false
		for _, g := range group {
			in = in || g == n
		}
		if !in {
			out = append(out, n)
		}
	}
	return out
}

// partition loses packets on the ways that it chooses.
func partition(name string, outage bool, choose func(*Cluster, *Node, *rand.Rand) ways) func(*rand.Rand) Fault {
	return func(dice *rand.Rand) Fault {
		var lost ways
		return Fault{
			Name: name, Outage: outage,
			Break: func(_ context.Context, c *Cluster, m *Node) error {
				lost = choose(c, m, dice)
				return lost.cut()
			},
			Mend: func(context.Context, *Cluster, *Node) error { return lost.restore() },
		}
	}
}

// apart cuts a group off from all others.
func apart(at aim) func(*Cluster, *Node, *rand.Rand) ways {
	return func(c *Cluster, m *Node, dice *rand.Rand) ways {
		group := at(c, m, dice)
		return between(group, c.without(group), true)
	}
}

func init() {
	add := func(name, text string, weight int, outage bool, choose func(*Cluster, *Node, *rand.Rand) ways) {
		Kinds = append(Kinds, Kind{Name: name, Family: "partition", Weight: weight, Hold: seconds(1, 8), Unfit: needsNamespaces, Make: partition(text, outage, choose)})
	}
	add("cut-master", "cut the master off from its peers", 14, false, apart(onMaster))
	add("cut-follower", "cut a follower off from its peers", 8, false, apart(onFollower))
	add("cut-minority", "cut a minority with the master off", 8, false, apart(onMinority))
	add("cut-all", "cut every node off from every other", 5, true, func(c *Cluster, _ *Node, _ *rand.Rand) ways { return between(c.Nodes, c.Nodes, false) })
	add("deaf-master", "the master hears nobody, and is heard", 8, true, func(c *Cluster, m *Node, _ *rand.Rand) ways { return between(c.without([]*Node{m}), []*Node{m}, false) })
	add("mute-master", "the master is not heard, and hears all", 8, true, func(c *Cluster, m *Node, _ *rand.Rand) ways { return between([]*Node{m}, c.without([]*Node{m}), false) })
	add("one-way", "one node does not hear one other", 8, true, func(c *Cluster, _ *Node, dice *rand.Rand) ways {
		return ways{[2]*Node(shuffled(c, nil, dice)[:2])}
	})
	add("bridge", "two halves that only one node sees", 8, true, func(c *Cluster, _ *Node, dice *rand.Rand) ways {
		ns := shuffled(c, nil, dice)
		half := len(ns) / 2
		return between(ns[:half], ns[half+1:], true)
	})
	Kinds = append(Kinds, Kind{Name: "flap", Family: "partition", Weight: 8, Hold: seconds(0, 0.5), Unfit: needsNamespaces, Make: flap})
}

// flap cuts the master off and lets it back, again and again.
func flap(dice *rand.Rand) Fault {
	return Fault{
		Name: "the master's network comes and goes", Outage: true,
		Break: func(ctx context.Context, c *Cluster, m *Node) error {
			w := between([]*Node{m}, c.without([]*Node{m}), true)
			for range 3 + dice.IntN(6) {
				if err := w.cut(); err != nil {
					return err
				}
				wait(ctx, time.Duration(100+dice.IntN(1500))*time.Millisecond)
				if err := w.restore(); err != nil {
					return err
				}
				wait(ctx, time.Duration(50+dice.IntN(800))*time.Millisecond)
			}
			return nil
		},
	}
}
