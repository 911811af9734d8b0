package cluster

import "time"

// The lengths of a probation.
const (
	// FirstProbation is how long a member that was unfit must be well before it
	// is as good as the others again; each further time doubles it.
	FirstProbation = 5 * time.Second
	// LongestProbation is the most that the doubling comes to.
	LongestProbation = 5 * time.Minute
	// forgetAfter is how long a member must be well after a probation, until the
	// next one is the first again.
	forgetAfter = 10 * time.Minute
)

// Probation damps flapping: who could not lead a moment ago leads only when no other
// member would. The zero value is a member that was always well.
type Probation struct {
	// Times counts how often the member has become unfit lately.
	Times int

	unfit  bool
	until  time.Duration
	forget time.Duration
}

// Note takes in whether the member is fit to lead now. The time is that of any clock
// that does not go back. It returns how long the probation still lasts: its whole length
// while the member is unfit, zero when it is over.
func (p *Probation) Note(now time.Duration, fit bool) time.Duration {
	if fit {
		p.unfit = false
		if now >= p.forget {
			p.Times = 0
		}
		return max(0, p.until-now)
	}
	if !p.unfit {
		p.unfit = true
		p.Times++
	}
	length := min(LongestProbation, FirstProbation<<min(p.Times-1, 10))
	p.until, p.forget = now+length, now+length+forgetAfter
	return length
}
