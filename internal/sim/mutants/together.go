package mutants

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
)

// awake is the environment variable that names the mutant that is awake in a
// program that has several.
const awake = "PHXSIM_MUTANT"

// planted is added to each package that is patched.
const planted = `package %s

import "os"

var awakeMutant = os.Getenv(%q)

func planted(name string) bool { return name == awakeMutant }
`

// Together builds the simulator with several mutants inside, all asleep. Hunt wakes
// the one that it hunts. The texts of the mutants must be whole statements.
func Together(ctx context.Context, root, dir string, list []Mutant) (program string, err error) {
	sources := map[string][]byte{}
	for _, m := range list {
		if _, err := m.Source(root); err != nil {
			return "", err
		}
		src := sources[m.File]
		if src == nil {
			if src, err = os.ReadFile(filepath.Join(root, m.File)); err != nil {
				return "", fmt.Errorf("read source of mutant %s: %w", m.Name, err)
			}
		}
		both := fmt.Sprintf("if planted(%q) {\n%s\n} else {\n%s\n}\n", m.Name, m.New, m.Old)
		sources[m.File] = bytes.Replace(src, []byte(m.Old), []byte(both), 1)
		pkg := path.Dir(m.File)
		sources[pkg+"/planted.go"] = fmt.Appendf(nil, planted, path.Base(pkg), awake)
	}
	overlay, err := writeOverlay(root, dir, "together", sources)
	if err != nil {
		return "", err
	}
	return build(ctx, root, dir, "together", overlay)
}
