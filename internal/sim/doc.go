// Package sim runs whole groups of replicas in one goroutine, on one seed, under
// every kind of bad luck, and judges what they do.
//
// What runs is the code of production: package replica on packages paxos and wal,
// the log on vfs.Mem, which loses at a crash what was not synced. What is made
// here is the world around it: time, clocks that run at different rates, a network
// that loses, doubles, delays, reorders and parts, disks that take time to sync,
// nodes that pause, crash and come back, an operator who moves leadership and
// changes the membership, applications that forget the log and copy a snapshot from
// each other when they lack what all have forgotten. Disks run full, syncs fail, which
// ends the process, and on one node of a schedule bits flip (disk.go). All of it is drawn from one seed, so a schedule that
// goes wrong goes wrong again.
//
// The judges (judge.go, ledger.go) are apart from what drives: they see only what
// the replicas write, send and report, and know the true time. They check, at each
// step:
//
//   - one value per instance for ever, on all nodes, through all crashes, and only
//     values that somebody proposed;
//
//   - what is declared chosen is on the disks of a majority of the members that
//     decide on it;
//
//   - what a proposer is told is what was chosen, at that instance;
//
//   - each node's chosen values come in order, and after a restart no earlier than
//     what was on its disk;
//
//   - a promise or an acceptance that is sent is on disk, and a promise on disk
//     never shrinks;
//
//   - one holder of a lease at a time, each by its own clock;
//
//   - reads, of a leader under its lease and of anybody by read index, see all that
//     was answered to anybody before them;
//
//   - what clients appended to lists, and saw of them, has an order that fits the true
//     time (history.go; porcupine looks for it);
//
//   - what is repaired from others is what was chosen, and who may have lost a vote or a
//     promise does not run;
//
//   - the log of a node begins no later than where the state of its application ends;
//
//   - after all is healed, there is a leader, and what is proposed then is chosen
//     and known everywhere, and the logs are equal.
//
// Besides the seeds there are scripts (scenarios.go): the way to one harm each.
//
// It is not a simulation of internal/host: the loop of a node here is its twin, with
// turns that take no more than their portion, and a lane for renewals of leases that
// overtake entries in the inbox and on the wire.
package sim
