package drill

import (
	"database/sql"
	"math/rand/v2"
	"time"
)

// An old answer is found by a command that is sent after its master was deposed, on a
// connection from before. While a master stands still, whoever uses a connection to it
// waits for an answer, and its command is from before the takeover: what it reads then
// may be old. So there must be clients that send nothing until another master has
// acknowledged something newer.
const (
	idlePause  = 4 * time.Second        // longest between two operations of an idler, so that its connection is known to be good
	silentFor  = 500 * time.Millisecond // a port that has not answered anybody for so long is silent
	idleLimit  = 20 * time.Second       // an idler does not spare a silent port for longer
	idleLook   = 50 * time.Millisecond  // how often an idler looks
	idleSpread = 250 * time.Millisecond // within this time idlers use the connection to a deposed master
)

// idler starts a client of a port that keeps its connection idle, most of all while the
// port is silent, and reads what was written last once the port's master was deposed.
func (r *Registers) idler(site Site, port string, client int) error {
	return r.client(site, port, registersSchema, time.Millisecond, func(conn *sql.Conn) error {
		op := r.idle(port)
		if r.ctx.Err() != nil {
			return r.ctx.Err()
		}
		return r.one(conn, port, client, op)
	})
}

// idle waits for the next operation of an idler.
func (r *Registers) idle(port string) registerOp {
	due := r.now() + int64(rand.N(idlePause))
	for r.ctx.Err() == nil {
		silent, deposed := r.look(port)
		if deposed {
			wait(r.ctx, rand.N(idleSpread))
			return r.surprise()
		}
		if over := r.now() - due; over > 0 && (!silent || over > int64(idleLimit)) {
			break
		}
		wait(r.ctx, idleLook)
	}
	return r.draw()
}

// look tells whether a port answers nobody, and whether meanwhile another has
// acknowledged a write that began later than anything that this one has answered.
func (r *Registers) look(port string) (silent, deposed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	last := r.heard[port]
	return r.now()-last > int64(silentFor), r.acked.began-last > int64(silentFor)
}

// surprise is the read of what was written last, on a connection to a deposed master.
func (r *Registers) surprise() registerOp {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.surprises++
	return registerOp{key: r.acked.key}
}
