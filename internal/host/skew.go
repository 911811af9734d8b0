package host

import (
	"encoding/binary"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/phxsql/phxsql/paxos"
	"golang.org/x/sys/unix"
)

// EnvSkew names the environment variable with the path of the file by which a node's
// clock is made wrong. Only drills set it.
const EnvSkew = "PHXSQL_DRILL_CLOCK"

// Skew is what is wrong with a clock, for drills.
type Skew struct {
	PPM   int64         // how much too fast it runs, in millionths; negative: too slow
	Ahead time.Duration // by how much it has jumped ahead, in all; it never becomes less
}

// skewSize is the size of a file that holds a Skew:
//
//	0        8        16
//	| PPM    | Ahead  |    two's complement, little endian; Ahead in nanoseconds
const skewSize = 16

// WriteSkew writes the file that a SkewedClock reads, in place: a clock that reads it
// follows at once.
func WriteSkew(path string, s Skew) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("write skew of clock: %w", err)
	}
	defer f.Close()
	var b [skewSize]byte
	binary.LittleEndian.PutUint64(b[:], uint64(s.PPM))
	binary.LittleEndian.PutUint64(b[8:], uint64(s.Ahead))
	if _, err := f.WriteAt(b[:], 0); err != nil {
		return fmt.Errorf("write skew of clock: %w", err)
	}
	return nil
}

// SkewedClock is a clock that is as wrong as the file says at any moment. It never goes
// back. The file stays mapped.
func SkewedClock(path string) (func() paxos.Time, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open skew of clock: %w", err)
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || st.Size() < skewSize {
		return nil, fmt.Errorf("open skew of clock: %s has fewer than %d bytes: %w", path, skewSize, err)
	}
	b, err := unix.Mmap(int(f.Fd()), 0, skewSize, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("open skew of clock: %w", err)
	}
	c := &skewedClock{real: Boottime}
	return func() paxos.Time {
		return c.read(Skew{int64(binary.LittleEndian.Uint64(b)), time.Duration(binary.LittleEndian.Uint64(b[8:]))})
	}, nil
}

// skewedClock counts on from the moment when its skew last changed.
type skewedClock struct {
	real func() paxos.Time

	mu    sync.Mutex
	skew  Skew
	since paxos.Time // real time of the last change
	shown paxos.Time // at that moment
	begun bool
}

func (c *skewedClock) read(s Skew) paxos.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.real()
	if !c.begun {
		c.begun, c.skew, c.since, c.shown = true, s, now, now
	}
	shown := c.at(now)
	if s != c.skew {
		shown += paxos.Time(max(0, s.Ahead-c.skew.Ahead))
		c.skew, c.since, c.shown = s, now, shown
	}
	return shown
}

// at is what the clock shows at a real time, by the skew since the last change.
func (c *skewedClock) at(now paxos.Time) paxos.Time {
	passed := now - c.since
	return c.shown + passed + passed/1_000_000*paxos.Time(c.skew.PPM) + passed%1_000_000*paxos.Time(c.skew.PPM)/1_000_000
}
