package engine

import (
	"context"
	"strings"
	"testing"
	"time"
)

func TestFetchedToolRuns(t *testing.T) {
	if testing.Short() {
		t.Skip("downloads packages")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	tool, err := EnsureTool(ctx, "sysbench", Options{PrivateOnly: true, Progress: func(l string) { t.Log(l) }})
	if err != nil {
		t.Fatal(err)
	}
	// The bundled scripts are found by name, wherever the tool is run.
	cmd := tool.Command(ctx, "oltp_insert", "help")
	cmd.Dir = t.TempDir()
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--table_size") && !strings.Contains(string(out), "--table-size") {
		t.Fatalf("oltp_insert help: %v: %s", err, out)
	}
}

func TestUnknownToolIsRefused(t *testing.T) {
	if _, err := EnsureTool(t.Context(), "no-such-tool", Options{PrivateOnly: true}); err == nil {
		t.Fatal("fetched a tool that does not exist")
	}
}
