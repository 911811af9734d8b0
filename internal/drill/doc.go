// Package drill runs a cluster of real processes, breaks it on purpose, and
// judges what it kept: real phxsql nodes, real mysqld servers, real signals, and
// network partitions in namespaces of the kernel.
//
// It is not a simulation; internal/sim is. A Workload records what clients were
// told, and Verify holds that against every member's tables: what was
// acknowledged is there, what was refused is not, members are equal row by row.
package drill
