package host

import (
	"github.com/phxsql/phxsql/internal/replica"
	"github.com/phxsql/phxsql/paxos"
)

func bootstrap(l replica.Log, id paxos.NodeID, ms paxos.Members) error {
	return replica.Bootstrap(l, 0, id, ms)
}
