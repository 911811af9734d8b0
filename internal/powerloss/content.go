package powerloss

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
)

const (
	blockSize  = 4096 // what is kept of old content at a time
	sectorSize = 512  // what survives a cut or does not
	// maxOld is how many blocks of old content are kept per file (64 MiB). At the
	// limit the file is synced, as a kernel does that has no memory left.
	maxOld  = 16384
	maxZero = 1 << 20 // zeros written at a time
)

// content is what one file holds: what was written last, and what a cut brings back.
type content struct {
	mu     sync.Mutex
	f      *os.File
	size   int64
	synced int64            // the size that a cut brings back
	old    map[int64][]byte // blocks below synced that were changed since, as they were
	shrunk bool             // it was cut off below synced since
}

func newContent(path string) (*content, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("make file: %w", err)
	}
	return &content{f: f, old: map[int64][]byte{}}, nil
}

// drop ends a file that nobody can reach any more.
func (c *content) drop() {
	_ = c.f.Close()
	_ = os.Remove(c.f.Name())
}

func (c *content) read(p []byte, off int64) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if off >= c.size {
		return 0, nil
	}
	n, err := c.f.ReadAt(p[:min(int64(len(p)), c.size-off)], off)
	if err == io.EOF {
		err = nil
	}
	return n, err
}

func (c *content) write(p []byte, off int64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.keep(off, off+int64(len(p))); err != nil {
		return err
	}
	if _, err := c.f.WriteAt(p, off); err != nil {
		return err
	}
	c.size = max(c.size, off+int64(len(p)))
	return nil
}

// keep saves the blocks of a range that is about to change.
func (c *content) keep(from, to int64) error {
	if len(c.old) > maxOld {
		c.sync()
	}
	to = min(to, c.synced)
	for b := from / blockSize; b*blockSize < to; b++ {
		if _, kept := c.old[b]; kept {
			continue
		}
		p := make([]byte, blockSize)
		if _, err := c.f.ReadAt(p, b*blockSize); err != nil && err != io.EOF {
			return err
		}
		c.old[b] = p
	}
	return nil
}

// resize sets the size; what it cuts off reads as zero if the file grows again.
func (c *content) resize(size int64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if size < c.size {
		if err := c.keep(size, c.size); err != nil {
			return err
		}
		c.shrunk = c.shrunk || size < c.synced
	}
	if err := c.f.Truncate(size); err != nil {
		return err
	}
	c.size = size
	return nil
}

// zero makes a range read as zero, within the size.
func (c *content) zero(from, to int64) error {
	for to = min(to, c.length()); from < to; from += maxZero {
		if err := c.write(make([]byte, min(maxZero, to-from)), from); err != nil {
			return err
		}
	}
	return nil
}

func (c *content) length() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.size
}

// flush makes everything written so far durable.
func (c *content) flush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sync()
}

func (c *content) sync() {
	c.synced, c.shrunk = c.size, false
	clear(c.old)
}

// cut brings back what was synced; of the rest, what chance lets survive. A nil
// chance lets nothing.
func (c *content) cut(chance *rand.Rand) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.shrunk && chance != nil { // what it was cut off from is not half there
		if chance.IntN(2) == 0 {
			c.sync()
			return nil
		}
		chance = nil
	}
	size := c.synced
	if chance != nil && chance.IntN(2) == 0 {
		size = c.size
	}
	blocks := make([]int64, 0, len(c.old))
	for b := range c.old {
		blocks = append(blocks, b)
	}
	slices.Sort(blocks)
	for _, b := range blocks {
		if err := c.restore(b*blockSize, c.old[b], chance); err != nil {
			return err
		}
	}
	if chance != nil && size > c.synced {
		// What was appended may be there, sector by sector. The size may be
		// there without it.
		for off := (c.synced + sectorSize - 1) / sectorSize * sectorSize; off < size; off += sectorSize {
			if chance.IntN(2) == 0 {
				continue
			}
			if _, err := c.f.WriteAt(make([]byte, min(sectorSize, size-off)), off); err != nil {
				return err
			}
		}
	}
	if err := c.f.Truncate(size); err != nil {
		return err
	}
	c.size = size
	c.sync()
	return nil
}

// restore writes a block back as it was, or some sectors of it.
func (c *content) restore(off int64, p []byte, chance *rand.Rand) error {
	for i := 0; i < len(p); i += sectorSize {
		if chance != nil && chance.IntN(2) == 0 {
			continue
		}
		if _, err := c.f.WriteAt(p[i:i+sectorSize], off+int64(i)); err != nil {
			return err
		}
	}
	return nil
}
