//go:build unix && !linux

package vfs

// Sync implements File.
func (f *osFile) Sync() error { return f.f.Sync() }

// Preallocate implements File by setting the size: space is not reserved.
func (f *osFile) Preallocate(size int64) error {
	old, err := f.Size()
	if err != nil || old >= size {
		return err
	}
	return f.f.Truncate(size)
}
