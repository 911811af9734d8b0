package main

import (
	"context"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/phxsql/phxsql/samples/internal/run"
	"github.com/phxsql/phxsql/samples/internal/runtest"
)

var event = regexp.MustCompile(`node (\d) is (master|no longer master)`)

func TestTheMasterHandsOver(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	out := &runtest.Output{}
	ended := make(chan error, 1)
	go func() {
		ended <- elect(ctx, run.Flags{Dir: t.TempDir(), Peers: strings.Join(runtest.Addrs(t, 3), ",")}, 300*time.Millisecond, out)
	}()
	runtest.Until(t, "second master", func() bool {
		masters := map[string]bool{}
		for _, m := range event.FindAllStringSubmatch(out.String(), -1) {
			masters[m[1]] = true
		}
		return len(masters) > 1
	})
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
}
