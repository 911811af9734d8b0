package drill

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/pprof"
	"slices"
	"sort"
	"strings"
	"time"
)

// The limits of a drill.
const (
	startLimit = 2 * time.Minute
	serveLimit = 60 * time.Second  // from the mend, or from a fault that leaves a majority, to the first commit
	wellLimit  = 120 * time.Second // from the mend until every node is well
	judgeLimit = 4 * time.Minute
	DefaultRun = 20 // faults, if neither a number nor a time is given
)

// historyFile is the name of the history in the folder of the report.
const historyFile = "history.jsonl"

// Plan says what drill to run.
type Plan struct {
	Seed   uint64
	Faults int           // 0: as many as fit into For
	For    time.Duration // 0: until Faults are done; the fault that is on its way is finished
	Each   int           // instead: each kind so many times, one after the other; 0: as they are drawn
	Loads  []LoadKind
	Kinds  []Kind
	Rate   int   // operations per second of all clients; 0: as many as they can
	Large  int64 // size of the largest transactions, bytes; 0: DefaultLarge
	// Out is the folder of the report.
	Out string
	// Command repeats this drill.
	Command string
	Cluster Options
}

// Bout is one fault of a drill, as it went. Times are nanoseconds since the drill began.
type Bout struct {
	N       int           `json:"n"`
	Kind    string        `json:"kind"`
	Family  string        `json:"family"`
	Outage  bool          `json:"outage,omitempty"` // the cluster need not serve until the mend
	Text    string        `json:"text"`
	Master  int           `json:"master"` // before it; 0 if there was none
	Overlap Overlap       `json:"overlap,omitempty"`
	Broken  int64         `json:"broken"`
	Mended  int64         `json:"mended"`
	Well    int64         `json:"well"`  // when all nodes were well; 0 if the next fault came before
	Pause   time.Duration `json:"pause"` // longest time without a commit
	Refused string        `json:"refused,omitempty"`
}

// Verdict is the result of a drill.
type Verdict struct {
	OK bool `json:"ok"`
	// Interrupted says that it ended before the plan was done; what was done was judged.
	Interrupted bool          `json:"interrupted,omitempty"`
	Seed        uint64        `json:"seed"`
	Command     string        `json:"command"`
	Began       time.Time     `json:"began"`
	Took        time.Duration `json:"took"`
	Nodes       int           `json:"nodes"`
	Networks    bool          `json:"networks"` // partitions were possible
	Bouts       []Bout        `json:"faults"`
	Findings    []Finding     `json:"findings"`
	Failovers   []Failover    `json:"failovers"`
	// Changes are those of the nodes' states.
	Changes []Change `json:"changes"`
	// Broken are promises that no load keeps the book of: service that did not come
	// back, members that differ.
	Broken []string `json:"broken,omitempty"`
}

// run is a drill that runs.
type run struct {
	plan    Plan
	c       *Cluster
	rec     *Recorder
	loads   []Load
	watch   *watch
	verdict *Verdict
	start   time.Time
	end     int64 // of the timeline
	// interrupt is closed when the drill is to end early.
	interrupt <-chan struct{}
}

// Run runs a drill and writes its report. The error says that it could not be run or
// judged; a broken promise is no error but a verdict. The cluster's folder stays.
//
// The end of the context interrupts the drill: no further fault is begun, the cluster is
// mended and must be well again, and what was done is judged.
func Run(ctx context.Context, p Plan) (*Verdict, error) {
	if p.Each > 0 {
		p.Faults, p.For = p.Each*len(p.Kinds), 0
	}
	if p.Faults == 0 && p.For == 0 {
		p.Faults = DefaultRun
	}
	if p.Cluster.Say == nil {
		p.Cluster.Say = func(string, ...any) {}
	}
	for _, k := range p.Kinds {
		if k.Prepare != nil {
			k.Prepare(&p.Cluster)
		}
	}
	if err := os.MkdirAll(p.Out, 0o755); err != nil {
		return &Verdict{}, fmt.Errorf("make folder of report: %w", err)
	}
	r := &run{plan: p, verdict: &Verdict{Seed: p.Seed, Command: p.Command, Began: time.Now(), Nodes: p.Cluster.Nodes, Networks: p.Cluster.Namespaces}}
	err := r.do(ctx)
	r.verdict.Took = time.Since(r.verdict.Began)
	if r.end > 0 { // it ran; what could not be judged is no reason to hide the rest
		err = errors.Join(err, r.report())
	}
	return r.verdict, err
}

