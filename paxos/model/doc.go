// Package model holds models of the protocol of package paxos in Promela, and the
// test that has spin check them: agreement.pml for one value per instance,
// lease.pml for one holder of a lease, read.pml for reads by index. docs/paxos-model.md says what they cover.
//
// The test needs spin and a C compiler and is skipped without them. 'make model'
// runs the large sizes.
package model
