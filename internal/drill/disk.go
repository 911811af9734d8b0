package drill

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/phxsql/phxsql/internal/powerloss"
)

// The parts of a node's disk that faults of their own can have. Both are folders of
// the data directory; an empty name is all of it.
const (
	LogPart  = "log"
	DataPart = "mysqld"
)

// mountDisks puts every node's data on a disk of its own, if that is asked for.
func (c *Cluster) mountDisks() error {
	if !c.opt.Disks {
		return nil
	}
	for _, n := range c.Nodes {
		// MySQL counts on a file system with a journal, the agent does not.
		d, err := powerloss.Mount(powerloss.Options{Dir: n.dir, Store: n.dir + ".store", Journal: []string{DataPart}})
		if err != nil {
			return err
		}
		n.disk = d
	}
	return nil
}

// mendDisks ends all faults of disks; who waits for one goes on.
func (c *Cluster) mendDisks() {
	for _, n := range c.Nodes {
		n.mendDisk()
	}
}

func (n *Node) mendDisk() {
	if n.disk != nil {
		n.disk.Mend()
	}
}

func (c *Cluster) closeDisks() error {
	var errs []error
	for _, n := range c.Nodes {
		if n.disk == nil {
			continue
		}
		if text, err := os.ReadFile(filepath.Join(n.dir, DataPart, "error.log")); err == nil { // the rest goes with the disk
			errs = append(errs, os.WriteFile(n.dir+".mysqld.log", text, 0o600))
		}
		errs = append(errs, n.disk.Close())
		n.disk = nil
	}
	return errors.Join(errs...)
}

// Disk is the disk of the node's data; nil without Options.Disks.
func (n *Node) Disk() *powerloss.Disk { return n.disk }

// LosePower cuts the power of nodes at one moment: their processes are gone, and what
// was not synced with them. Of that, chance lets a part survive; with a nil chance
// nothing does. Only with Options.Disks.
func (c *Cluster) LosePower(nodes []*Node, chance *rand.Rand) error {
	var errs []error
	nodes = slices.DeleteFunc(slices.Clone(nodes), func(n *Node) bool {
		if n.disk == nil { // it was added: its machine's disk loses nothing
			errs = append(errs, n.KillAll())
		}
		return n.disk == nil
	})
	for _, n := range nodes {
		n.disk.Freeze()
	}
	for _, n := range nodes {
		errs = append(errs, n.losePower())
	}
	for _, n := range nodes {
		// Who waits for the disk dies only now.
		if err := n.disk.Cut(chance); err != nil {
			return errors.Join(append(errs, err)...)
		}
		if n.cmd != nil {
			<-n.exited
		}
	}
	return errors.Join(errs...)
}

// losePower kills what runs, without waiting for its end.
func (n *Node) losePower() error {
	if !n.Running() {
		return nil
	}
	pid, err := n.ServerPID()
	if kerr := n.signal(syscall.SIGKILL); kerr != nil {
		return kerr
	}
	if err != nil {
		return nil // it has no server now
	}
	if err := ignoreGone(syscall.Kill(pid, syscall.SIGKILL)); err != nil {
		return fmt.Errorf("cut power of node %d: %w", n.ID, err)
	}
	return nil
}
