package vfs_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/phxsql/phxsql/vfs"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t testing.TB, f vfs.File, off int64, s string) {
	t.Helper()
	if n, err := f.WriteAt([]byte(s), off); err != nil || n != len(s) {
		t.Fatalf("WriteAt = %d, %v", n, err)
	}
}

func read(t testing.TB, fsys vfs.FS, name string) string {
	t.Helper()
	f, err := fsys.Open(name)
	must(t, err)
	defer f.Close()
	size, err := f.Size()
	must(t, err)
	p := make([]byte, size)
	if _, err := f.ReadAt(p, 0); err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	return string(p)
}

func create(t testing.TB, fsys vfs.FS, name string) vfs.File {
	t.Helper()
	f, err := fsys.Create(name)
	must(t, err)
	return f
}

// TestContract holds every implementation to the same behaviour.
func TestContract(t *testing.T) {
	none := func(vfs.Op) vfs.Fault { return vfs.Fault{} }
	for _, test := range []struct {
		name string
		fs   vfs.FS
		dir  string
	}{
		{"os", vfs.OS{}, t.TempDir()},
		{"mem", vfs.NewMem(), "/some"},
		{"faulty", &vfs.Faulty{FS: vfs.NewMem(), Inject: none}, "/some"},
	} {
		t.Run(test.name, func(t *testing.T) { contract(t, test.fs, filepath.Join(test.dir, "a", "b")) })
	}
}

func contract(t *testing.T, fsys vfs.FS, dir string) {
	must(t, fsys.MkdirAll(dir))
	must(t, fsys.SyncDir(filepath.Dir(dir)))
	name := filepath.Join(dir, "one")
	if _, err := fsys.Open(name); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("Open: %v", err)
	}
	f := create(t, fsys, name)
	if _, err := fsys.Create(name); !errors.Is(err, fs.ErrExist) {
		t.Fatalf("Create again: %v", err)
	}
	write(t, f, 3, "abc")
	must(t, f.Preallocate(10))
	must(t, f.Preallocate(5)) // never shrinks
	must(t, f.Sync())
	if got, want := read(t, fsys, name), "\x00\x00\x00abc\x00\x00\x00\x00"; got != want {
		t.Fatalf("content %q, want %q", got, want)
	}
	must(t, f.Truncate(4))
	must(t, f.Truncate(6))
	if got, want := read(t, fsys, name), "\x00\x00\x00a\x00\x00"; got != want {
		t.Fatalf("content %q, want %q", got, want)
	}
	p := make([]byte, 4)
	if n, err := f.ReadAt(p, 4); n != 2 || err != io.EOF {
		t.Fatalf("ReadAt over the end = %d, %v", n, err)
	}
	must(t, fsys.Rename(name, filepath.Join(dir, "two")))
	create(t, fsys, filepath.Join(dir, "three")).Close()
	names, err := fsys.List(dir)
	if err != nil || !slices.Equal(names, []string{"three", "two"}) {
		t.Fatalf("List = %q, %v", names, err)
	}
	if st, err := fsys.Stat(filepath.Join(dir, "two")); err != nil || st.Size != 6 || st.Dir {
		t.Fatalf("Stat = %+v, %v", st, err)
	}
	r, err := fsys.Open(filepath.Join(dir, "two"))
	must(t, err)
	if _, err := r.WriteAt([]byte("x"), 0); err == nil {
		t.Fatal("WriteAt works on a file opened for reading")
	}
	must(t, fsys.Remove(filepath.Join(dir, "two")))
	if n, _ := r.ReadAt(p, 0); n != 4 {
		t.Fatal("a removed file that is open cannot be read")
	}
	must(t, r.Close())
	must(t, f.Close())
	if _, err := f.ReadAt(p, 0); !errors.Is(err, fs.ErrClosed) {
		t.Fatalf("ReadAt after Close: %v", err)
	}
	must(t, fsys.SyncDir(dir))
	l, err := fsys.Lock(filepath.Join(dir, "LOCK"))
	must(t, err)
	if _, err := fsys.Lock(filepath.Join(dir, "LOCK")); !errors.Is(err, vfs.ErrLocked) {
		t.Fatalf("second Lock: %v", err)
	}
	must(t, l.Close())
	l, err = fsys.Lock(filepath.Join(dir, "LOCK"))
	must(t, err)
	must(t, l.Close())
	if n, err := fsys.FreeSpace(dir); err != nil || n <= 0 {
		t.Fatalf("FreeSpace = %d, %v", n, err)
	}
}

