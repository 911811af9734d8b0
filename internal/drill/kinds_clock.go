package drill

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/phxsql/phxsql/internal/host"
)

// driftPPM is how much too fast or too slow a clock may be, in millionths, so that the rates
// of two of them differ by hardly less than the default of consensus.clock_error, 1 %.
const driftPPM = 4_950

// driftApart gives each clock a wrong rate, so that two of them are as far apart as is
// allowed. The rates stay until they are drawn again: no promise depends on them.
func driftApart(dice *rand.Rand) Fault {
	return Fault{
		Name: "clocks run at rates that are as far apart as is allowed",
		Break: func(_ context.Context, c *Cluster, _ *Node) error {
			var errs []error
			for i, n := range shuffled(c, nil, dice) {
				s := host.Skew{Ahead: n.skew.Ahead, PPM: dice.Int64N(2*driftPPM+1) - driftPPM}
				switch i {
				case 0:
					s.PPM = -driftPPM
				case 1:
					s.PPM = driftPPM
				}
				errs = append(errs, n.SetClock(s))
			}
			return errors.Join(errs...)
		},
	}
}

// jumpAhead has the master's clock jump ahead, by less than a lease or by much more. What
// only the leader believes to be over can harm nobody; a follower's jump would be a rate
// that is not allowed.
func jumpAhead(dice *rand.Rand) Fault {
	by := timeBetween(dice, 100*time.Millisecond, 2*time.Second)
	if dice.IntN(3) == 0 {
		by += timeBetween(dice, time.Minute, 48*time.Hour)
	}
	return Fault{
		Name: "the master's clock jumps ahead",
		Break: func(ctx context.Context, _ *Cluster, m *Node) error {
			if !m.isMaster(ctx) {
				return nil
			}
			return m.SetClock(host.Skew{PPM: m.skew.PPM, Ahead: m.skew.Ahead + by})
		},
	}
}

// slowClock has the master's clock run far slower than is allowed, and cuts it off: it
// believes in its lease while another has one.
func slowClock(dice *rand.Rand) Fault {
	var lost ways
	var hit *Node
	return Fault{
		Name: "the master's clock almost stands still, and the master is cut off",
		Break: func(_ context.Context, c *Cluster, m *Node) error {
			hit = m
			if c.net != nil {
				lost = between([]*Node{m}, c.without([]*Node{m}), true)
			}
			return errors.Join(m.SetClock(host.Skew{PPM: -900_000 - dice.Int64N(90_000), Ahead: m.skew.Ahead}), lost.cut())
		},
		Mend: func(context.Context, *Cluster, *Node) error {
			return errors.Join(hit.SetClock(host.Skew{Ahead: hit.skew.Ahead}), lost.restore())
		},
	}
}

func init() {
	add := func(name string, weight int, hold [2]time.Duration, make func(*rand.Rand) Fault) {
		Kinds = append(Kinds, Kind{Name: name, Family: "clock", Weight: weight, Hold: hold, Prepare: func(o *Options) { o.Clocks = true }, Make: make})
	}
	Kinds = append(Kinds, Kind{
		Name: "clock-slow-master", Family: "clock", Weight: 6, Hold: seconds(1, 4),
		Prepare: func(o *Options) { o.Clocks = true },
		Beyond:  "clocks differ in rate by no more than consensus.clock_error",
		Make:    slowClock,
	})
	add("clocks-drift", 6, seconds(1, 4), driftApart)
	add("clock-jumps-master", 6, seconds(0, 1), jumpAhead)
}
