package drill

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// Kind is a kind of fault that a schedule can draw. Kinds is open: append to it in an
// init function of a file of its own.
type Kind struct {
	// Name is how it is asked for, Family names a group of kinds.
	Name, Family string
	// Weight is how often it is drawn, beside the others; 10 is usual.
	Weight int
	// Hold is the range of how long it lasts.
	Hold [2]time.Duration
	// Unfit says why it cannot be done to such a cluster; empty if it can. Nil: always.
	Unfit func(o Options) string
	// Prepare changes the options of a cluster that is to bear this kind; nil: nothing.
	Prepare func(o *Options)
	// Beyond says which assumption of the cluster it does not keep. Such a kind is drawn
	// only when it is asked for by its own name, and old answers are noted then, not wrong.
	Beyond string
	// Make makes one such fault. Whom it hits is decided by the dice alone, and by who
	// is master when it breaks. It must bear that nodes are down or paused already: faults
	// overlap.
	Make func(dice *rand.Rand) Fault
}

// Kinds are all kinds of faults.
var Kinds []Kind

func seconds(from, to float64) [2]time.Duration {
	return [2]time.Duration{time.Duration(from * float64(time.Second)), time.Duration(to * float64(time.Second))}
}

// needsNamespaces is the Unfit of what cuts networks.
func needsNamespaces(o Options) string {
	if !o.Namespaces {
		return "it cuts networks, which needs root"
	}
	return ""
}

// FindKinds returns the kinds of these names or families that a cluster can bear; all
// for none. What was asked for by its own name and cannot be done is an error.
func FindKinds(names []string, o Options) ([]Kind, error) {
	var out []Kind
	for _, k := range Kinds {
		if k.Beyond == "" && (len(names) == 0 || slices.Contains(names, k.Family)) {
			if k.unfit(o) == "" {
				out = append(out, k)
			}
			continue
		}
		if !slices.Contains(names, k.Name) {
			continue
		}
		if why := k.unfit(o); why != "" {
			return nil, fmt.Errorf("choose fault %s: %s", k.Name, why)
		}
		out = append(out, k)
	}
	for _, n := range names {
		if !slices.ContainsFunc(Kinds, func(k Kind) bool { return k.Name == n || k.Family == n }) {
			return nil, fmt.Errorf("choose fault %q: there is none (hint: there are %s)", n, strings.Join(kindNames(), ", "))
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("choose faults: none of %s can be done to this cluster", strings.Join(names, ", "))
	}
	return out, nil
}

// FamiliesWithoutDisks are the families of faults that need no disk of their own.
func FamiliesWithoutDisks() []string {
	var out []string
	for _, k := range Kinds {
		if k.Family != familyDisk && !slices.Contains(out, k.Family) {
			out = append(out, k.Family)
		}
	}
	return out
}

func (k Kind) unfit(o Options) string {
	if k.Unfit == nil {
		return ""
	}
	return k.Unfit(o)
}

func kindNames() []string {
	var out []string
	for _, k := range Kinds {
		out = append(out, k.Name)
	}
	return out
}