// TestCrashKeepsWhatWasSynced tries many crashes: each sector of a write that was
// not synced is old or new, everything else is as it was synced.
func TestCrashKeepsWhatWasSynced(t *testing.T) {
	const size = 4 * vfs.SectorSize
	seen := map[string]int{}
	for seed := range uint64(300) {
		m := vfs.NewMem()
		f := create(t, m, "/d/f")
		must(t, f.Preallocate(size))
		write(t, f, 0, string(bytes.Repeat([]byte("o"), size)))
		must(t, f.Sync())
		must(t, m.SyncDir("/d"))
		write(t, f, 100, string(bytes.Repeat([]byte("n"), size-200)))
		rng := rand.New(rand.NewPCG(seed, 0))
		clone := m.CrashClone(rng)
		if got := read(t, m, "/d/f"); bytes.Count([]byte(got), []byte("n")) != size-200 {
			t.Fatal("a clone changed the original")
		}
		m.Crash(rand.New(rand.NewPCG(seed, 0)))
		got := read(t, m, "/d/f")
		if got != read(t, clone, "/d/f") {
			t.Fatal("equal seeds give different crashes")
		}
		shape := ""
		for s := range 4 {
			sector := got[s*vfs.SectorSize : (s+1)*vfs.SectorSize]
			if s == 0 {
				sector = sector[100:]
			}
			if s == 3 {
				sector = sector[:vfs.SectorSize-100]
			}
			if want := bytes.Repeat([]byte(sector[:1]), len(sector)); string(want) != sector {
				t.Fatalf("sector %d is mixed", s)
			}
			shape += sector[:1]
		}
		if got[:100] != string(bytes.Repeat([]byte("o"), 100)) {
			t.Fatal("bytes that were not written changed")
		}
		seen[shape]++
		if _, err := f.WriteAt([]byte("x"), 0); !errors.Is(err, fs.ErrClosed) {
			t.Fatalf("a handle works after the crash: %v", err)
		}
	}
	if seen["oooo"] == 0 || seen["nnnn"] == 0 || len(seen) != 16 {
		t.Fatalf("outcomes: %v, want all 16", seen)
	}
}

func TestCrashOfDirectory(t *testing.T) {
	seen := map[string]bool{}
	for seed := range uint64(100) {
		m := vfs.NewMem()
		create(t, m, "/d/kept")
		must(t, m.SyncDir("/d"))
		create(t, m, "/d/new")
		must(t, m.Rename("/d/kept", "/d/moved"))
		must(t, m.SyncDir("/other"))
		m.Crash(rand.New(rand.NewPCG(seed, 0)))
		names, _ := m.List("/d")
		seen[filepath.Join(names...)] = true
	}
	want := []string{"kept", "kept/new", "moved", "moved/new"}
	for _, w := range want {
		if !seen[w] {
			t.Errorf("no crash left %s", w)
		}
	}
	if len(seen) != len(want) {
		t.Errorf("outcomes: %v", seen)
	}
}

func TestKillKeepsAllButSyncsNothing(t *testing.T) {
	lost := false
	for seed := range uint64(20) {
		m := vfs.NewMem()
		f := create(t, m, "/f")
		must(t, m.SyncDir("/"))
		write(t, f, 0, "abc")
		_, err := m.Lock("/LOCK")
		must(t, err)
		m.Kill()
		if got := read(t, m, "/f"); got != "abc" {
			t.Fatalf("content %q after Kill", got)
		}
		_, err = m.Lock("/LOCK")
		must(t, err)
		m.Crash(rand.New(rand.NewPCG(seed, 0)))
		lost = lost || read(t, m, "/f") != "abc"
	}
	if !lost {
		t.Fatal("Kill made writes durable")
	}
}

