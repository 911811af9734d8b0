// Package powerloss is a file system for drills: it forgets what was not synced.
//
// A Disk is mounted where a node keeps its data. What processes write is there for
// all of them to read, as on any disk. Cut is a power cut: afterwards the disk holds
//
//   - of a file, what it held at its last fsync or fdatasync, its size included;
//   - of a folder, the entries of its last fsync. A rename is one change: both names
//     or neither. Where Options.Journal says so, the sync of any file or folder makes
//     all earlier changes of entries durable, as ext4 and XFS do.
//
// With a source of randomness, Cut lets a part of what was not synced survive: sectors
// of 512 bytes each by itself, and changes of entries up to some moment.
//
// Set makes a part of the disk full, slow, stuck, or fail its syncs. A process that
// waits for a stuck disk cannot be killed before the disk answers or is cut, as with a
// real one.
//
// What it does not do: times, owners and permissions survive a cut as they are. What
// is written through a shared mapping counts from the moment that the kernel writes it
// back. It needs root and /dev/fuse.
package powerloss
