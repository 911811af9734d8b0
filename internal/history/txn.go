package history

import (
	"fmt"
	"strings"
)

// Outcome is what a client was told about its transaction.
type Outcome uint8

// The outcomes. A transaction is Aborted only if it is certain that it will never be there.
const (
	Committed Outcome = 1
	Aborted   Outcome = 2
	Unknown   Outcome = 3
)

var outcomeWords = map[Outcome]string{Committed: "committed", Aborted: "aborted", Unknown: "unknown"}

func (o Outcome) String() string { return outcomeWords[o] }

// MarshalText writes the outcome as a word.
func (o Outcome) MarshalText() ([]byte, error) {
	if w, ok := outcomeWords[o]; ok {
		return []byte(w), nil
	}
	return nil, fmt.Errorf("write outcome: %d is none", o)
}

// UnmarshalText reads what MarshalText wrote.
func (o *Outcome) UnmarshalText(b []byte) error {
	for k, w := range outcomeWords {
		if w == string(b) {
			*o = k
			return nil
		}
	}
	return fmt.Errorf("read outcome: %q is none", b)
}

// Key names a list, Value is an element. Values are positive and unique per list.
type (
	Key   int64
	Value int64
)

// Op is one step of a transaction: it appends a value to a list, or reads a list.
type Op struct {
	Key Key `json:"k"`
	// Append is the value that was appended; 0 says that the step is a read.
	Append Value   `json:"a,omitempty"`
	Read   []Value `json:"r,omitempty"` // oldest first
}

// Txn is one transaction, as its client saw it.
type Txn struct {
	Client int `json:"client"`
	// Begin is when its first statement was sent, End when its outcome was known, both
	// in nanoseconds of one clock. End means nothing if the outcome is Unknown.
	Begin   int64   `json:"begin"`
	End     int64   `json:"end"`
	Outcome Outcome `json:"outcome"`
	Ops     []Op    `json:"ops"`
}

func (t Txn) String() string {
	var b strings.Builder
	for i, o := range t.Ops {
		if i > 0 {
			b.WriteString(", ")
		}
		if o.Append != 0 {
			fmt.Fprintf(&b, "append %d to list %d", o.Append, o.Key)
		} else {
			fmt.Fprintf(&b, "read list %d as %v", o.Key, shorten(o.Read))
		}
	}
	return fmt.Sprintf("{%s; %s}", b.String(), t.Outcome)
}

// shorten keeps the end of a long list.
func shorten(vs []Value) string {
	const most = 6
	if len(vs) <= most {
		return fmt.Sprint(vs)
	}
	return strings.Replace(fmt.Sprint(vs[len(vs)-most:]), "[", "[... ", 1)
}

// Level is an isolation level.
type Level uint8

// The levels that can be judged.
const (
	// RepeatableRead is what MySQL makes of the level: reads come from a snapshot, writes
	// act on what is newest. It lets pass lost updates and all that needs an rw edge, and
	// a transaction that has written a row sees what others had done to it.
	RepeatableRead Level = 1
	// Serializable is strict: the order must agree with real time.
	Serializable Level = 2
)

func (l Level) String() string {
	if l == Serializable {
		return "SERIALIZABLE"
	}
	return "REPEATABLE READ"
}

// The anomalies.
const (
	G0          = "G0"                  // dirty write: a cycle of ww
	G1a         = "G1a"                 // aborted read: a value of a transaction that was refused is seen
	G1b         = "G1b"                 // intermediate read: a value that its writer followed by another one is the last that is seen
	G1c         = "G1c"                 // circular information flow: a cycle of ww and wr
	LostUpdate  = "lost update"         // two transactions read the same version of a list and appended to it
	GSingle     = "G-single"            // read skew: a cycle with one rw
	G2          = "G2"                  // write skew: a cycle with several rw
	LostWrite   = "lost write"          // an acknowledged append is not there
	Torn        = "torn"                // one append of a transaction is there, another is not
	Duplicate   = "duplicate"           // a value is there twice
	Garbage     = "garbage"             // a value is there that nobody wrote
	Contradict  = "contradictory order" // two reads of a list agree on no order
	StaleRead   = "stale read"          // a read lacks what was acknowledged before its transaction began
	FuzzyRead   = "fuzzy read"          // two reads of one transaction differ, which wrote nothing in between
	OwnWrite    = "own write"           // a transaction does not see what it wrote itself
	Internal    = "internal"            // a transaction that has written sees what others did since it had read
	RealTimeTag = "-realtime"           // suffix of a cycle that needs an rt edge
)

// allowedAt lists what a level lets pass. Whatever is not here is forbidden.
var allowedAt = map[Level]map[string]bool{
	RepeatableRead: {LostUpdate: true, GSingle: true, G2: true, Internal: true},
	Serializable:   {},
}

// Allows reports that a level lets an anomaly pass.
func (l Level) Allows(anomaly string) bool { return allowedAt[l][anomaly] }
