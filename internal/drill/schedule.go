package drill

import (
	"math/rand/v2"
	"slices"
	"time"
)

// Overlap says when the next fault begins.
type Overlap string

// The overlaps.
const (
	Apart        Overlap = ""              // when all is well again
	DuringRepair Overlap = "during repair" // a moment after this one was mended, while nodes come back
	OnTop        Overlap = "on top"        // while this one lasts; both are mended together
)

// Planned is a fault of a schedule.
type Planned struct {
	Kind    Kind
	Hold    time.Duration
	Overlap Overlap       // how the next fault follows
	Gap     time.Duration // before the next fault
	Dice    uint64        // seeds what the fault decides by chance
}

// Fault makes the fault.
func (p Planned) Fault() Fault {
	f := p.Kind.Make(rand.New(rand.NewPCG(p.Dice, 1)))
	f.Hold = p.Hold
	return f
}

// Linger says that the fault lasts for all of its time also when the cluster got over it.
func (p Planned) Linger() bool { return p.Dice&1 == 0 }

// Schedule draws faults without end. The same seed and kinds give the same faults; whom
// they hit also depends on who is master then.
type Schedule struct {
	dice  *rand.Rand
	kinds []Kind
	total int
	row   int // overlaps in a row
}

// script says what fault is next.
type script interface{ Next() Planned }

// eachKind draws every kind equally often, in some order, and no two at once.
type eachKind struct {
	*Schedule
	bag []Kind
}

// Next draws the next fault.
func (e *eachKind) Next() Planned {
	if len(e.bag) == 0 {
		e.bag = slices.Clone(e.kinds)
		e.dice.Shuffle(len(e.bag), func(i, j int) { e.bag[i], e.bag[j] = e.bag[j], e.bag[i] })
	}
	k := e.bag[0]
	e.bag = e.bag[1:]
	return e.plan(k)
}

// maxRow is the most faults in one episode.
const maxRow = 3

// NewSchedule starts a schedule.
func NewSchedule(seed uint64, kinds []Kind) *Schedule {
	s := &Schedule{dice: rand.New(rand.NewPCG(seed, 0xd2)), kinds: kinds}
	for _, k := range kinds {
		s.total += k.Weight
	}
	return s
}

// Next draws the next fault.
func (s *Schedule) Next() Planned {
	at := s.dice.IntN(s.total)
	i := 0
	for at >= s.kinds[i].Weight {
		at -= s.kinds[i].Weight
		i++
	}
	p := s.plan(s.kinds[i])
	p.Gap = time.Duration(s.dice.IntN(2500)) * time.Millisecond
	switch chance := s.dice.IntN(10); {
	case s.row == maxRow-1:
		s.row = 0
	case chance < 3:
		p.Overlap = DuringRepair
		s.row++
	case chance < 4:
		p.Overlap = OnTop
		s.row++
	default:
		s.row = 0
	}
	return p
}

// plan draws what a fault of a kind decides by chance.
func (s *Schedule) plan(k Kind) Planned {
	p := Planned{Kind: k, Dice: s.dice.Uint64()}
	p.Hold = k.Hold[0] + time.Duration(s.dice.Int64N(int64(k.Hold[1]-k.Hold[0])+1))
	return p
}
