package powerloss

import (
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// maxChanges is how many changes of entries may wait for a sync. At the limit the
// older half becomes durable by itself, as a kernel does in time.
const maxChanges = 4096

// rootID is the folder that is mounted; FUSE names it so.
const rootID = 1

// inode is a file, a folder, or anything else that has a name.
type inode struct {
	id       uint64
	mode     uint32 // kind and permissions
	uid, gid uint32
	changed  time.Time
	link     string // of a symbolic link
	area     string // the folder below the root that it was made in
	data     *content
	names    map[string]*inode // of a folder, as processes see it
	durable  map[string]*inode // of a folder, as a cut leaves it
	links    uint32
	opens    int
}

func (i *inode) dir() bool { return i.mode&syscall.S_IFMT == syscall.S_IFDIR }

// entry is one name that gets another meaning; a nil node removes it.
type entry struct {
	dir  *inode
	name string
	node *inode
}

// change is what one call does to folders: it is durable as a whole or not at all.
type change []entry

func (c change) touches(dir *inode, name string) bool {
	return slices.ContainsFunc(c, func(e entry) bool { return e.dir == dir && (name == "" || e.name == name) })
}

// tree is the folders of a disk. It is not safe for concurrent use.
type tree struct {
	store   string // folder of the files' contents
	journal []string
	nodes   map[uint64]*inode
	last    uint64
	pending []change // not durable, oldest first
	removed int      // names removed since the last sweep
}

func newTree(store string, journal []string) *tree {
	t := &tree{store: store, journal: journal, nodes: map[uint64]*inode{}}
	root := t.add(&inode{mode: syscall.S_IFDIR | 0o755})
	root.links = 1
	return t
}

// add gives a node its number.
func (t *tree) add(n *inode) *inode {
	t.last++
	n.id, n.changed = t.last, time.Now()
	if n.dir() {
		n.names, n.durable = map[string]*inode{}, map[string]*inode{}
	}
	t.nodes[n.id] = n
	return n
}

// create makes a node with a name.
func (t *tree) create(dir *inode, name string, n *inode) (*inode, error) {
	if _, ok := dir.names[name]; ok {
		return nil, syscall.EEXIST
	}
	t.add(n)
	n.area = dir.area
	if dir.id == rootID && n.dir() {
		n.area = name
	}
	if n.mode&syscall.S_IFMT == syscall.S_IFREG {
		var err error
		if n.data, err = newContent(filepath.Join(t.store, strconv.FormatUint(n.id, 10))); err != nil {
			delete(t.nodes, n.id)
			return nil, err
		}
	}
	t.apply(change{{dir, name, n}})
	return n, nil
}

// apply makes a change visible; a sync makes it durable.
func (t *tree) apply(c change) {
	for _, e := range c {
		if old := e.dir.names[e.name]; old != nil {
			old.links--
			delete(e.dir.names, e.name)
			t.removed++
		}
	}
	for _, e := range c {
		e.dir.changed = time.Now()
		if e.node != nil {
			e.dir.names[e.name] = e.node
			e.node.links++
		}
	}
	if t.undoes(c) {
		return
	}
	t.pending = append(t.pending, c)
	if len(t.pending) > maxChanges {
		t.commit(t.pending[:maxChanges/2])
		t.pending = slices.Clone(t.pending[maxChanges/2:])
	}
}

// undoes reports whether c removes a name whose creation is not durable, and was the
// only thing that happened to it. Then nothing has happened.
func (t *tree) undoes(c change) bool {
	if len(c) != 1 || c[0].node != nil || c[0].dir.durable[c[0].name] != nil {
		return false
	}
	found := -1
	for i, p := range t.pending {
		if p.touches(c[0].dir, c[0].name) {
			if found >= 0 || len(p) != 1 {
				return false
			}
			found = i
		}
	}
	if found < 0 {
		return false
	}
	t.pending = slices.Delete(t.pending, found, found+1)
	return true
}

func (t *tree) unlink(dir *inode, name string, folder bool) error {
	n := dir.names[name]
	switch {
	case n == nil:
		return syscall.ENOENT
	case folder && !n.dir():
		return syscall.ENOTDIR
	case !folder && n.dir():
		return syscall.EISDIR
	case folder && len(n.names) > 0:
		return syscall.ENOTEMPTY
	}
	t.apply(change{{dir, name, nil}})
	return nil
}

func (t *tree) rename(from *inode, name string, to *inode, as string, keep bool) error {
	n, over := from.names[name], to.names[as]
	switch {
	case n == nil:
		return syscall.ENOENT
	case n == over:
		return nil
	case over != nil && keep:
		return syscall.EEXIST
	case over != nil && over.dir() && !n.dir():
		return syscall.EISDIR
	case over != nil && !over.dir() && n.dir():
		return syscall.ENOTDIR
	case over != nil && over.dir() && len(over.names) > 0:
		return syscall.ENOTEMPTY
	}
	t.apply(change{{from, name, nil}, {to, as, n}})
	return nil
}

// sync makes durable what the sync of a node makes durable of the folders.
func (t *tree) sync(n *inode) {
	journal := slices.Contains(t.journal, n.area) || slices.Contains(t.journal, "")
	if !n.dir() && !journal {
		return
	}
	rest := t.pending[:0:0]
	for _, c := range t.pending {
		if c.touches(n, "") || journal && (c[0].dir.area == n.area || slices.Contains(t.journal, "")) {
			t.commit([]change{c})
		} else {
			rest = append(rest, c)
		}
	}
	t.pending = rest
}

func (t *tree) commit(cs []change) {
	for _, c := range cs {
		for _, e := range c {
			if e.node == nil {
				delete(e.dir.durable, e.name)
			} else {
				e.dir.durable[e.name] = e.node
			}
		}
	}
	t.sweep(false)
}

// sweep drops what nobody can reach: not by name, not after a cut, not by an open
// file. Now and then only, unless it must be.
func (t *tree) sweep(must bool) {
	if t.removed < 64 && !must {
		return
	}
	t.removed = 0
	live := map[*inode]bool{}
	var mark func(*inode)
	mark = func(n *inode) {
		if n == nil || live[n] {
			return
		}
		live[n] = true
		for _, m := range n.names {
			mark(m)
		}
		for _, m := range n.durable {
			mark(m)
		}
	}
	mark(t.nodes[rootID])
	for _, c := range t.pending {
		for _, e := range c {
			mark(e.dir)
			mark(e.node)
		}
	}
	for id, n := range t.nodes {
		if n.opens > 0 || live[n] {
			continue
		}
		if n.data != nil {
			n.data.drop()
		}
		delete(t.nodes, id)
	}
}

// cut forgets what is not durable. Nothing is open any more.
func (t *tree) cut(chance *rand.Rand) error {
	if chance != nil && len(t.pending) > 0 {
		t.commit(t.pending[:chance.IntN(len(t.pending)+1)])
	}
	t.pending = nil
	for _, n := range t.nodes {
		n.opens, n.links = 0, 0
		if n.dir() {
			n.names = maps.Clone(n.durable)
		}
	}
	t.sweep(true)
	for _, id := range slices.Sorted(maps.Keys(t.nodes)) {
		n := t.nodes[id]
		for _, m := range n.names {
			m.links++
		}
		if n.data == nil {
			continue
		}
		if err := n.data.cut(chance); err != nil {
			return err
		}
	}
	t.nodes[rootID].links = 1
	return nil
}
