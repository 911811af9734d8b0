// Package mysqld supervises one MySQL server process and speaks SQL to it over
// its Unix socket.
//
// It knows how to make a data directory, how to start a server so that nothing
// unconfirmed survives (the restart recipe), how to end it, and the few
// statements that the agent needs. It decides nothing: when to start, promote
// or kill is its caller's business, and it knows nothing of the log.
//
// Invariants:
//   - Every start deletes the old binary logs and gives the server an empty one
//     that claims to have been in use. Recovery then rolls back every prepared
//     transaction, and @@gtid_executed is exactly what the engine holds.
//   - A started server is super_read_only, its replication stopped, reachable
//     through its Unix socket only.
//   - The server never outlives its supervisor: the kernel kills it with the
//     supervisor's process, and one that was left behind is killed before the
//     next start. A lock on the folder keeps two supervisors apart.
//   - SIGTERM is sent by Shutdown only. A server with commits that wait for an
//     acknowledgement would release them on SIGTERM.
//   - What this package writes into a server never enters the binary log, but
//     for CreateUser and EnableEvents, which say so.
//
// The node's folder holds:
//
//	DIR/lock           held while a supervisor is open
//	DIR/agent.secret   password of the agent's account, mode 0600
//	DIR/init.cnf       option file of the initialisation
//	DIR/my.cnf         option file of the running server, written at every start
//	DIR/accounts.sql   makes the agent's account at every start, mode 0600
//	DIR/error.log      the server's error log; error.log.1 is the one before
//	DIR/mysqld.pid     written by the server
//	DIR/mysqld.sock    the only way in
//	DIR/data           the data directory; DIR/data.new while it is being made
//	DIR/data.copy      another server's data, while they are fetched
//	DIR/data.old       the data that a copy has replaced, until that is known to be good
package mysqld
