package drill

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/phxsql/phxsql/internal/netlab"
)

// shapes draws what a node's link does to what it sends and what it receives.
type shapes func(dice *rand.Rand) (out, in netlab.Shape)

// timeBetween draws a time.
func timeBetween(dice *rand.Rand, from, to time.Duration) time.Duration {
	return from + time.Duration(dice.Int64N(int64(to-from)))
}

// slow delays what is sent and received by as much.
func slow(from, to time.Duration) shapes {
	return func(dice *rand.Rand) (netlab.Shape, netlab.Shape) {
		s := netlab.Shape{Delay: timeBetween(dice, from, to)}
		return s, s
	}
}

// oneWay shapes only what is sent, or only what is received.
func oneWay(make shapes) shapes {
	return func(dice *rand.Rand) (out, in netlab.Shape) {
		out, in = make(dice)
		if dice.IntN(2) == 0 {
			return out, netlab.Shape{}
		}
		return netlab.Shape{}, in
	}
}

// thin lets only so many bytes per second through.
func thin(dice *rand.Rand) (out, in netlab.Shape) {
	s := netlab.Shape{Rate: 32<<10 + dice.IntN(480<<10)}
	return s, s
}

// lossy loses a part of the packets.
func lossy(dice *rand.Rand) (out, in netlab.Shape) {
	s := netlab.Shape{Loss: 0.05 + dice.Float64()/4}
	return s, s
}

// shapeLinks shapes the links of the nodes that it aims at.
func shapeLinks(name string, outage bool, at aim, how shapes) func(*rand.Rand) Fault {
	return func(dice *rand.Rand) Fault {
		var hit []*Node
		return Fault{
			Name: name, Outage: outage,
			Break: func(_ context.Context, c *Cluster, m *Node) error {
				hit = at(c, m, dice)
				var errs []error
				for _, n := range hit {
					errs = append(errs, n.Shape(how(dice)))
				}
				return errors.Join(errs...)
			},
			Mend: func(context.Context, *Cluster, *Node) error { return unshape(hit) },
		}
	}
}

func unshape(nodes []*Node) error {
	var errs []error
	for _, n := range nodes {
		errs = append(errs, n.Shape(netlab.Shape{}, netlab.Shape{}))
	}
	return errors.Join(errs...)
}

// swing makes the master's link slow and fast again, in turns of about a lease.
func swing(dice *rand.Rand) Fault {
	return Fault{
		Name: "the master's link becomes slow and fast again, in turns", Outage: true,
		Break: func(ctx context.Context, _ *Cluster, m *Node) error {
			for range 3 + dice.IntN(4) {
				if err := m.Shape(slow(100*time.Millisecond, 1500*time.Millisecond)(dice)); err != nil {
					return err
				}
				wait(ctx, timeBetween(dice, 200*time.Millisecond, 1500*time.Millisecond))
				if err := unshape([]*Node{m}); err != nil {
					return err
				}
				wait(ctx, timeBetween(dice, 50*time.Millisecond, 800*time.Millisecond))
			}
			return nil
		},
	}
}

func init() {
	add := func(name, text string, weight int, outage bool, at aim, how shapes) {
		Kinds = append(Kinds, Kind{Name: name, Family: "link", Weight: weight, Hold: seconds(2, 8), Unfit: needsNamespaces, Make: shapeLinks(text, outage, at, how)})
	}
	ms := time.Millisecond
	add("slow-link-master", "the master's link is slow", 6, false, onMaster, slow(5*ms, 100*ms))
	add("slower-link-master", "the master's link is slower than leases bear", 5, true, onMaster, slow(200*ms, 2000*ms))
	add("slow-way-master", "the master's link is slow in one direction", 6, true, onMaster, oneWay(slow(100*ms, 1500*ms)))
	add("slow-link-follower", "a follower's link is slow", 4, false, onFollower, slow(20*ms, 1000*ms))
	add("slow-links", "all links are slow", 5, false, onAll, slow(5*ms, 60*ms))
	add("thin-link-master", "the master's link is thin", 5, true, onMaster, thin)
	add("thin-link-follower", "a follower's link is thin", 4, false, onFollower, thin)
	add("lossy-link-master", "the master's link loses packets", 5, true, onMaster, lossy)
	add("lossy-links", "all links lose packets", 4, true, onAll, lossy)
	Kinds = append(Kinds, Kind{Name: "swing-link-master", Family: "link", Weight: 6, Hold: seconds(0, 0.5), Unfit: needsNamespaces, Make: swing})
}
