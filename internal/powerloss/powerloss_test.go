package powerloss

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/phxsql/phxsql/vfs"
	"github.com/phxsql/phxsql/wal"
)

// disk mounts one for a test.
func disk(t *testing.T, journal bool) (*Disk, string) {
	t.Helper()
	if err := Possible(); err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	opt := Options{Dir: filepath.Join(dir, "mnt"), Store: filepath.Join(dir, "store")}
	if journal {
		opt.Journal = []string{""}
	}
	d, err := Mount(opt)
	if err != nil {
		t.Fatal(err)
	}
	// A process that waits for a disk of its own cannot even be killed.
	rescue := time.AfterFunc(time.Minute, func() {
		t.Error("the disk hangs")
		_ = d.unmount()
	})
	t.Cleanup(func() {
		rescue.Stop()
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d, d.opt.Dir
}

// try fails the test with the first error.
func try(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func put(t *testing.T, name, text string, sync bool) {
	t.Helper()
	f, err := os.Create(name)
	try(t, err)
	_, err = f.WriteString(text)
	if sync {
		err = errors.Join(err, f.Sync())
	}
	try(t, err, f.Close())
}

// holds checks what a file holds; with the text "-", that there is none.
func holds(t *testing.T, name, want string) {
	t.Helper()
	b, err := os.ReadFile(name)
	got := string(b)
	if errors.Is(err, fs.ErrNotExist) {
		got = "-"
	} else if err != nil {
		t.Fatal(err)
	}
	if got != want {
		t.Errorf("%s holds %q, not %q", filepath.Base(name), got, want)
	}
}

func syncDir(t *testing.T, dir string) {
	t.Helper()
	try(t, vfs.OS{}.SyncDir(dir))
}

// awaitWaiting waits until a call waits for the disk.
func awaitWaiting(t *testing.T, d *Disk) {
	t.Helper()
	for end := time.Now().Add(time.Minute); d.Waiting() == 0; {
		if time.Now().After(end) {
			t.Fatal("nobody waits for the disk")
		}
		runtime.Gosched()
	}
}

func TestWhatWasNotSyncedIsGone(t *testing.T) {
	d, dir := disk(t, false)
	at := func(name string) string { return filepath.Join(dir, name) }
	put(t, at("whole"), "synced", true)
	put(t, at("empty"), "not synced", false)
	put(t, at("longer"), "one", true)
	put(t, at("removed"), "removed", true)
	put(t, at("old"), "renamed", true)
	put(t, at("cut off"), "all of it", true)
	syncDir(t, dir)

	put(t, at("nameless"), "synced", true) // but its folder is not
	try(t, os.WriteFile(at("whole"), []byte("SYNC"), 0o600), os.Remove(at("removed")), os.Rename(at("old"), at("new")), os.Truncate(at("cut off"), 3))
	f, err := os.OpenFile(at("longer"), os.O_APPEND|os.O_WRONLY, 0)
	try(t, err)
	_, err = f.WriteString(" two")
	try(t, err, f.Close())
	holds(t, at("whole"), "SYNC")
	holds(t, at("longer"), "one two")
	holds(t, at("cut off"), "all")
	holds(t, at("old"), "-")

	try(t, d.Cut(nil))
	for name, want := range map[string]string{
		"whole": "synced", "empty": "", "longer": "one", "removed": "removed", "old": "renamed", "new": "-", "nameless": "-", "cut off": "all of it",
	} {
		holds(t, at(name), want)
	}
}

// A journal makes earlier changes of entries durable with any sync, contents not.
func TestJournal(t *testing.T) {
	d, dir := disk(t, true)
	at := func(name string) string { return filepath.Join(dir, name) }
	try(t, os.Mkdir(at("folder"), 0o700))
	put(t, at("folder/early"), "not synced", false)
	put(t, at("synced"), "synced", true)
	put(t, at("late"), "late", false)
	try(t, d.Cut(nil))
	holds(t, at("folder/early"), "")
	holds(t, at("synced"), "synced")
	holds(t, at("late"), "-")
}

// The recipe for replacing a file: at every moment there is the old or the new one.
func TestReplaceAFile(t *testing.T) {
	for name, c := range map[string]struct {
		journal, content, folder bool
		want                     string
	}{
		"nothing synced":                   {false, false, false, "old"},
		"content synced":                   {false, true, false, "old"},
		"all synced":                       {false, true, true, "new"},
		"folder synced, content not":       {false, false, true, ""},
		"journal, content synced":          {true, true, false, "old"}, // the rename came after
		"journal, folder synced":           {true, true, true, "new"},
		"journal, folder synced, not file": {true, false, true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			d, dir := disk(t, c.journal)
			file, tmp := filepath.Join(dir, "file"), filepath.Join(dir, "tmp")
			put(t, file, "old", true)
			syncDir(t, dir)
			put(t, tmp, "new", c.content)
			try(t, os.Rename(tmp, file))
			if c.folder {
				syncDir(t, dir)
			}
			holds(t, file, "new")
			try(t, d.Cut(nil))
			holds(t, file, c.want)
		})
	}
}

// What survives by chance is sectors of the old or the new content, never anything
// else, and what was synced is among them.
func TestChance(t *testing.T) {
	d, dir := disk(t, false)
	name := filepath.Join(dir, "f")
	const sectors = 40
	mark := func(gen byte) []byte { return bytes.Repeat([]byte{gen}, sectors*sectorSize) }
	put(t, name, string(mark('a')), true)
	syncDir(t, dir)
	old, fresh := 0, 0
	for seed := range uint64(20) {
		try(t, os.Truncate(name, sectors*sectorSize))
		f, err := os.OpenFile(name, os.O_RDWR, 0)
		try(t, err)
		_, err = f.WriteAt(mark('a'), 0)
		try(t, err, f.Sync())
		_, err = f.WriteAt(mark('b'), 10*sectorSize)
		try(t, err, f.Close())
		try(t, d.Cut(rand.New(rand.NewPCG(seed, 1))))
		b, err := os.ReadFile(name)
		try(t, err)
		for i := 0; i < len(b); i += sectorSize {
			s := b[i:min(i+sectorSize, len(b))]
			if bytes.Count(s, s[:1]) != len(s) {
				t.Fatalf("seed %d: sector %d is torn", seed, i/sectorSize)
			}
			switch n := i / sectorSize; {
			case s[0] == 'a' && n < sectors:
				if n >= 10 {
					old++
				}
			case s[0] == 'b' && n >= 10 || s[0] == 0 && n >= sectors:
				fresh++
			default:
				t.Fatalf("seed %d: sector %d of %d holds %q", seed, n, len(b)/sectorSize, s[0])
			}
		}
	}
	if old < 100 || fresh < 100 {
		t.Errorf("%d sectors survived as they were, %d as they became: no chance", old, fresh)
	}
}

func TestFullDisk(t *testing.T) {
	d, dir := disk(t, false)
	try(t, os.Mkdir(filepath.Join(dir, "log"), 0o700), os.Mkdir(filepath.Join(dir, "data"), 0o700))
	name := filepath.Join(dir, "log", "f")
	put(t, name, "full", true)
	d.Set("log", Fault{Full: true})
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	try(t, err)
	defer f.Close()
	if _, err := f.WriteAt([]byte("more"), 4); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("a file grows on a full disk: %v", err)
	}
	if err := unix.Fallocate(int(f.Fd()), 0, 0, 1<<20); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("a full disk gives room: %v", err)
	}
	if free, err := (vfs.OS{}).FreeSpace(filepath.Join(dir, "log")); err != nil || free != 0 {
		t.Errorf("a full disk has %d bytes: %v", free, err)
	}
	_, err = f.WriteAt([]byte("FULL"), 0)
	try(t, err, f.Sync())
	put(t, filepath.Join(dir, "data", "f"), "elsewhere", true)
	d.Mend()
	_, err = f.WriteAt([]byte("more"), 4)
	try(t, err)
	holds(t, name, "FULLmore")
}

