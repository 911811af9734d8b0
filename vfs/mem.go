package vfs

import (
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"sort"
	"strings"
	"sync"
)

// Mem is a file system in memory that can crash. It reads no clock and draws no
// randomness of its own, so that equal calls give equal results. The zero Mem is
// not usable; see NewMem.
//
// Every directory exists without being made, durably; only files may vanish.
type Mem struct {
	mu    sync.Mutex
	names map[string]*memNode // as a program sees them
	kept  map[string]*memNode // as they are after a crash, if no op survives
	ops   []dirOp             // changes of names since SyncDir, in order
	locks map[string]*memLock
	life  int   // counts crashes: handles of an earlier life are dead
	free  int64 // bytes that files may still grow by; negative means no limit
}

var _ FS = (*Mem)(nil)

// NewMem returns an empty file system without a limit of space.
func NewMem() *Mem {
	return &Mem{
		names: make(map[string]*memNode), kept: make(map[string]*memNode),
		locks: make(map[string]*memLock), free: -1,
	}
}

// memNode is the content of a file, whatever its name. Bytes between the length
// of a slice and its size are zero and take no memory.
type memNode struct {
	cur      []byte // what reads see
	size     int64
	synced   []byte // what a crash leaves at least
	syncSize int64
	writes   []memWrite // since Sync, in order
	arena    []byte     // their bytes
	phantom  bool       // reads see bytes that a failed sync has dropped
}

// memWrite is a write that was not synced. A change of size has n < 0.
type memWrite struct {
	off   int64 // or the new size
	start int   // in the arena
	n     int
}

// dirOp is a change of a directory that was not synced. from is empty for a new
// file, to for a removed one.
type dirOp struct {
	dir, from, to string
	node          *memNode
}

// apply carries the change out on names.
func (o dirOp) apply(names map[string]*memNode) {
	if o.from != "" && names[o.from] == o.node {
		delete(names, o.from)
	}
	if o.to != "" {
		names[o.to] = o.node
	}
}

// Written returns how many bytes at the begin of a file were ever written; what is
// behind them are zeros. It is 0 where there is no file.
func (m *Mem) Written(name string) int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n := m.names[filepath.Clean(name)]; n != nil {
		return int64(len(n.cur))
	}
	return 0
}

// Rot flips a bit of a file on the disk, counted from its first: bit rot, which nothing
// tells of. Bits that were never written, and files that are not there, stay as they
// are.
func (m *Mem) Rot(name string, bit int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.names[filepath.Clean(name)]
	if n == nil {
		return
	}
	for _, b := range [][]byte{n.cur, n.synced} {
		if bit/8 < int64(len(b)) {
			b[bit/8] ^= 1 << (bit % 8)
		}
	}
}

func (m *Mem) note(o dirOp) {
	o.apply(m.names)
	m.ops = append(m.ops, o)
}

func pathError(op, name string, err error) error {
	return &fs.PathError{Op: op, Path: name, Err: err}
}

// Create implements FS.
func (m *Mem) Create(name string) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	name = filepath.Clean(name)
	if m.names[name] != nil {
		return nil, pathError("create", name, fs.ErrExist)
	}
	n := &memNode{}
	m.note(dirOp{dir: filepath.Dir(name), to: name, node: n})
	return &memFile{m: m, n: n, name: name, life: m.life, write: true}, nil
}

// Open implements FS.
func (m *Mem) Open(name string) (File, error) { return m.open(name, false) }

// OpenReadWrite implements FS.
func (m *Mem) OpenReadWrite(name string) (File, error) { return m.open(name, true) }

func (m *Mem) open(name string, write bool) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	name = filepath.Clean(name)
	n := m.names[name]
	if n == nil {
		return nil, pathError("open", name, fs.ErrNotExist)
	}
	return &memFile{m: m, n: n, name: name, life: m.life, write: write}, nil
}

// Remove implements FS.
func (m *Mem) Remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	name = filepath.Clean(name)
	n := m.names[name]
	if n == nil {
		return pathError("remove", name, fs.ErrNotExist)
	}
	if m.free >= 0 {
		m.free += n.size
	}
	m.note(dirOp{dir: filepath.Dir(name), from: name, node: n})
	return nil
}

// Rename implements FS.
func (m *Mem) Rename(from, to string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	from, to = filepath.Clean(from), filepath.Clean(to)
	n := m.names[from]
	switch {
	case n == nil:
		return pathError("rename", from, fs.ErrNotExist)
	case filepath.Dir(from) != filepath.Dir(to):
		return pathError("rename", from, fmt.Errorf("to another directory: %w", fs.ErrInvalid))
	}
	m.note(dirOp{dir: filepath.Dir(to), from: from, to: to, node: n})
	return nil
}

// MkdirAll implements FS. Directories always exist.
func (m *Mem) MkdirAll(string) error { return nil }

// List implements FS.
func (m *Mem) List(dir string) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	prefix := strings.TrimSuffix(filepath.Clean(dir), "/") + "/"
	var list []string
	for name := range m.names {
		if base, ok := strings.CutPrefix(name, prefix); ok && !strings.Contains(base, "/") {
			list = append(list, base)
		}
	}
	sort.Strings(list)
	return list, nil
}

// Stat implements FS. It knows files only.
func (m *Mem) Stat(name string) (Info, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.names[filepath.Clean(name)]
	if n == nil {
		return Info{}, pathError("stat", name, fs.ErrNotExist)
	}
	return Info{Size: n.size}, nil
}

// Lock implements FS. A crash releases all locks.
func (m *Mem) Lock(name string) (io.Closer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	name = filepath.Clean(name)
	if m.locks[name] != nil {
		return nil, fmt.Errorf("lock %s: %w", name, ErrLocked)
	}
	l := &memLock{m: m, name: name}
	m.locks[name] = l
	return l, nil
}

type memLock struct {
	m    *Mem
	name string
}

func (l *memLock) Close() error {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	if l.m.locks[l.name] == l {
		delete(l.m.locks, l.name)
	}
	return nil
}

// SyncDir implements FS.
func (m *Mem) SyncDir(dir string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	dir = filepath.Clean(dir)
	rest := m.ops[:0]
	for _, o := range m.ops {
		if o.dir != dir {
			rest = append(rest, o)
			continue
		}
		o.apply(m.kept)
	}
	clear(m.ops[len(rest):])
	m.ops = rest
	return nil
}

// SetFreeSpace limits the bytes by which files may still grow. A negative number
// removes the limit.
func (m *Mem) SetFreeSpace(n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.free = n
}

// FreeSpace implements FS.
func (m *Mem) FreeSpace(string) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.free < 0 {
		return 1 << 50, nil
	}
	return m.free, nil
}

func sortedNames(names map[string]*memNode) []string {
	list := make([]string, 0, len(names))
	for name := range names {
		list = append(list, name)
	}
	sort.Strings(list)
	return list
}