func (r *run) do(ctx context.Context) (err error) {
	r.say("starting %d nodes", r.plan.Cluster.Nodes)
	if r.c, err = New(r.plan.Cluster); err != nil {
		return err
	}
	defer r.c.Close()
	begin, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	if err := r.c.Start(begin); err != nil {
		return fmt.Errorf("start cluster: %w", err)
	}
	if r.rec, err = NewRecorder(filepath.Join(r.plan.Out, historyFile)); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.rec.Close()) }()
	r.start = time.Now()
	r.interrupt = ctx.Done()
	ctx = context.WithoutCancel(ctx)
	r.watch = startWatch(ctx, r.c, r.rec.Now)
	defer r.watch.Stop()
	defer func() { stopLoads(r.loads) }()
	if err := r.putLoads(ctx, r.c); err != nil {
		return err
	}
	well := r.attack(ctx)
	r.end = r.rec.Now()
	r.verdict.Interrupted = r.interrupted()
	if err := r.hearAlarms(); err != nil || !well {
		r.keepEvidence(ctx)
		return err
	}
	return r.judge(ctx)
}

// putLoads puts the load on a target and waits until it serves. The caller must stop
// the loads, also after an error.
func (r *run) putLoads(ctx context.Context, on Target) (err error) {
	r.loads, err = startLoads(ctx, r.plan.Loads, Site{
		Target: on, Rec: r.rec, Dir: r.plan.Out, Pace: newPacer(r.plan.Rate), Large: r.plan.Large,
		StaleReads: slices.ContainsFunc(r.plan.Kinds, func(k Kind) bool { return k.Beyond != "" }),
	})
	if err != nil {
		return err
	}
	if err := r.waitAck(ctx, serveLimit); err != nil {
		return fmt.Errorf("start workloads: %w", err)
	}
	return nil
}

// interrupted reports that nothing further is to be begun.
func (r *run) interrupted() bool {
	select {
	case <-r.interrupt:
		return true
	default:
		return false
	}
}

// keepEvidence has every agent write down what it is doing, for a cluster that did not
// come back.
func (r *run) keepEvidence(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, stopLimit)
	defer cancel()
	if text, err := r.c.Run(ctx, "status", "-o", "json"); err == nil {
		_ = os.WriteFile(filepath.Join(r.plan.Out, "status.json"), []byte(text), 0o644) // the report does without
	}
	if f, err := os.Create(filepath.Join(r.plan.Out, "drill-goroutines.txt")); err == nil {
		_ = pprof.Lookup("goroutine").WriteTo(f, 2) // what the clients are waiting for
		_ = f.Close()
	}
	for _, n := range r.c.Nodes {
		if err := n.Dump(); err != nil {
			r.say("node %d: %v", n.ID, err)
			continue
		}
		select {
		case <-n.exited:
		case <-ctx.Done():
		}
	}
}

func (r *run) say(format string, args ...any) { r.plan.Cluster.Say(format, args...) }

// broken notes a promise that was not kept.
func (r *run) broken(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	r.verdict.Broken = append(r.verdict.Broken, text)
	r.say("BROKEN: %s", text)
}

// attack breaks the cluster until the plan is done or the drill is interrupted. False
// says that it did not come back.
func (r *run) attack(ctx context.Context) bool {
	var s script = NewSchedule(r.plan.Seed, r.plan.Kinds)
	if r.plan.Each > 0 {
		s = &eachKind{Schedule: NewSchedule(r.plan.Seed, r.plan.Kinds)}
	}
	for n := 0; !r.done(n); {
		var episode []Planned
		for {
			p := s.Next()
			if n++; r.done(n) {
				p.Overlap = Apart
			}
			if episode = append(episode, p); p.Overlap == Apart {
				break
			}
		}
		if !r.episode(ctx, episode) {
			return false
		}
	}
	return true
}