func TestStuckAndFailingSyncs(t *testing.T) {
	d, dir := disk(t, false)
	f, err := os.Create(filepath.Join(dir, "f"))
	try(t, err)
	defer f.Close()
	syncDir(t, dir)
	_, err = f.WriteString("text")
	try(t, err)

	d.Set("", Fault{Fail: true})
	if err := f.Sync(); !errors.Is(err, syscall.EIO) {
		t.Errorf("a failing sync says %v", err)
	}
	d.Set("", Fault{Stuck: true})
	done := make(chan error, 1)
	go func() { done <- f.Sync() }()
	awaitWaiting(t, d)
	d.Mend()
	try(t, <-done)

	const delay = 30 * time.Millisecond
	d.Set("", Fault{Delay: delay})
	began := time.Now()
	try(t, f.Sync())
	if took := time.Since(began); took < delay {
		t.Errorf("a slow sync took %v", took)
	}

	// A cut ends what waits.
	d.Set("", Fault{Stuck: true})
	_, err = f.WriteString(" and more")
	try(t, err)
	go func() { done <- f.Sync() }()
	awaitWaiting(t, d)
	try(t, d.Cut(nil))
	if err := <-done; err == nil {
		t.Error("a sync that was cut has succeeded")
	}
	holds(t, filepath.Join(dir, "f"), "text")
}

