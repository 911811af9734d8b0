package powerloss

import (
	"slices"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// device answers the kernel's calls. Numbers of nodes are those of the tree, and stand
// for open files too.
type device struct {
	fuse.RawFileSystem
	d *Disk
}

func (*device) String() string { return fsName }

// with runs f with the lock and the node of a call.
func (v *device) with(id uint64, f func(*inode) syscall.Errno) fuse.Status {
	if errno := v.d.enter(); errno != 0 {
		return fuse.Status(errno)
	}
	defer v.d.mu.Unlock()
	n := v.d.tree.nodes[id]
	if n == nil {
		return fuse.Status(syscall.ESTALE)
	}
	return fuse.Status(f(n))
}

func errno(err error) syscall.Errno {
	if err == nil {
		return 0
	}
	return syscall.Errno(fuse.ToStatus(err))
}

func tell(n *inode, out *fuse.EntryOut) {
	out.NodeId, out.Generation = n.id, 1
	out.SetEntryTimeout(cacheFor)
	out.SetAttrTimeout(cacheFor)
	fillAttr(n, &out.Attr)
}

func (v *device) Lookup(_ <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	return v.with(h.NodeId, func(dir *inode) syscall.Errno {
		n := dir.names[name]
		if n == nil {
			return syscall.ENOENT
		}
		tell(n, out)
		return 0
	})
}

func (v *device) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	return v.with(in.NodeId, func(n *inode) syscall.Errno {
		out.SetTimeout(cacheFor)
		fillAttr(n, &out.Attr)
		return 0
	})
}

func (v *device) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	return v.with(in.NodeId, func(n *inode) syscall.Errno {
		if size, ok := in.GetSize(); ok && n.data != nil {
			if e := v.resize(n, int64(size)); e != 0 {
				return e
			}
		}
		if mode, ok := in.GetMode(); ok {
			n.mode = n.mode&syscall.S_IFMT | mode&^syscall.S_IFMT
		}
		if uid, ok := in.GetUID(); ok {
			n.uid = uid
		}
		if gid, ok := in.GetGID(); ok {
			n.gid = gid
		}
		if t, ok := in.GetMTime(); ok {
			n.changed = t
		}
		out.SetTimeout(cacheFor)
		fillAttr(n, &out.Attr)
		return 0
	})
}

func (v *device) resize(n *inode, size int64) syscall.Errno {
	if size > n.data.length() {
		if e := v.d.grows(n); e != 0 {
			return e
		}
	}
	n.changed = time.Now()
	return errno(n.data.resize(size))
}

// make makes a node of any kind.
func (v *device) make(h *fuse.InHeader, name string, n *inode, out *fuse.EntryOut) fuse.Status {
	n.uid, n.gid = h.Uid, h.Gid
	return v.with(h.NodeId, func(dir *inode) syscall.Errno {
		n, err := v.d.tree.create(dir, name, n)
		if err == nil {
			tell(n, out)
		}
		return errno(err)
	})
}

func (v *device) Mknod(_ <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	return v.make(&in.InHeader, name, &inode{mode: in.Mode}, out)
}

func (v *device) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	return v.make(&in.InHeader, name, &inode{mode: in.Mode&^syscall.S_IFMT | syscall.S_IFDIR}, out)
}

func (v *device) Symlink(_ <-chan struct{}, h *fuse.InHeader, to, name string, out *fuse.EntryOut) fuse.Status {
	return v.make(h, name, &inode{mode: syscall.S_IFLNK | 0o777, link: to}, out)
}

func (v *device) Readlink(_ <-chan struct{}, h *fuse.InHeader) (link []byte, st fuse.Status) {
	st = v.with(h.NodeId, func(n *inode) syscall.Errno {
		link = []byte(n.link)
		return 0
	})
	return link, st
}

func (v *device) Link(_ <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	return v.with(in.NodeId, func(dir *inode) syscall.Errno {
		n := v.d.tree.nodes[in.Oldnodeid]
		switch {
		case n == nil:
			return syscall.ESTALE
		case dir.names[name] != nil:
			return syscall.EEXIST
		}
		v.d.tree.apply(change{{dir, name, n}})
		tell(n, out)
		return 0
	})
}

func (v *device) Unlink(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	return v.with(h.NodeId, func(dir *inode) syscall.Errno { return errno(v.d.tree.unlink(dir, name, false)) })
}

func (v *device) Rmdir(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	return v.with(h.NodeId, func(dir *inode) syscall.Errno { return errno(v.d.tree.unlink(dir, name, true)) })
}

func (v *device) Rename(_ <-chan struct{}, in *fuse.RenameIn, name, as string) fuse.Status {
	return v.with(in.NodeId, func(from *inode) syscall.Errno {
		to := v.d.tree.nodes[in.Newdir]
		switch {
		case to == nil:
			return syscall.ESTALE
		case in.Flags&^unix.RENAME_NOREPLACE != 0:
			return syscall.EINVAL
		}
		return errno(v.d.tree.rename(from, name, to, as, in.Flags != 0))
	})
}

