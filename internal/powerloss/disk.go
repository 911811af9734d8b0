package powerloss

import (
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// fuseDevice is how disks talk to the kernel.
const fuseDevice = "/dev/fuse"

// fsName is what mounts of this package are called in the system's table. Their source
// is the process that serves them.
const fsName = "powerloss"

// Options say what disk to make.
type Options struct {
	// Dir is where it is mounted; it is made when it is not there.
	Dir string
	// Store is a folder for what the disk holds; it must not exist.
	Store string
	// Journal names folders below the root in which the sync of anything makes all
	// earlier changes of entries durable; an empty name is all of the disk.
	Journal []string
}

// Disk is a mounted file system. Its methods may be called at the same time, but not
// by who holds files of it open.
type Disk struct {
	opt    Options
	server *fuse.Server

	mu      sync.Mutex
	tree    *tree
	faults  map[string]Fault
	frozen  bool
	cutting bool          // calls under way end
	changed chan struct{} // closed when anything above changes
	dirs    map[uint64][]fuse.DirEntry
	handles uint64
	syncs   int64
	waiting int // calls that wait for the disk to thaw, or to be well
}

// Mount makes an empty disk. The caller must Close it.
func Mount(opt Options) (*Disk, error) {
	removeDead()
	if err := os.MkdirAll(opt.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("mount disk: %w", err)
	}
	if err := os.Mkdir(opt.Store, 0o700); err != nil {
		return nil, fmt.Errorf("make store of disk: %w", err)
	}
	d := &Disk{opt: opt, tree: newTree(opt.Store, opt.Journal), faults: map[string]Fault{}, changed: make(chan struct{})}
	if err := d.mount(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(opt.Store))
	}
	return d, nil
}

// mount makes the disk visible.
func (d *Disk) mount() error {
	d.dirs, d.frozen, d.cutting = map[uint64][]fuse.DirEntry{}, false, false
	// No child may inherit the device: when this process died, the disk would hang
	// instead of failing, and with it whoever uses it, beyond the reach of SIGKILL.
	syscall.ForkLock.RLock()
	s, err := fuse.NewServer(&device{fuse.NewDefaultRawFileSystem(), d}, d.opt.Dir, &fuse.MountOptions{
		DirectMountStrict: true, FsName: strconv.Itoa(os.Getpid()), Name: fsName, MaxWrite: 1 << 20, MaxBackground: 512,
		DisableXAttrs: true, DisableReadDirPlus: true, Logger: log.New(io.Discard, "", 0),
	})
	cerr := closeOnExec()
	syscall.ForkLock.RUnlock()
	if err != nil {
		return fmt.Errorf("mount disk at %s: %w (hint: root and /dev/fuse are needed)", d.opt.Dir, err)
	}
	go s.Serve()
	d.server = s
	if err := errors.Join(cerr, s.WaitMount()); err != nil {
		return errors.Join(fmt.Errorf("mount disk at %s: %w", d.opt.Dir, err), d.unmount())
	}
	return nil
}

// closeOnExec keeps the descriptors of all disks of this process from its children. The
// library opens them without that, and does not tell them.
func closeOnExec() error {
	const dir = "/proc/self/fd"
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("find descriptors of disks: %w", err)
	}
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if to, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil && to == fuseDevice {
			unix.CloseOnExec(fd)
		}
	}
	return nil
}

// unmount ends every call under way with an error and takes the disk away.
func (d *Disk) unmount() error {
	d.mu.Lock()
	d.cutting = true
	d.wake()
	d.mu.Unlock()
	// The first call ends what is under way in the kernel; it is refused where files
	// are open, and says so.
	_ = unix.Unmount(d.opt.Dir, unix.MNT_FORCE)
	if err := unix.Unmount(d.opt.Dir, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("unmount disk at %s: %w", d.opt.Dir, err)
	}
	d.server.Wait()
	return nil
}

// Cut is a power cut and what follows it: what was not synced is gone, faults are over,
// and the disk is there again. Of what was not synced, chance lets a part survive; with
// a nil chance nothing does. Processes that have files of it open must have been killed;
// those that wait for the disk die now.
func (d *Disk) Cut(chance *rand.Rand) error {
	if err := d.unmount(); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.faults)
	if err := d.tree.cut(chance); err != nil {
		return fmt.Errorf("cut power of disk at %s: %w", d.opt.Dir, err)
	}
	d.frozen = false
	return d.remount()
}

// remount is mount with the lock held.
func (d *Disk) remount() error {
	d.mu.Unlock()
	defer d.mu.Lock()
	return d.mount()
}

// Syncs is how many syncs of files and folders have succeeded.
func (d *Disk) Syncs() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.syncs
}

// Waiting is how many calls wait for a frozen or stuck disk.
func (d *Disk) Waiting() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.waiting
}

// Close unmounts the disk and removes what it held.
func (d *Disk) Close() error {
	err := d.unmount()
	for _, n := range d.tree.nodes {
		if n.data != nil {
			n.data.drop()
		}
	}
	return errors.Join(err, os.RemoveAll(d.opt.Store))
}

// Possible reports why disks cannot be made here, or nil.
func Possible() error {
	f, err := os.OpenFile(fuseDevice, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("open /dev/fuse: %w", err)
	}
	_ = f.Close()
	if os.Geteuid() != 0 {
		return errors.New("mount needs root")
	}
	return nil
}

// removeDead unmounts disks whose process has ended without Close. It asks no disk: one of
// a process that lives may be frozen, or hang.
func removeDead() {
	table, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return
	}
	for line := range strings.Lines(string(table)) {
		f := strings.Fields(line)
		if len(f) < 3 || f[2] != "fuse."+fsName {
			continue
		}
		pid, err := strconv.Atoi(f[0])
		if err == nil && pid > 0 && errors.Is(unix.Kill(pid, 0), unix.ESRCH) {
			_ = unix.Unmount(f[1], unix.MNT_DETACH)
		}
	}
}

// fillAttr tells what is known about a node.
func fillAttr(n *inode, a *fuse.Attr) {
	*a = fuse.Attr{Ino: n.id, Mode: n.mode, Nlink: n.links, Blksize: blockSize}
	a.Uid, a.Gid = n.uid, n.gid
	t := n.changed
	a.SetTimes(&t, &t, &t)
	switch {
	case n.data != nil:
		a.Size = uint64(n.data.length())
		a.Blocks = (a.Size + sectorSize - 1) / sectorSize
	case n.dir():
		a.Nlink = 2
	default:
		a.Size = uint64(len(n.link))
	}
}

// cacheFor is how long the kernel may remember names and attributes: nobody else
// changes them.
const cacheFor = time.Hour
