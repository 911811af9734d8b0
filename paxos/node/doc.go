// Package node runs replicated state machines: it puts the pure core of package
// paxos on a real log, real sockets and a real clock, in the spirit of PhxPaxos's
// Node and StateMachine.
//
// A Node is one process of a cluster. It runs one or many groups; each group is an
// independent log of values that a majority of its members agrees on, and has a
// state machine to which the values are applied in order. All groups share one log
// on disk, and so one fdatasync, and one connection to each peer.
//
// # How to use it
//
// Write a StateMachine, open a Node on each machine with the same Cluster and
// Members, wait for a leader with WaitLeader, Propose on it. The samples echo,
// election and kv in this repository are complete programs.
//
// # What it guarantees
//
//   - One value for each instance, for ever, on all members, whatever crashes,
//     pauses, or messages are lost, doubled or reordered.
//   - A value whose Propose returned without error was on the disks of a majority
//     (fdatasync) before, and was applied here.
//   - Apply is called for each value exactly once in the life of a Node, in the order
//     of instances, beginning behind StateMachine.Applied. Whether a value is applied
//     again after a restart is up to what Applied then says.
//   - While LeaseValid says true, no other member can get a value chosen. After
//     Barrier, reading the local state machine is linearizable.
//   - A node whose disk was replaced is refused by the others: it has forgotten what
//     it promised, and must be removed and added again under another id.
//
// # How members change
//
// AddMember, RemoveMember and ReplaceMember change who belongs to a group, one change at
// a time, on the leader. A new node begins as a Learner. When Behind says that it has
// caught up it becomes a voter, or takes the place of another. A leader that is to go hands
// over first. What would leave no majority of the voters up is refused with ErrNoMajority;
// who wants it all the same says so with ...EvenIfNoMajorityIsLeft.
//
// SetLease changes how long a node grants leases, while the group runs.
//
// # What it assumes
//
//   - Machines stop, they do not lie: no Byzantine faults.
//   - fdatasync makes data durable. When it fails the Node stops for good
//     (Options.Failed): trying again would lie.
//   - The clocks' rates differ by no more than Options.ClockError. Nothing depends on
//     what time they show. Without this only LeaseValid and Barrier lose their meaning;
//     the agreement does not.
//   - Network partners hold the cluster's credentials. Options.Insecure is for tests,
//     benchmarks and networks that are trusted.
//
// # Its limits
//
//   - A value has at most MaxValue bytes; a larger one is refused with ErrTooLarge. Apply
//     gets a value as a whole, so each member needs memory for the largest one.
//   - An unknown outcome stays unknown: see ErrUnknown. Values that must not count
//     twice carry an identity of their own, which the state machine remembers.
//   - Trim keeps what a member still lacks, Group.Retain instances at most if the state
//     machine is a Snapshotter; else a member that is away for long holds up trimming
//     until it comes back or is removed.
//   - Proposals go through the leader only; elsewhere they fail with ErrNotLeader, and
//     Leader says whom to ask.
package node