func (r *run) done(n int) bool {
	return r.interrupted() || r.plan.Faults > 0 && n >= r.plan.Faults || r.plan.For > 0 && time.Since(r.start) >= r.plan.For
}

// waitAck waits for a commit that begins from now on.
func (r *run) waitAck(ctx context.Context, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return r.rec.WaitAck(r.rec.Now(), func() error {
		wait(ctx, pollEvery)
		if ctx.Err() != nil {
			return fmt.Errorf("no write was acknowledged for %v", limit)
		}
		return nil
	})
}

// report writes everything about the drill.
func (r *run) report() error {
	v := r.verdict
	v.Changes = r.watch.Changes()
	for _, n := range r.c.Nodes {
		fs, err := readFailovers(n.ID, n.Log())
		if err != nil {
			return err
		}
		v.Failovers = append(v.Failovers, fs...)
		if err := copyFile(n.Log(), filepath.Join(r.plan.Out, filepath.Base(n.Log()))); err != nil {
			return err
		}
		for _, said := range []string{filepath.Join(n.dir, DataPart, "error.log"), n.dir + ".mysqld.log"} { // the second after closeDisks
			if err := copyFile(said, filepath.Join(r.plan.Out, fmt.Sprintf("node%d.mysqld.log", n.ID))); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
	}
	sort.Slice(v.Failovers, func(i, j int) bool { return v.Failovers[i].Open.Before(v.Failovers[j].Open) })
	addFirstCommits(v.Failovers, r.rec.begun, r.rec.Acks())
	return r.writeReport()
}

// writeReport writes the verdict, for programs and as a picture.
func (r *run) writeReport() error {
	v := r.verdict
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("write verdict: %w", err)
	}
	if err := os.WriteFile(filepath.Join(r.plan.Out, "verdict.json"), append(text, '\n'), 0o644); err != nil {
		return fmt.Errorf("write verdict: %w", err)
	}
	return writePage(filepath.Join(r.plan.Out, "report.html"), v, r.rec.Acks(), r.end)
}

func copyFile(from, to string) error {
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, b, 0o644)
	}
	if err != nil {
		return fmt.Errorf("copy log: %w", err)
	}
	return nil
}

// Broke reports that some promise was broken. One that is neither that nor OK could not
// be judged in full.
func (v *Verdict) Broke() bool {
	for _, f := range v.Findings {
		if len(f.Wrong) > 0 {
			return true
		}
	}
	return len(v.Broken) > 0
}

// String tells the verdict in a few lines.
func (v *Verdict) String() string {
	var b strings.Builder
	if rs := results(v.Bouts); len(rs) > 0 {
		b.WriteString(Summary(rs))
	}
	for _, f := range v.Findings {
		b.WriteString(f.String())
	}
	for _, t := range v.Broken {
		fmt.Fprintf(&b, "BROKEN: %s\n", clip(t))
	}
	word := "every promise was kept"
	switch {
	case v.Broke():
		word = "a promise was BROKEN"
	case !v.OK:
		word = "not everything could be judged"
	}
	fmt.Fprintf(&b, "%d faults in %v: %s\n", len(v.Bouts), v.Took.Round(time.Second), word)
	return b.String()
}

// String tells the judgement over a load.
func (f Finding) String() string {
	var b strings.Builder
	word := "kept"
	if len(f.Wrong) > 0 {
		word = "BROKEN"
	}
	fmt.Fprintf(&b, "%-13s %-7s %s\n", f.Load, word, f.Facts)
	for _, w := range f.Wrong {
		fmt.Fprintf(&b, "  wrong: %s\n", clip(w))
	}
	for _, n := range f.Noted {
		fmt.Fprintf(&b, "  noted: %s\n", n)
	}
	return b.String()
}

// clip cuts what is too long for a terminal; the report has it all.
func clip(s string) string {
	const most = 2000
	if len(s) <= most {
		return s
	}
	return s[:most] + "..."
}
