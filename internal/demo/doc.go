// Package demo runs a whole cluster on one machine: real nodes, each a process
// with its own mysqld, log, ports and configuration, on loopback.
//
// It is not part of a cluster: it writes configurations, starts "phxsql server"
// for each, asks the admin API to make a cluster of them, and starts a node again
// that has died, so that one can see it come back. It knows nothing that the
// configurations and the admin API do not tell.
//
// Layout of a demo's folder:
//
//	demo.json        its nodes and ports; marks the folder as one that Clean may remove
//	lock             held while nodes run; holds the id of the process that runs them
//	cluster.secret   shared by all nodes
//	nodeN.toml       configuration of node N
//	nodeN.log        what node N logged
//	nodeN.pid        the process of node N
//	nodeN/           data of node N
//	client.cnf       how the mysql client connects, with the password
//	mysql            the engine's mysql client, connected by client.cnf
//
// Invariants: one process at a time runs the nodes of a folder; no node outlives
// it; Clean removes only a folder that has a demo.json and is not running.
package demo
