package powerloss

import (
	"syscall"
	"time"
)

// Fault is what is wrong with a part of a disk. The zero Fault is a disk that is well.
type Fault struct {
	// Full: nothing can grow. What has its room already can be overwritten.
	Full bool
	// Delay is how much longer every sync takes.
	Delay time.Duration
	// Stuck: syncs wait until this ends, and so do reads and writes that pass by the
	// kernel's cache.
	Stuck bool
	// Fail: syncs fail with EIO, and nothing is durable.
	Fail bool
}

// Set changes what is wrong with the folder of this name below the root, and
// everything in it; with an empty name, with everything that has no fault of its own.
func (d *Disk) Set(folder string, f Fault) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.faults[folder] = f
	d.wake()
}

// Mend ends all faults.
func (d *Disk) Mend() {
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.faults)
	d.wake()
}

// Freeze lets every call wait, until Cut: the moment of a power cut. What is killed
// meanwhile does nothing more.
func (d *Disk) Freeze() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.frozen = true
}

// wake has everybody who waits look again.
func (d *Disk) wake() {
	close(d.changed)
	d.changed = make(chan struct{})
}

func (d *Disk) fault(area string) Fault {
	if f, ok := d.faults[area]; ok {
		return f
	}
	return d.faults[""]
}

// enter waits while the disk is frozen, and takes the lock. An error means that the
// disk has been cut; the lock is not taken then.
func (d *Disk) enter() syscall.Errno {
	d.mu.Lock()
	for d.frozen && !d.cutting {
		d.rest()
	}
	if d.cutting {
		d.mu.Unlock()
		return syscall.EIO
	}
	return 0
}

// rest waits for a change, with the lock given up meanwhile.
func (d *Disk) rest() {
	changed := d.changed
	d.waiting++
	d.mu.Unlock()
	<-changed
	d.mu.Lock()
	d.waiting--
}

// device waits for the device that a node is on, as calls do that reach it; with the
// lock held. It returns what is wrong with the device then.
func (d *Disk) device(n *inode) (Fault, syscall.Errno) {
	for (d.frozen || d.fault(n.area).Stuck) && !d.cutting {
		d.rest()
	}
	if d.cutting {
		return Fault{}, syscall.EIO
	}
	return d.fault(n.area), 0
}

// grows refuses what needs room that there is not; with the lock held.
func (d *Disk) grows(n *inode) syscall.Errno {
	if d.fault(n.area).Full {
		return syscall.ENOSPC
	}
	return 0
}

// sync makes a node durable, as far as the device lets it; with the lock held.
func (d *Disk) sync(n *inode) syscall.Errno {
	f, errno := d.device(n)
	if errno != 0 {
		return errno
	}
	if f.Delay > 0 {
		t := time.NewTimer(f.Delay)
		defer t.Stop()
		for late := false; !late && !d.cutting; {
			changed := d.changed
			d.mu.Unlock()
			select {
			case <-t.C:
				late = true
			case <-changed:
			}
			d.mu.Lock()
		}
		if f, errno = d.device(n); errno != 0 {
			return errno
		}
	}
	if f.Fail {
		return syscall.EIO
	}
	d.syncs++
	if n.data != nil {
		n.data.flush()
	}
	d.tree.sync(n)
	return 0
}
