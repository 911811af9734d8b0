package drill

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestALogWhoseReaderStandsStillTakesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "node1.log")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	p, err := newLogPipe(file)
	if err != nil {
		t.Fatal(err)
	}
	said := func(line string) <-chan error {
		done := make(chan error, 1)
		go func() {
			_, err := p.in.WriteString(line)
			done <- err
		}()
		return done
	}
	if err := <-said("first\n"); err != nil {
		t.Fatal(err)
	}
	if err := p.stick(t.Context()); err != nil {
		t.Fatal(err)
	}
	second := said(strings.Repeat("x", logPiece) + "second\n")
	if err := p.stick(t.Context()); err != nil { // again: nothing happens
		t.Error(err)
	}
	select {
	case err := <-second:
		t.Errorf("it was written although nobody reads: %v", err)
	default:
	}
	p.release()
	p.release() // changes nothing
	if err := <-second; err != nil {
		t.Error(err)
	}
	p.close()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Fields(string(text)); len(got) != 2 || got[0] != "first" || !strings.HasSuffix(got[1], "second") {
		t.Errorf("the log holds %d words", len(got))
	}
}