func (v *device) Create(c <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	st := v.make(&in.InHeader, name, &inode{mode: in.Mode&^syscall.S_IFMT | syscall.S_IFREG, opens: 1}, &out.EntryOut)
	out.Fh = out.NodeId
	return st
}

func (v *device) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	return v.with(in.NodeId, func(n *inode) syscall.Errno {
		if in.Flags&syscall.O_TRUNC != 0 && n.data != nil {
			if e := v.resize(n, 0); e != 0 {
				return e
			}
		}
		n.opens++
		out.Fh = n.id
		return 0
	})
}

func (v *device) Release(_ <-chan struct{}, in *fuse.ReleaseIn) {
	v.d.mu.Lock()
	defer v.d.mu.Unlock()
	if n := v.d.tree.nodes[in.NodeId]; n != nil && n.opens > 0 {
		n.opens--
	}
}

func (v *device) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	var data *content
	st := v.with(in.NodeId, func(n *inode) syscall.Errno {
		data = n.data
		if in.Flags&unix.O_DIRECT == 0 {
			return 0
		}
		_, e := v.d.device(n)
		return e
	})
	if st != fuse.OK {
		return nil, st
	}
	if data == nil {
		return nil, fuse.EINVAL
	}
	n, err := data.read(buf, int64(in.Offset))
	return fuse.ReadResultData(buf[:n]), fuse.ToStatus(err)
}

func (v *device) Write(_ <-chan struct{}, in *fuse.WriteIn, p []byte) (uint32, fuse.Status) {
	st := v.with(in.NodeId, func(n *inode) syscall.Errno {
		if n.data == nil {
			return syscall.EINVAL
		}
		if in.Flags&unix.O_DIRECT != 0 {
			if _, e := v.d.device(n); e != 0 {
				return e
			}
		}
		if int64(in.Offset)+int64(len(p)) > n.data.length() {
			if e := v.d.grows(n); e != 0 {
				return e
			}
		}
		n.changed = time.Now()
		if err := n.data.write(p, int64(in.Offset)); err != nil {
			return errno(err)
		}
		if in.Flags&unix.O_DSYNC != 0 {
			return v.d.sync(n)
		}
		return 0
	})
	if st != fuse.OK {
		return 0, st
	}
	return uint32(len(p)), st
}

func (v *device) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status { return fuse.OK }

func (v *device) Fsync(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	return v.with(in.NodeId, v.d.sync)
}

func (v *device) FsyncDir(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	return v.with(in.NodeId, v.d.sync)
}

// The modes of fallocate that are known here.
const (
	keepSize  = 1
	punchHole = 2
)

func (v *device) Fallocate(_ <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	return v.with(in.NodeId, func(n *inode) syscall.Errno {
		from, to := int64(in.Offset), int64(in.Offset+in.Length)
		switch {
		case n.data == nil:
			return syscall.EINVAL
		case in.Mode == keepSize|punchHole:
			return errno(n.data.zero(from, to))
		case in.Mode == keepSize:
			return v.d.grows(n)
		case in.Mode != 0:
			return syscall.EOPNOTSUPP
		case to > n.data.length():
			return v.resize(n, to)
		}
		return 0
	})
}

func (v *device) OpenDir(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	return v.with(in.NodeId, func(dir *inode) syscall.Errno {
		es := []fuse.DirEntry{{Name: ".", Mode: syscall.S_IFDIR}, {Name: "..", Mode: syscall.S_IFDIR}}
		for name, n := range dir.names {
			es = append(es, fuse.DirEntry{Name: name, Mode: n.mode, Ino: n.id})
		}
		slices.SortFunc(es, func(a, b fuse.DirEntry) int {
			if a.Name < b.Name {
				return -1
			}
			return 1
		})
		v.d.handles++
		out.Fh = v.d.handles
		v.d.dirs[out.Fh] = es
		return 0
	})
}

func (v *device) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return v.with(in.NodeId, func(*inode) syscall.Errno {
		es := v.d.dirs[in.Fh]
		for i := in.Offset; i < uint64(len(es)) && out.AddDirEntry(es[i]); i++ {
		}
		return 0
	})
}

func (v *device) ReleaseDir(in *fuse.ReleaseIn) {
	v.d.mu.Lock()
	defer v.d.mu.Unlock()
	delete(v.d.dirs, in.Fh)
}

func (v *device) Access(<-chan struct{}, *fuse.AccessIn) fuse.Status { return fuse.OK }

// StatFs tells of a disk of 64 GiB that is empty, or full.
func (v *device) StatFs(_ <-chan struct{}, h *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	return v.with(h.NodeId, func(n *inode) syscall.Errno {
		const blocks = 64 << 30 / blockSize
		*out = fuse.StatfsOut{Blocks: blocks, Bsize: blockSize, Frsize: blockSize, NameLen: 255, Files: 1 << 20, Ffree: 1 << 20}
		if !v.d.fault(n.area).Full {
			out.Bfree, out.Bavail = blocks, blocks
		}
		return 0
	})
}