// A frozen disk does nothing for anybody: the moment of the cut is the same for all.
func TestFreeze(t *testing.T) {
	d, dir := disk(t, false)
	put(t, filepath.Join(dir, "f"), "text", true)
	syncDir(t, dir)
	d.Freeze()
	done := make(chan error, 1)
	go func() { done <- os.WriteFile(filepath.Join(dir, "f"), []byte("late"), 0o600) }()
	awaitWaiting(t, d)
	try(t, d.Cut(nil))
	if err := <-done; err == nil {
		t.Error("somebody has written after the cut")
	}
	holds(t, filepath.Join(dir, "f"), "text")
}

// What servers need besides reading and writing.
func TestWhatServersNeed(t *testing.T) {
	_, dir := disk(t, false)
	at := func(name string) string { return filepath.Join(dir, name) }
	put(t, at("unlinked"), "still there", false)
	f, err := os.OpenFile(at("unlinked"), os.O_RDWR, 0)
	try(t, err, os.Remove(at("unlinked")))
	defer f.Close()
	b := make([]byte, 5)
	if _, err := f.ReadAt(b, 0); err != nil || string(b) != "still" {
		t.Errorf("an open file that was removed holds %q: %v", b, err)
	}
	m, err := unix.Mmap(int(f.Fd()), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	try(t, err)
	// A call of the kernel's writes to the memory: a fault of the program itself would hold
	// one of its processors, and the disk needs one to answer.
	text := filepath.Join(t.TempDir(), "text")
	put(t, text, "STILL", false)
	from, err := os.Open(text)
	try(t, err)
	_, err = from.Read(m[:5])
	try(t, err, from.Close())
	try(t, unix.Msync(m, unix.MS_SYNC), unix.Munmap(m))
	if _, err := f.ReadAt(b, 0); err != nil || string(b) != "STILL" {
		t.Errorf("after a write through memory it holds %q: %v", b, err)
	}
	l, err := net.Listen("unix", at("sock"))
	try(t, err)
	c, err := net.Dial("unix", at("sock"))
	try(t, err, c.Close(), l.Close())
	try(t, os.Symlink("target", at("link")), os.Link(at("link"), at("link2")), os.MkdirAll(at("a/b/c"), 0o700), os.Chmod(at("a"), 0o711))
	if to, err := os.Readlink(at("link2")); err != nil || to != "target" {
		t.Errorf("a link leads to %q: %v", to, err)
	}
	for i := range 500 {
		put(t, at(fmt.Sprintf("a/%03d", i)), "x", false)
	}
	es, err := os.ReadDir(at("a"))
	if err != nil || len(es) != 501 {
		t.Errorf("a folder lists %d of 501 names: %v", len(es), err)
	}
	direct, err := os.OpenFile(at("direct"), os.O_RDWR|os.O_CREATE|unix.O_DIRECT, 0o600)
	try(t, err, direct.Close(), os.RemoveAll(at("a")))
}

// writerDir names the folder of a log to a process that writes it.
const writerDir = "PHXSQL_POWERLOSS_LOG"

func TestMain(m *testing.M) {
	if dir := os.Getenv(writerDir); dir != "" {
		if err := writeLog(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// writeLog writes a log until it is killed, and prints where it began and each record that it
// has synced.
func writeLog(dir string) error {
	l, err := wal.Open(wal.Options{FS: vfs.OS{}, Dir: dir, SegmentSize: 64 << 10})
	if err != nil {
		return err
	}
	_, last := l.Bounds(1)
	for i := last; ; i++ {
		if _, err := fmt.Println(i); err != nil {
			return err
		}
		if _, err := l.Append(wal.Record{Group: 1, Kind: wal.KindEntry, Index: i + 1, Payload: make([]byte, 900)}); err != nil {
			return err
		}
		if _, err := l.Sync(); err != nil {
			return err
		}
	}
}

// The log keeps what it has synced, whatever the cut leaves of the rest. Its writer is a
// process of its own, that is killed with the power.
func TestTheLogOnADiskThatLosesPower(t *testing.T) {
	d, dir := disk(t, false)
	synced := uint64(0)
	for seed := range uint64(6) {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), writerDir+"="+filepath.Join(dir, "log"))
		var complaint bytes.Buffer
		cmd.Stderr = &complaint
		out, err := cmd.StdoutPipe()
		try(t, err, cmd.Start())
		t.Cleanup(func() { _ = cmd.Process.Kill() })
		lines := bufio.NewScanner(out)
		next := func() uint64 {
			i, err := strconv.ParseUint(lines.Text(), 10, 64)
			try(t, err)
			return i
		}
		if !lines.Scan() {
			t.Fatalf("seed %d: the log does not open: %s", seed, &complaint)
		}
		first := next()
		if first < synced {
			t.Fatalf("seed %d: the log ends at %d, synced was %d", seed, first, synced)
		}
		for synced = first; synced < first+100 && lines.Scan(); {
			synced = next()
		}
		if synced < first+100 {
			t.Fatalf("seed %d: the log ends at %d, it began at %d: %s", seed, synced, first, &complaint)
		}
		d.Freeze()
		try(t, cmd.Process.Kill(), d.Cut(rand.New(rand.NewPCG(seed, 2))))
		for lines.Scan() { // what it said before it died
			if i, err := strconv.ParseUint(lines.Text(), 10, 64); err == nil {
				synced = max(synced, i)
			}
		}
		_ = cmd.Wait() // it was killed
	}
}

// A disk that does not answer is a matter of its own process.
func TestAFrozenDiskHoldsUpNoOther(t *testing.T) {
	d, _ := disk(t, false)
	d.Freeze()
	disk(t, false)
	try(t, d.Cut(nil))
}

// A child that had the device would keep the disk of a process that died from failing:
// whoever waits for it could not even be killed.
func TestChildrenDoNotHoldTheDisk(t *testing.T) {
	disk(t, false)
	cmd := exec.Command("sh", "-c", "ls -l /proc/$$/fd")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if bytes.Contains(out, []byte(fuseDevice)) {
		t.Errorf("a child holds the device:\n%s", out)
	}
}
