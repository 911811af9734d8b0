package agent

import (
	"slices"
	"strings"

	"github.com/phxsql/phxsql/internal/cluster"
	"github.com/phxsql/phxsql/internal/telemetry"
)

const (
	// faultTimes is how often in a row a server must end, without a healthy minute in
	// between, before its data are held to be at fault.
	faultTimes = 4
	// differTimes is how often in a row replication must stop on a difference of the
	// data before they are replaced.
	differTimes = 5
)

// harmless ends of a server are no fault of its data: somebody killed it, or its start
// took long.
var harmless = []string{"signal: killed", "signal: terminated", "does not answer", "context canceled", "deadline exceeded"}

// differences are the errors of MySQL that stop the applier because the data are not
// those on which the transaction was executed. A full disk, a lock or a lack of memory
// is none.
var differences = map[int]bool{
	1007: true, 1008: true, 1049: true, // a database is there or missing
	1032: true, 1062: true, // a row is missing, or there already
	1034: true, 1194: true, 1712: true, 1812: true, 1813: true, // files of a table are damaged, missing or left over
	1050: true, 1051: true, 1146: true, // a table is there or missing
	1054: true, 1060: true, 1061: true, 1091: true, 1677: true, 13146: true, // a column or key is another one
	1304: true, 1305: true, 1359: true, 1360: true, 1537: true, 1539: true, // a routine, trigger or event
	1396: true, 3162: true, // an account
	1397: true, 1440: true, // a transaction of XA
	1451: true, 1452: true, // the other row of a foreign key
}

// countFault counts an end of the server that may be a fault of its data.
func (l *loop) countFault(reason string) {
	if slices.ContainsFunc(harmless, func(h string) bool { return strings.Contains(reason, h) }) {
		l.faults = 0
		return
	}
	l.faults++
}

// spoiled reports that the server should get new data: it cannot run on its own, and
// another member has them.
func (l *loop) spoiled() bool {
	v := &l.view
	return l.faults >= faultTimes && v.Engine.State == cluster.EngineCrashed && v.Member && !v.Lead.Self && l.view.Helped()
}

// dataDiffer takes in that replication stops again and again on what the data lack or
// have too much of.
func (l *loop) dataDiffer(reason string) {
	if l.differs || l.view.Lead.Self || !l.view.Helped() {
		return
	}
	l.differs, l.lost = true, "the data are not those of the other members: "+reason
	l.log.Warn("data differ", telemetry.KeyReason, reason)
}
