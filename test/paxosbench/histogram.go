package main

import (
	"math/bits"
	"time"
)

// histogram counts durations in buckets that are about 3 per cent wide: 32 for each
// power of two of microseconds.
type histogram struct {
	buckets [32 * 32]int64
	count   int64
	max     time.Duration
}

func bucket(d time.Duration) int {
	us := uint64(max(d, 0) / time.Microsecond)
	if us < 64 {
		return int(us)
	}
	shift := bits.Len64(us) - 6
	return min(32*(shift+1)+int(us>>shift)-32, 32*32-1)
}

// lower is the smallest duration of a bucket.
func lower(b int) time.Duration {
	if b < 64 {
		return time.Duration(b) * time.Microsecond
	}
	shift := b/32 - 1
	return time.Duration((b%32+32)<<shift) * time.Microsecond
}

func (h *histogram) add(d time.Duration) {
	h.buckets[bucket(d)]++
	h.count++
	h.max = max(h.max, d)
}

func (h *histogram) merge(o *histogram) {
	for i, n := range o.buckets {
		h.buckets[i] += n
	}
	h.count += o.count
	h.max = max(h.max, o.max)
}

func (h *histogram) quantile(q float64) time.Duration {
	rank := int64(q * float64(h.count))
	for b, n := range h.buckets {
		if rank -= n; rank < 0 {
			return lower(b)
		}
	}
	return h.max
}
