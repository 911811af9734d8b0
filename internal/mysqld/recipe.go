package mysqld

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/phxsql/phxsql/internal/binlog"
)

// resetBinlog carries out the restart recipe in a data directory whose server
// does not run: the new binary log, which holds nothing, stands alone, under a
// number that was not used before.
//
// The order is such that a crash at any point leaves files from which the next
// call does the same. Nothing needs a sync: only what the next server reads
// through the same system counts, and every start begins here.
func resetBinlog(data, serverVersion string, serverID uint32, now time.Time) error {
	return replaceBinlog(data, binlog.RestartFile(serverVersion, serverID, now))
}

// replaceBinlog is resetBinlog with another content of the file.
func replaceBinlog(data string, content []byte) error {
	entries, err := os.ReadDir(data)
	if err != nil {
		return fmt.Errorf("reset binary log: %w", err)
	}
	var last uint64
	var old []string
	for _, e := range entries {
		ext, ok := strings.CutPrefix(e.Name(), binlogName+".")
		if !ok || !e.Type().IsRegular() {
			continue
		}
		old = append(old, e.Name())
		if n, err := strconv.ParseUint(ext, 10, 31); err == nil {
			last = max(last, n)
		}
	}
	name := fmt.Sprintf("%s.%06d", binlogName, last+1)
	if err := os.WriteFile(filepath.Join(data, name), content, 0o640); err != nil {
		return fmt.Errorf("reset binary log: %w", err)
	}
	for _, o := range old {
		if err := os.Remove(filepath.Join(data, o)); err != nil {
			return fmt.Errorf("reset binary log: %w", err)
		}
	}
	if err := os.WriteFile(filepath.Join(data, binlogName+".index"), []byte("./"+name+"\n"), 0o640); err != nil {
		return fmt.Errorf("reset binary log: %w", err)
	}
	return nil
}

// emptyDir makes a folder of the server's own for what replication loads. A
// server that is killed while it tries the folder leaves a file there that no
// later one gets past.
func emptyDir(path string) error {
	if err := os.RemoveAll(path); err != nil {
		return fmt.Errorf("empty folder of replication: %w", err)
	}
	if err := os.Mkdir(path, 0o750); err != nil {
		return fmt.Errorf("empty folder of replication: %w", err)
	}
	return nil
}
