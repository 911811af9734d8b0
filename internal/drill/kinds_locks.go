package drill

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// What a client takes to get a lock. A table that is dropped meanwhile costs a try.
const (
	lockLimit = 5 * time.Second
	lockTries = 5
)

// holdLocks has a client of every follower's read-only port hold what replication waits
// for, and kills the master. Whether there is a master must not be for readers to decide.
func holdLocks(dice *rand.Rand) Fault {
	var held []*sql.DB
	return Fault{
		Name: "readers of all followers hold locks, and the master is killed",
		Break: func(ctx context.Context, c *Cluster, m *Node) error {
			everything := dice.IntN(2) == 0
			for _, n := range shuffled(c, m, dice) {
				db, err := c.holdLock(ctx, n, everything)
				if err != nil {
					c.opt.Say("node %d: no lock is held: %v", n.ID, err)
					continue
				}
				held = append(held, db)
			}
			wait(ctx, time.Duration(500+dice.IntN(1000))*time.Millisecond) // replication runs into them
			return m.KillAll()
		},
		Mend: func(_ context.Context, _ *Cluster, m *Node) error {
			for _, db := range held {
				_ = db.Close() // the node may have ended the session
			}
			return m.Heal()
		},
	}
}

// holdLock has a client of a node's read-only port take a lock and keep its session, which
// ends with the pool that is returned. A node that is down gives none.
func (c *Cluster) holdLock(ctx context.Context, n *Node, everything bool) (*sql.DB, error) {
	if !n.Running() || n.paused || n.hung || n.Witness {
		return nil, errNotYet
	}
	ctx, cancel := context.WithTimeout(ctx, lockLimit)
	defer cancel()
	db, err := c.Open(n.RO, "")
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	for range lockTries {
		if err = takeLock(ctx, db, everything); err == nil {
			return db, nil
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(err, db.Close())
}

// lockSchemas are those whose tables readers lock: they are written to all the time, and
// nothing keeps locks in them for long, as prepared XA transactions do.
var lockSchemas = []string{schema, bankSchema, listsSchema, registersSchema}

// takeLock takes a lock in the one session of a pool: on everything, or on every table of
// lockSchemas.
func takeLock(ctx context.Context, db *sql.DB, everything bool) error {
	tables, err := query(ctx, db, "SELECT CONCAT(table_schema, '.', table_name) FROM information_schema.tables WHERE table_schema IN ('"+
		strings.Join(lockSchemas, "', '")+"') AND table_type = 'BASE TABLE'")
	if err != nil {
		return err
	}
	q := "FLUSH TABLES WITH READ LOCK"
	if !everything && len(tables) > 0 {
		q = "LOCK TABLES " + strings.Join(tables, " READ, ") + " READ"
	}
	if _, err := db.ExecContext(ctx, q); err != nil {
		return fmt.Errorf("execute %q: %w", q, err)
	}
	return nil
}

func init() {
	Kinds = append(Kinds, Kind{Name: "locks", Family: "locks", Weight: 6, Hold: seconds(0.2, 3), Make: holdLocks})
}