func TestFreeSpace(t *testing.T) {
	m := vfs.NewMem()
	m.SetFreeSpace(100)
	f := create(t, m, "/f")
	write(t, f, 0, "0123456789")
	if err := f.Preallocate(101); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("Preallocate: %v", err)
	}
	must(t, f.Preallocate(100))
	write(t, f, 50, "inside")
	if _, err := f.WriteAt([]byte("xy"), 99); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("WriteAt: %v", err)
	}
	must(t, m.Remove("/f"))
	if n, _ := m.FreeSpace("/"); n != 100 {
		t.Fatalf("FreeSpace = %d", n)
	}
}

func TestFaulty(t *testing.T) {
	var at vfs.OpKind
	fault := vfs.Fault{Err: syscall.EIO, Short: 2}
	y := &vfs.Faulty{FS: vfs.NewMem(), Inject: func(op vfs.Op) vfs.Fault {
		if op.Kind == at {
			return fault
		}
		return vfs.Fault{}
	}}
	f := create(t, y, "/f")
	write(t, f, 0, "aaaa")
	p := make([]byte, 4)
	for kind, do := range map[vfs.OpKind]func() error{
		vfs.OpCreate:      func() error { _, err := y.Create("/g"); return err },
		vfs.OpOpen:        func() error { _, err := y.Open("/f"); return err },
		vfs.OpRemove:      func() error { return y.Remove("/f") },
		vfs.OpRename:      func() error { return y.Rename("/f", "/g") },
		vfs.OpSyncDir:     func() error { return y.SyncDir("/") },
		vfs.OpRead:        func() error { _, err := f.ReadAt(p, 0); return err },
		vfs.OpWrite:       func() error { _, err := f.WriteAt([]byte("bbbb"), 0); return err },
		vfs.OpSync:        f.Sync,
		vfs.OpPreallocate: func() error { return f.Preallocate(10) },
		vfs.OpTruncate:    func() error { return f.Truncate(1) },
	} {
		at = kind
		if err := do(); !errors.Is(err, syscall.EIO) {
			t.Errorf("operation %d: %v", kind, err)
		}
	}
	at = 0
	if got := read(t, y, "/f"); got != "bbaa" {
		t.Fatalf("content %q after a short write", got)
	}
	at, fault = vfs.OpRead, vfs.Fault{Flip: []int64{1, 31, 32, -1}}
	if got := read(t, y, "/f"); got != "`ba\xe1" {
		t.Fatalf("content %q with flipped bits", got)
	}
}

// TestPiecesAreOneWrite: however many there are, and with nothing in some of them, the
// file has them one behind the other.
func TestPiecesAreOneWrite(t *testing.T) {
	var pieces [][]byte
	for i := range 2500 { // more than one system call takes
		pieces = append(pieces, bytes.Repeat([]byte{byte('a' + i%26)}, i%4))
	}
	want := string(bytes.Join(pieces, nil))
	inject := func(vfs.Op) vfs.Fault { return vfs.Fault{} }
	for name, fsys := range map[string]vfs.FS{"os": vfs.OS{}, "mem": vfs.NewMem(), "faulty": &vfs.Faulty{FS: vfs.NewMem(), Inject: inject}} {
		path := filepath.Join(t.TempDir(), "f")
		must(t, fsys.MkdirAll(filepath.Dir(path)))
		f := create(t, fsys, path)
		n, err := f.WritePiecesAt(pieces, 3)
		if err != nil || n != len(want) {
			t.Fatalf("%s: %d bytes of %d written: %v", name, n, len(want), err)
		}
		if n, err := f.WritePiecesAt(nil, 0); n != 0 || err != nil {
			t.Fatalf("%s: nothing: %d bytes, %v", name, n, err)
		}
		must(t, f.Close())
		if got := read(t, fsys, path); got != "\x00\x00\x00"+want {
			t.Errorf("%s: the file has %d bytes, want %d, or they differ", name, len(got), len(want)+3)
		}
	}
}

