package wal_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/phxsql/phxsql/vfs"
	"github.com/phxsql/phxsql/wal"
)

const benchPayload = 1024

// BenchmarkFloor is what the device gives: one write and one fdatasync of n
// records at a time into a file that was written before, or is fresh.
func BenchmarkFloor(b *testing.B) {
	for _, written := range []bool{true, false} {
		for _, n := range []int{1, 16, 64} {
			b.Run(fmt.Sprintf("written=%v/batch=%d", written, n), func(b *testing.B) { benchFloor(b, written, n) })
		}
	}
}

func benchFloor(b *testing.B, written bool, n int) {
	f, err := vfs.OS{}.Create(b.TempDir() + "/file")
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	const size = 64 << 20
	if written {
		for off := int64(0); off < size; off += 1 << 20 {
			f.WriteAt(make([]byte, 1<<20), off)
		}
		f.Sync()
	}
	buf := make([]byte, n*(benchPayload+32)+32)
	off := int64(0)
	b.SetBytes(int64(n * benchPayload))
	took := make([]time.Duration, 0, b.N)
	b.ResetTimer()
	for range b.N {
		if off+int64(len(buf)) > size {
			off = 0
		}
		start := time.Now()
		f.WriteAt(buf, off)
		if err := f.Sync(); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(start))
		off += int64(len(buf))
	}
	report(b, n, took)
}

// report adds the rate of records and the times of single syncs.
func report(b *testing.B, n int, took []time.Duration) {
	b.StopTimer()
	slices.Sort(took)
	b.ReportMetric(float64(b.N)*float64(n)/b.Elapsed().Seconds(), "records/s")
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-us")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-us")
}

// BenchmarkAppendSync appends n records of 1 KB and syncs them, with segments
// that are filled with zeros beforehand and without.
func BenchmarkAppendSync(b *testing.B) {
	for _, prepared := range []bool{true, false} {
		for _, n := range []int{1, 16, 64} {
			b.Run(fmt.Sprintf("prepared=%v/batch=%d", prepared, n), func(b *testing.B) {
				benchAppendSync(b, wal.Options{FS: vfs.OS{}, Dir: b.TempDir(), Inline: !prepared}, n, benchPayload)
			})
		}
	}
}

// BenchmarkAppendSyncMem is the same without a disk: the cost of the log itself.
func BenchmarkAppendSyncMem(b *testing.B) {
	for _, n := range []int{1, 64} {
		b.Run(fmt.Sprintf("batch=%d", n), func(b *testing.B) {
			benchAppendSync(b, wal.Options{FS: vfs.NewMem(), Dir: "/log", SegmentSize: 1 << 20, Inline: true}, n, benchPayload)
		})
	}
}

// BenchmarkAppendSyncLarge is the same with records of 100 KB, which are not copied: what
// is allocated does not grow with them.
func BenchmarkAppendSyncLarge(b *testing.B) {
	for _, n := range []int{1, 16} {
		b.Run(fmt.Sprintf("batch=%d", n), func(b *testing.B) {
			benchAppendSync(b, wal.Options{FS: vfs.OS{}, Dir: b.TempDir()}, n, 100<<10)
		})
	}
}

func benchAppendSync(b *testing.B, opt wal.Options, n, size int) {
	l := open(b, opt)
	defer l.Close()
	recs := make([]wal.Record, n)
	payload := make([]byte, size)
	keep := uint64(20_000 * benchPayload / size)
	index := uint64(0)
	b.SetBytes(int64(n * size))
	b.ReportAllocs()
	took := make([]time.Duration, 0, b.N)
	b.ResetTimer()
	for range b.N {
		for i := range recs {
			index++
			recs[i] = wal.Record{Group: 1, Kind: wal.KindEntry, Index: index, Payload: payload}
		}
		start := time.Now()
		if _, err := l.Append(recs...); err != nil {
			b.Fatal(err)
		}
		if _, err := l.Sync(); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(start))
		if index > keep {
			l.TrimBelow(1, index-keep)
		}
	}
	report(b, n, took)
}

// BenchmarkRead reads entries of 1 KB from the page cache.
func BenchmarkRead(b *testing.B) {
	l := open(b, wal.Options{FS: vfs.OS{}, Dir: b.TempDir()})
	defer l.Close()
	const entries = 10_000
	for i := uint64(1); i <= entries; i++ {
		if _, err := l.Append(wal.Record{Group: 1, Kind: wal.KindEntry, Index: i, Payload: make([]byte, benchPayload)}); err != nil {
			b.Fatal(err)
		}
	}
	if _, err := l.Sync(); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(benchPayload)
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		if _, err := l.Read(1, uint64(i%entries)+1); err != nil {
			b.Fatal(err)
		}
	}
}
