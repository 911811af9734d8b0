package vfs

import (
	"fmt"
	"io"
	"io/fs"
	"slices"
	"syscall"
)

// memFile is a handle of a file of a Mem.
type memFile struct {
	m     *Mem
	n     *memNode
	name  string
	life  int
	write bool
	done  bool
}

// usable reports why the handle must not be used; the caller holds the lock.
func (f *memFile) usable(op string, write bool) error {
	switch {
	case f.done || f.life != f.m.life:
		return pathError(op, f.name, fs.ErrClosed)
	case write && !f.write:
		return pathError(op, f.name, fs.ErrPermission)
	}
	return nil
}

func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if err := f.usable("read", false); err != nil {
		return 0, err
	}
	if off < 0 {
		return 0, pathError("read", f.name, fs.ErrInvalid)
	}
	if off >= f.n.size {
		return 0, io.EOF
	}
	n := int(min(int64(len(p)), f.n.size-off))
	copied := 0
	if off < int64(len(f.n.cur)) {
		copied = copy(p[:n], f.n.cur[off:])
	}
	clear(p[copied:n])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if err := f.usable("write", true); err != nil {
		return 0, err
	}
	if off < 0 {
		return 0, pathError("write", f.name, fs.ErrInvalid)
	}
	end := off + int64(len(p))
	if err := f.grow("write", end); err != nil {
		return 0, err
	}
	n := f.n
	n.writes = append(n.writes, memWrite{off: off, start: len(n.arena), n: len(p)})
	n.arena = append(n.arena, p...)
	n.size = max(n.size, end)
	n.cur = put(n.cur, p, off, n.size)
	return len(p), nil
}

func (f *memFile) WritePiecesAt(pieces [][]byte, off int64) (int, error) {
	return f.WriteAt(slices.Concat(pieces...), off)
}

// grow takes the space for a file of the given size or fails with ENOSPC.
func (f *memFile) grow(op string, size int64) error {
	more := size - f.n.size
	if f.m.free < 0 || more <= 0 {
		return nil
	}
	if more > f.m.free {
		return pathError(op, f.name, fmt.Errorf("grow to %d bytes: %w", size, syscall.ENOSPC))
	}
	f.m.free -= more
	return nil
}

// DropCache does nothing: there is no other place than memory.
func (f *memFile) DropCache() {}

func (f *memFile) Preallocate(size int64) error { return f.resize("preallocate", size, false) }

func (f *memFile) Truncate(size int64) error { return f.resize("truncate", size, true) }

func (f *memFile) resize(op string, size int64, shrink bool) error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if err := f.usable(op, true); err != nil {
		return err
	}
	n := f.n
	if size < 0 {
		return pathError(op, f.name, fs.ErrInvalid)
	}
	if size == n.size || size < n.size && !shrink {
		return nil
	}
	if err := f.grow(op, size); err != nil {
		return err
	}
	if size < n.size && f.m.free >= 0 {
		f.m.free += n.size - size
	}
	n.writes = append(n.writes, memWrite{off: size, n: -1})
	n.size = size
	n.cur = cut(n.cur, size)
	return nil
}

func (f *memFile) Size() (int64, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	return f.n.size, f.usable("stat", false)
}

func (f *memFile) Sync() error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if err := f.usable("sync", false); err != nil {
		return err
	}
	n := f.n
	for _, w := range n.writes {
		n.settle(w)
	}
	n.writes, n.arena = n.writes[:0], n.arena[:0]
	return nil
}

// drop is a failed sync after which nobody knows of the writes that it lost.
func (f *memFile) drop() {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if f.usable("sync", false) != nil || len(f.n.writes) == 0 {
		return
	}
	f.n.phantom = true
	f.n.writes, f.n.arena = f.n.writes[:0], f.n.arena[:0]
}

// settle makes a whole write part of what a crash leaves.
func (n *memNode) settle(w memWrite) {
	if w.n < 0 {
		n.synced, n.syncSize = cut(n.synced, w.off), w.off
		return
	}
	n.syncSize = max(n.syncSize, w.off+int64(w.n))
	n.synced = put(n.synced, n.arena[w.start:w.start+w.n], w.off, n.syncSize)
}

func (f *memFile) Close() error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	err := f.usable("close", false)
	f.done = true
	return err
}

// smallFile is the size up to which a preallocated file takes its memory at once.
const smallFile = 256 << 10

// put writes p at off of b, which grows as needed; size is that of the file.
func put(b, p []byte, off, size int64) []byte {
	if cap(b) == 0 && size <= smallFile {
		b = make([]byte, 0, size)
	}
	if gap := int(off) - len(b); gap > 0 {
		b = append(b, make([]byte, gap)...)
	}
	n := copy(b[off:], p)
	return append(b, p[n:]...)
}

// cut shortens b to at most size bytes.
func cut(b []byte, size int64) []byte {
	if int64(len(b)) > size {
		clear(b[size:])
		return b[:size]
	}
	return b
}