// TestDroppingTheCacheChangesNothing: neither what is durable nor what is not yet.
func TestDroppingTheCacheChangesNothing(t *testing.T) {
	dropped := ""
	inject := func(op vfs.Op) vfs.Fault {
		if op.Kind == vfs.OpDropCache {
			dropped += op.Name
		}
		return vfs.Fault{}
	}
	for name, fsys := range map[string]vfs.FS{"os": vfs.OS{}, "mem": vfs.NewMem(), "faulty": &vfs.Faulty{FS: vfs.NewMem(), Inject: inject}} {
		path := filepath.Join(t.TempDir(), "f")
		must(t, fsys.MkdirAll(filepath.Dir(path)))
		f := create(t, fsys, path)
		write(t, f, 0, strings.Repeat("a", 10000))
		must(t, f.Sync())
		write(t, f, 10000, "b")
		f.DropCache()
		if got := read(t, fsys, path); got != strings.Repeat("a", 10000)+"b" {
			t.Errorf("%s: the content changed, or its length %d", name, len(got))
		}
		if name == "faulty" && dropped != path {
			t.Errorf("dropped %q, want %q", dropped, path)
		}
		must(t, f.Close())
	}
}

// TestAFaultHitsPiecesAsOneWrite: a short write ends within a piece.
func TestAFaultHitsPiecesAsOneWrite(t *testing.T) {
	ops := 0
	y := &vfs.Faulty{FS: vfs.NewMem(), Inject: func(op vfs.Op) vfs.Fault {
		if op.Kind != vfs.OpWrite {
			return vfs.Fault{}
		}
		if ops++; op.Size != 6 {
			t.Errorf("a write of %d bytes, want 6", op.Size)
		}
		return vfs.Fault{Err: syscall.EIO, Short: 4}
	}}
	f := create(t, y, "/f")
	if _, err := f.WritePiecesAt([][]byte{[]byte("abc"), []byte("def")}, 0); !errors.Is(err, syscall.EIO) || ops != 1 {
		t.Fatalf("%d writes: %v", ops, err)
	}
	if got := read(t, y, "/f"); got != "abcd" {
		t.Errorf("content %q", got)
	}
}

// TestDroppedWritesAreReadAndNeverWritten: after a sync that failed as on Linux, reads
// see what the disk does not have, and a sync that succeeds does not change that.
func TestDroppedWritesAreReadAndNeverWritten(t *testing.T) {
	mem := vfs.NewMem()
	fail := false
	fsys := &vfs.Faulty{FS: mem, Inject: func(op vfs.Op) vfs.Fault {
		if fail && op.Kind == vfs.OpSync {
			return vfs.Fault{Err: syscall.EIO, Drop: true}
		}
		return vfs.Fault{}
	}}
	f := create(t, fsys, "/d/f")
	write(t, f, 0, "old old")
	must(t, f.Sync())
	must(t, fsys.SyncDir("/d"))
	write(t, f, 0, "new")
	fail = true
	if err := f.Sync(); !errors.Is(err, syscall.EIO) {
		t.Fatalf("Sync: %v", err)
	}
	fail = false
	write(t, f, 4, "add")
	must(t, f.Sync())
	if got := read(t, mem, "/d/f"); got != "new add" {
		t.Errorf("reads see %q", got)
	}
	mem.Crash(rand.New(rand.NewPCG(1, 1)))
	if got := read(t, mem, "/d/f"); got != "old add" {
		t.Errorf("the disk has %q", got)
	}
	mem.Rot("/d/f", 1)
	if got := read(t, mem, "/d/f"); got != "mld add" || mem.Written("/d/f") != 7 {
		t.Errorf("with a flipped bit: %q", got)
	}
}
