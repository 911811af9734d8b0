package host

import (
	"fmt"

	"github.com/phxsql/phxsql/paxos"
	"golang.org/x/sys/unix"
)

// Boottime reads CLOCK_BOOTTIME. It goes on while the machine is suspended: a
// lease must not survive a suspended laptop or a paused virtual machine.
func Boottime() paxos.Time {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic(fmt.Sprintf("host: read CLOCK_BOOTTIME: %v", err)) // every Linux since 2.6.39 has it
	}
	return paxos.Time(ts.Nano())
}
