package drill

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

const goodStage = `
user = "app"
password_file = "secret"
[[node]]
name = "db1"
rw = "db1:3306"
ro = "db1:3307"
[[node]]
name = "db2"
rw = "db2:3306"
ro = "db2:3307"
[[fault]]
name = "kill"
break = "touch {node}.dead"
mend = "rm {node}.dead"
on = "master"
hold = "2s"
[[fault]]
name = "cut all"
break = "false {node}"
mend = "true"
on = "all"
outage = true
`

func loadStage(t *testing.T, text string) (*Stage, error) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "secret"), []byte("word\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "stage.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return LoadStage(path)
}

func TestAStageIsRead(t *testing.T) {
	s, err := loadStage(t, goodStage)
	if err != nil {
		t.Fatal(err)
	}
	if s.password != "word" || len(s.Nodes) != 2 || len(s.Faults) != 2 || s.Faults[0].Hold != 2*time.Second || s.Faults[1].Hold != 3*time.Second || !s.Faults[1].Outage {
		t.Errorf("got %+v", s)
	}
	if told := s.String(); !strings.Contains(told, "db2: touch db2.dead") || !strings.Contains(told, "then: rm db1.dead") {
		t.Errorf("what would be done is told as %s", told)
	}
	for _, c := range []struct{ name, from, to, want string }{
		{"no user", `user = "app"`, "", "user is missing"},
		{"a setting of no name", `on = "all"`, `upon = "all"`, "no setting"},
		{"nobody to hit", `on = "all"`, `on = "some"`, `"some"`},
		{"no mend", `mend = "true"`, "", "needs name, break and mend"},
		{"no port", `ro = "db2:3307"`, "", "node 2 needs"},
		{"no secret", `"secret"`, `"elsewhere"`, "no such file"},
		{"negative hold", `"2s"`, `"-2s"`, "negative"},
	} {
		if _, err := loadStage(t, strings.Replace(goodStage, c.from, c.to, 1)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestCommandsOfAStage(t *testing.T) {
	s, err := loadStage(t, goodStage)
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	if err := s.run(t.Context(), []int{0, 1}, s.Faults[0].Break); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"db1.dead", "db2.dead"} {
		if _, err := os.Stat(name); err != nil {
			t.Error(err)
		}
	}
	if err := s.run(t.Context(), []int{1}, "echo no; exit 3"); err == nil || !strings.Contains(err.Error(), "exit status 3: no") {
		t.Errorf("a command that failed: %v", err)
	}
	dice := rand.New(rand.NewPCG(1, 1))
	for range 20 {
		if got := s.aim(StageFault{On: "follower"}, 0, dice); !slices.Equal(got, []int{1}) {
			t.Fatalf("the follower of node 1 is %v", got)
		}
		if got := s.aim(StageFault{On: "master"}, 1, dice); !slices.Equal(got, []int{1}) {
			t.Fatalf("the master is %v", got)
		}
		if got := s.aim(StageFault{On: "all"}, 1, dice); len(got) != 2 {
			t.Fatalf("all are %v", got)
		}
	}
}
