// Command paxosbench measures package paxos/node beside other consensus libraries,
// all in the same way and in the same minutes.
//
//	go run .                        the whole table, see -limit
//	go run . -systems ours,etcd-raft -sizes 1024 -proposers 1,64 -secs 5
//
// A cell is a system, a number of groups, a size of values and a number of
// proposers. Each system runs as three processes on the loopback interface, every
// replica on a directory of its own, with fsync on. Proposers live in the leader's
// process, are closed loops, and choose a group at random for each value; a commit
// counts when its value is committed and applied on the leader. Systems take turns
// within each repetition, so that a noisy moment hits all of them; the table has the
// medians. CPU is that of all three processes, user and system, between the start and
// the end of the measured time; memory is the peak of the largest process.
//
// The floors are what the disk can do: for one thread that appends and syncs, for one
// that writes over what was written before, and for three of these at once, as the nodes
// of a cluster that share a disk sync a commit, until two of them are done.
//
// Everything ends by itself: each step has a time limit, and -limit ends the whole
// run with what was measured so far.
//
// This is a module of its own so that the other libraries stay out of the main one.
package main
