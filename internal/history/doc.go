// Package history judges what clients of a database were told: pure functions over
// recorded transactions, without clock, network or randomness.
//
// Transactions append unique values to lists and read whole lists. As every value is
// written once, a list tells the order in which its values were written, and every read
// tells which version it saw. From that follows how transactions depend on each other:
//
//	ww  one appended right after the other, to the same list
//	wr  one read what the other appended
//	rw  one read a list that lacks the other's append, which came next
//	rt  one had ended before the other began
//
// A cycle of such edges, or a list that contradicts another one, is an anomaly. The
// names are those of Adya, "Weak Consistency: A Generalized Theory and Optimistic
// Implementations for Distributed Transactions" (1999); the inference is that of
// Kingsbury and Alvaro, "Elle" (2020).
//
// An outcome that nobody was told is Unknown: such a transaction counts as committed
// when a value of it is seen, and as nothing otherwise.
package history
