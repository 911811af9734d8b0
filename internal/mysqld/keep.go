package mysqld

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/phxsql/phxsql/internal/telemetry"
)

// keepBinlog shows the newest binary log to whoever wants to keep it, before the
// restart recipe removes it. What was not confirmed stands in that one: the server goes
// on to another file only when no commit waits.
func (s *Server) keepBinlog(data string) {
	if s.cfg.KeepBinlog == nil {
		return
	}
	entries, err := os.ReadDir(data)
	if err != nil {
		return // resetBinlog says it
	}
	var newest string
	var last uint64
	for _, e := range entries {
		ext, ok := strings.CutPrefix(e.Name(), binlogName+".")
		if n, err := strconv.ParseUint(ext, 10, 31); ok && err == nil && n >= last {
			last, newest = n, e.Name()
		}
	}
	if newest == "" {
		return
	}
	if err := s.cfg.KeepBinlog(filepath.Join(data, newest)); err != nil {
		s.cfg.Logger.Warn("binary log not kept", telemetry.KeyError, err)
	}
}
