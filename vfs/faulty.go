package vfs

import "slices"

// OpKind names an operation of a file system.
type OpKind uint8

// The operations that Faulty asks about.
const (
	OpCreate OpKind = iota + 1
	OpOpen
	OpRemove
	OpRename
	OpSyncDir
	OpRead
	OpWrite
	OpSync
	OpPreallocate
	OpTruncate
	OpDropCache // cannot fail
)

// Op is an operation about to happen.
type Op struct {
	Kind   OpKind
	Name   string // of the file or directory
	Offset int64  // OpRead, OpWrite
	Size   int64  // bytes to read or write; the new size of Preallocate and Truncate
}

// Fault is what goes wrong with an operation. The zero Fault is: nothing.
type Fault struct {
	// Err is returned. The operation does not happen, except as Short says.
	Err error
	// Short is the number of bytes that a failing OpWrite still writes.
	Short int
	// Drop makes a failing OpSync one after which nothing knows that the bytes are not
	// on the disk, as Linux does: reads see them, and no later sync writes them. It needs
	// a file of Mem.
	Drop bool
	// Flip lists bits, counted from the first byte read, that an OpRead which
	// succeeds returns wrong. Those out of range do nothing.
	Flip []int64
}

// Faulty passes everything on to FS after asking Inject about faults. Inject may
// be called from several goroutines at the same time and must not be nil.
type Faulty struct {
	FS
	Inject func(Op) Fault
}

var _ FS = (*Faulty)(nil)

// Create implements FS.
func (y *Faulty) Create(name string) (File, error) {
	return y.open(Op{Kind: OpCreate, Name: name}, y.FS.Create)
}

// Open implements FS.
func (y *Faulty) Open(name string) (File, error) {
	return y.open(Op{Kind: OpOpen, Name: name}, y.FS.Open)
}

// OpenReadWrite implements FS.
func (y *Faulty) OpenReadWrite(name string) (File, error) {
	return y.open(Op{Kind: OpOpen, Name: name}, y.FS.OpenReadWrite)
}

func (y *Faulty) open(op Op, open func(string) (File, error)) (File, error) {
	if err := y.Inject(op).Err; err != nil {
		return nil, pathError("open", op.Name, err)
	}
	f, err := open(op.Name)
	if err != nil {
		return nil, err
	}
	return &faultyFile{File: f, y: y, name: op.Name}, nil
}

// Remove implements FS.
func (y *Faulty) Remove(name string) error {
	if err := y.Inject(Op{Kind: OpRemove, Name: name}).Err; err != nil {
		return pathError("remove", name, err)
	}
	return y.FS.Remove(name)
}

// Rename implements FS.
func (y *Faulty) Rename(from, to string) error {
	if err := y.Inject(Op{Kind: OpRename, Name: from}).Err; err != nil {
		return pathError("rename", from, err)
	}
	return y.FS.Rename(from, to)
}

// SyncDir implements FS.
func (y *Faulty) SyncDir(dir string) error {
	if err := y.Inject(Op{Kind: OpSyncDir, Name: dir}).Err; err != nil {
		return pathError("sync", dir, err)
	}
	return y.FS.SyncDir(dir)
}

type faultyFile struct {
	File
	y    *Faulty
	name string
}

func (f *faultyFile) ReadAt(p []byte, off int64) (int, error) {
	t := f.y.Inject(Op{Kind: OpRead, Name: f.name, Offset: off, Size: int64(len(p))})
	if t.Err != nil {
		return 0, pathError("read", f.name, t.Err)
	}
	n, err := f.File.ReadAt(p, off)
	for _, bit := range t.Flip {
		if bit >= 0 && bit < int64(n)*8 {
			p[bit/8] ^= 1 << (bit % 8)
		}
	}
	return n, err
}

func (f *faultyFile) WriteAt(p []byte, off int64) (int, error) {
	t := f.y.Inject(Op{Kind: OpWrite, Name: f.name, Offset: off, Size: int64(len(p))})
	if t.Err == nil {
		return f.File.WriteAt(p, off)
	}
	n := 0
	if short := min(t.Short, len(p)); short > 0 {
		n, _ = f.File.WriteAt(p[:short], off)
	}
	return n, pathError("write", f.name, t.Err)
}

func (f *faultyFile) WritePiecesAt(pieces [][]byte, off int64) (int, error) {
	return f.WriteAt(slices.Concat(pieces...), off)
}

func (f *faultyFile) Sync() error {
	t := f.y.Inject(Op{Kind: OpSync, Name: f.name})
	if t.Err == nil {
		return f.File.Sync()
	}
	if m, ok := f.File.(*memFile); ok && t.Drop {
		m.drop()
	}
	return pathError("sync", f.name, t.Err)
}

func (f *faultyFile) Preallocate(size int64) error {
	if err := f.y.Inject(Op{Kind: OpPreallocate, Name: f.name, Size: size}).Err; err != nil {
		return pathError("preallocate", f.name, err)
	}
	return f.File.Preallocate(size)
}

func (f *faultyFile) DropCache() {
	f.y.Inject(Op{Kind: OpDropCache, Name: f.name})
	f.File.DropCache()
}

func (f *faultyFile) Truncate(size int64) error {
	if err := f.y.Inject(Op{Kind: OpTruncate, Name: f.name, Size: size}).Err; err != nil {
		return pathError("truncate", f.name, err)
	}
	return f.File.Truncate(size)
}
