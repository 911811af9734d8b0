package vfs

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Sync implements File with fdatasync: times of change are not worth a journal
// commit.
func (f *osFile) Sync() error {
	fd := int(f.f.Fd())
	for {
		err := unix.Fdatasync(fd)
		if err == nil {
			return nil
		}
		if err != unix.EINTR {
			return fmt.Errorf("fdatasync %s: %w", f.f.Name(), err)
		}
	}
}

// Preallocate implements File with fallocate, or by setting the size where the
// file system cannot do that.
func (f *osFile) Preallocate(size int64) error {
	old, err := f.Size()
	if err != nil || old >= size {
		return err
	}
	err = retryEINTR(func() error { return unix.Fallocate(int(f.f.Fd()), 0, 0, size) })
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return f.f.Truncate(size)
	}
	if err != nil {
		return fmt.Errorf("fallocate %d bytes for %s: %w", size, f.f.Name(), err)
	}
	return nil
}
