//go:build race

package node

// raced says that the race detector is on, which makes large values slow.
const raced = true
