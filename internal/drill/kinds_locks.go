package drill

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// lockLimit bounds how long a client tries to take a lock.
const lockLimit = 5 * time.Second

// holdLocks has a client of every follower's read-only port hold what replication waits
// for, and kills the master. Whether there is a master must not be for readers to decide.
func holdLocks(dice *rand.Rand) Fault {
	var held []*sql.DB
	return Fault{
		Name: "readers of all followers hold locks, and the master is killed",
		Break: func(ctx context.Context, c *Cluster, m *Node) error {
			way := dice.IntN(3)
			for _, n := range shuffled(c, m, dice) {
				if db := c.holdLock(ctx, n, way, dice); db != nil {
					held = append(held, db)
				}
			}
			wait(ctx, time.Duration(dice.IntN(1500))*time.Millisecond) // replication runs into them
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
// ends with the pool that is returned; nil: it got none, because the node is down, or its
// replication was faster.
func (c *Cluster) holdLock(ctx context.Context, n *Node, way int, dice *rand.Rand) *sql.DB {
	if !n.Running() || n.paused || n.hung || n.Witness {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, lockLimit)
	defer cancel()
	db, err := c.Open(n.RO, "")
	if err != nil {
		return nil
	}
	db.SetMaxOpenConns(1)
	if err = takeLock(ctx, db, way, dice); err != nil {
		_ = db.Close()
		return nil
	}
	return db
}

// takeLock takes a lock in the one session of a pool: on everything, on a table, or by
// reading a table in a transaction that stays open.
func takeLock(ctx context.Context, db *sql.DB, way int, dice *rand.Rand) error {
	statements := []string{"FLUSH TABLES WITH READ LOCK"}
	if way > 0 {
		tables, err := query(ctx, db, "SELECT CONCAT(table_schema, '.', table_name) FROM information_schema.tables WHERE table_schema IN ('"+
			strings.Join(stageSchemas, "', '")+"') AND table_type = 'BASE TABLE' ORDER BY 1")
		if err != nil {
			return err
		}
		if len(tables) == 0 {
			return errNotYet
		}
		t := tables[dice.IntN(len(tables))]
		statements = []string{"LOCK TABLES " + t + " READ"}
		if way > 1 {
			statements = []string{"START TRANSACTION", "SELECT COUNT(*) FROM " + t}
		}
	}
	for _, q := range statements {
		if _, err := db.ExecContext(ctx, q); err != nil {
			return fmt.Errorf("execute %q: %w", q, err)
		}
	}
	return nil
}

func init() {
	Kinds = append(Kinds, Kind{Name: "locks", Family: "locks", Weight: 6, Hold: seconds(0.2, 3), Make: holdLocks})
}
