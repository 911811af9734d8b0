package drill

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/phxsql/phxsql/internal/powerloss"
)

// The faults of disks. All of them need Options.Disks.
var (
	MasterLosesPower = loseThePower("the master loses power", false, onMaster)(nil)
	AllLosePower     = loseThePower("all nodes lose power at once", true, onAll)(nil)
	MasterLogSticks  = breakDisk("the disk of the master's log sticks", LogPart, powerloss.Fault{Stuck: true}, onMaster)(nil)
	MasterDataSticks = breakDisk("the disk of the master's data sticks", DataPart, powerloss.Fault{Stuck: true}, onMaster)(nil)
	MasterLogFills   = breakDisk("the disk of the master's log is full", LogPart, powerloss.Fault{Full: true}, onMaster)(nil)
	MasterDataFills  = breakDisk("the disk of the master's data is full", DataPart, powerloss.Fault{Full: true}, onMaster)(nil)
)

// loseThePower cuts the power of the nodes that it aims at. Half of the time everything
// that was not synced is gone, else a part of it.
func loseThePower(name string, outage bool, at aim) func(*rand.Rand) Fault {
	return func(dice *rand.Rand) Fault {
		var hit []*Node
		return Fault{
			Name: name, Outage: outage,
			Break: func(_ context.Context, c *Cluster, m *Node) error {
				hit = at(c, m, fair(dice))
				chance := dice
				if dice != nil && dice.IntN(2) == 0 {
					chance = nil
				}
				return c.LosePower(hit, chance)
			},
			Mend: func(_ context.Context, c *Cluster, _ *Node) error { return c.eachOf(hit, (*Node).Heal) },
		}
	}
}

// fair are dice for who has none and does not mind.
func fair(dice *rand.Rand) *rand.Rand {
	if dice == nil {
		return rand.New(rand.NewPCG(1, 1))
	}
	return dice
}

// breakDisk does something to a part of the disks of the nodes that it aims at.
func breakDisk(name, part string, f powerloss.Fault, at aim) func(*rand.Rand) Fault {
	return func(dice *rand.Rand) Fault {
		var hit []*Node
		return Fault{
			Name: name, Outage: true,
			Break: func(_ context.Context, c *Cluster, m *Node) error {
				hit = at(c, m, fair(dice))
				for _, n := range hit {
					if n.disk != nil { // a node that was added has none
						n.disk.Set(part, f)
					}
				}
				return nil
			},
			Mend: func(_ context.Context, c *Cluster, _ *Node) error { return c.eachOf(hit, (*Node).Heal) },
		}
	}
}

// needsDisks is the Unfit of what breaks disks.
func needsDisks(Options) string {
	if err := powerloss.Possible(); err != nil {
		return "it breaks disks: " + err.Error()
	}
	return ""
}

const familyDisk = "disk"

func init() {
	add := func(name string, weight int, hold [2]time.Duration, make func(*rand.Rand) Fault) {
		Kinds = append(Kinds, Kind{
			Name: name, Family: familyDisk, Weight: weight, Hold: hold, Unfit: needsDisks,
			Prepare: func(o *Options) { o.Disks = true }, Make: make,
		})
	}
	brief, long := seconds(0, 3), seconds(4, 10)
	add("power-master", 15, brief, loseThePower("the master loses power", false, onMaster))
	add("power-follower", 8, brief, loseThePower("a follower loses power", false, onFollower))
	add("power-majority", 10, brief, loseThePower("a majority loses power", true, onMajority))
	add("power-all", 15, brief, loseThePower("all nodes lose power at once", true, onAll))
	for _, p := range []struct{ name, text, part string }{
		{"log", "the disk of the log", LogPart}, {"data", "the disk of the data", DataPart}, {"disk", "the whole disk", ""},
	} {
		for _, w := range []struct {
			who string
			at  aim
		}{{"master", onMaster}, {"follower", onFollower}} {
			text, who, at := p.text+" of a "+w.who, w.who, w.at
			add(p.name+"-sticks-"+who, 6, long, breakDisk(text+" sticks", p.part, powerloss.Fault{Stuck: true}, at))
			add(p.name+"-full-"+who, 6, long, breakDisk(text+" is full", p.part, powerloss.Fault{Full: true}, at))
			add(p.name+"-slow-"+who, 4, long, breakDisk(text+" is slow", p.part, powerloss.Fault{Delay: 300 * time.Millisecond}, at))
		}
		add(p.name+"-fails-master", 4, brief, breakDisk(p.text+" of the master fails its syncs", p.part, powerloss.Fault{Fail: true}, onMaster))
	}
}
