package agent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/phxsql/phxsql/internal/api"
)

func TestDataDirBelongsToOneNode(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	for range 2 { // made, then found
		if err := claimDir(dir, 3); err != nil {
			t.Fatal(err)
		}
	}
	err := claimDir(dir, 4)
	if err == nil || !strings.Contains(err.Error(), "belongs to node 3") || api.HintOf(err) == "" {
		t.Errorf("as another node: %v", err)
	}
}

func TestForeignFolderIsRefused(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "thesis.txt"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := claimDir(dir, 1); err == nil || api.HintOf(err) == "" {
		t.Errorf("a folder with other things: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, nodeFileName), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := claimDir(dir, 1); err == nil || api.HintOf(err) == "" {
		t.Errorf("a mark that is not ours: %v", err)
	}
}

func TestSlowDiskIsRefused(t *testing.T) {
	dir := t.TempDir()
	if _, err := checkDisk(dir, time.Minute); err != nil {
		t.Error(err)
	}
	if _, err := checkDisk(dir, 0); err == nil || api.HintOf(err) == "" {
		t.Errorf("a disk slower than the limit: %v", err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("the probe stays: %v", left)
	}
}

func TestClock(t *testing.T) {
	if err := checkClock(); err != nil {
		t.Error(err)
	}
}
