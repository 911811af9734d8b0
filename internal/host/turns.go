package host

// A turn takes in everything that waits for a group and carries out what comes of
// it. Turns of a group come one after the other, but not always in one goroutine:
// whoever brings work runs the turn if nobody else is at it (poke), which saves the
// time and the CPU of waking a goroutine for each message, sync and proposal. The
// group's own loop runs turns for callers that must not, and takes over from those
// that ran too many.

// maxInline limits the turns that one caller runs in a row.
const maxInline = 8

// poke sees to it that a turn begins after this call began. It runs it here unless
// one is running, in which case whoever runs that one runs another.
func (g *Group) poke() {
	g.work.Store(true)
	for n := 0; g.work.Load(); n++ {
		if n == maxInline {
			g.wake()
			return
		}
		if !g.turning.TryLock() {
			return // the holder looks at work after it has unlocked
		}
		g.work.Store(false)
		if !g.over {
			if err := g.turn(); err != nil {
				g.host.fail(err)
				g.end()
			}
		}
		g.turning.Unlock()
	}
}

// wake lets the group's loop run a turn.
func (g *Group) wake() {
	select {
	case g.signal <- struct{}{}:
	default:
	}
}

// run is the group's loop.
func (g *Group) run() {
	defer g.host.wg.Done()
	for {
		select {
		case <-g.host.stop:
			g.turning.Lock()
			defer g.turning.Unlock()
			if !g.over {
				g.end()
			}
			return
		case <-g.signal:
			g.poke()
		}
	}
}
