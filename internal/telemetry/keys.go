package telemetry

// The keys of log records. Every key in use is here, so that a search for one
// finds all of its records.
const (
	KeyAddr       = "addr"        // a network address, host:port
	KeyAttempt    = "attempt"     // how many times it was tried, from 1
	KeyBallot     = "ballot"      // a ballot, round.node
	KeyBytes      = "bytes"       // a length or size
	KeyClient     = "client"      // a client's address
	KeyCluster    = "cluster"     // a cluster's identity
	KeyComponent  = "component"   // the part that speaks, such as proxy
	KeyConn       = "conn"        // a connection's number
	KeyCount      = "count"       // how many
	KeyDir        = "dir"         // a folder
	KeyDuration   = "duration"    // how long it took
	KeyEngine     = "engine"      // an engine's version or path
	KeyEpoch      = "epoch"       // an epoch
	KeyError      = "error"       // an error's text
	KeyExit       = "exit"        // how a process ended
	KeyFile       = "file"        // a file
	KeyFrom       = "from"        // the state, node or position before
	KeyGTIDs      = "gtids"       // a GTID set
	KeyHint       = "hint"        // what to do next
	KeyInstance   = "instance"    // a log instance
	KeyLeader     = "leader"      // the node that leads
	KeyMember     = "member"      // another member's id
	KeyMembers    = "members"     // a membership
	KeyName       = "name"        // a name for people
	KeyNode       = "node"        // this node's id
	KeyOffset     = "offset"      // a position in a file
	KeyPID        = "pid"         // a process
	KeyProblem    = "problem"     // a problem's name
	KeyReason     = "reason"      // why
	KeySegment    = "segment"     // a log segment
	KeyState      = "state"       // a state's name
	KeyTo         = "to"          // the state, node or position after
	KeyUser       = "user"        // an account
	KeyVersion    = "version"     // a version
	KeyWait       = "wait"        // how long until the next try
	KeyAction     = "action"      // what was decided
	KeyStatement  = "statement"   // an SQL statement without secrets
	KeyServerUUID = "server_uuid" // a mysqld's identity
)

// Keys returns all keys.
func Keys() []string {
	return []string{
		KeyAction, KeyAddr, KeyAttempt, KeyBallot, KeyBytes, KeyClient, KeyCluster, KeyComponent, KeyConn, KeyCount,
		KeyDir, KeyDuration, KeyEngine, KeyEpoch, KeyError, KeyExit, KeyFile, KeyFrom, KeyGTIDs, KeyHint, KeyInstance,
		KeyLeader, KeyMember, KeyMembers, KeyName, KeyNode, KeyOffset, KeyPID, KeyProblem, KeyReason, KeySegment,
		KeyServerUUID, KeyState, KeyStatement, KeyTo, KeyUser, KeyVersion, KeyWait,
	}
}
