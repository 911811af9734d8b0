package drill

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// stageSchemas are what loads make on a stage.
var stageSchemas = []string{schema, bankSchema, listsSchema, registersSchema, xaSchema, largeSchema, ddlSchema}

// LoadsForStages are the loads that leave nothing behind but schemas, which can be dropped.
func LoadsForStages() []LoadKind {
	return slices.DeleteFunc(slices.Clone(Loads), func(k LoadKind) bool { return k.Name == "ddl" })
}

// stageRun is a drill on a stage that runs.
type stageRun struct {
	run
	stage *Stage
	dice  *rand.Rand
}

// RunStage drills a cluster that runs already, by the faults of the stage, and writes the
// report. Everything else is as with Run; of the plan, Kinds and Cluster do not count, but
// Cluster.Say.
func RunStage(ctx context.Context, p Plan, s *Stage) (*Verdict, error) {
	if p.Faults == 0 && p.For == 0 {
		p.Faults = DefaultRun
	}
	p.Kinds = nil
	v := &Verdict{Seed: p.Seed, Command: p.Command, Began: time.Now(), Nodes: len(s.Nodes), Networks: true}
	r := &stageRun{run: run{plan: p, verdict: v}, stage: s, dice: rand.New(rand.NewPCG(p.Seed, 0x57a6e))}
	if err := os.MkdirAll(p.Out, 0o755); err != nil {
		return v, fmt.Errorf("make folder of report: %w", err)
	}
	err := r.do(ctx)
	v.Took = time.Since(v.Began)
	if r.end > 0 {
		err = errors.Join(err, r.writeReport())
	}
	return v, err
}

func (r *stageRun) do(ctx context.Context) (err error) {
	if err := r.stage.unused(ctx); err != nil {
		return err
	}
	if r.rec, err = NewRecorder(filepath.Join(r.plan.Out, historyFile)); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.rec.Close()) }()
	r.start, r.interrupt = time.Now(), ctx.Done()
	ctx = context.WithoutCancel(ctx)
	defer func() { stopLoads(r.loads) }()
	if err := r.putLoads(ctx, r.stage); err != nil {
		return err
	}
	well := true
	for n := 0; well && err == nil && !r.done(n); n++ {
		well, err = r.fault(ctx, n+1)
	}
	r.end = r.rec.Now()
	r.verdict.Interrupted = r.interrupted()
	if err != nil || !well {
		return err
	}
	return r.judge(ctx)
}

// unused refuses a stage that holds what a drill would make.
func (s *Stage) unused(ctx context.Context) error {
	db, err := s.Open(s.Nodes[0].RW, "")
	if err != nil {
		return err
	}
	defer db.Close()
	there, err := query(ctx, db, "SELECT schema_name FROM information_schema.schemata WHERE schema_name IN ('"+strings.Join(stageSchemas, "', '")+"')")
	if err != nil {
		return fmt.Errorf("look at target: %w", err)
	}
	if len(there) > 0 {
		return fmt.Errorf("look at target: it has schemas of names that the drill uses: %s (hint: an earlier drill left them; drop them if they are of no use)", strings.Join(there, ", "))
	}
	return nil
}

// fault does one fault. False says that the cluster did not come back; an error that a
// command failed.
func (r *stageRun) fault(ctx context.Context, n int) (bool, error) {
	f := r.stage.Faults[r.dice.IntN(len(r.stage.Faults))]
	find, cancel := context.WithTimeout(ctx, serveLimit)
	defer cancel()
	master := 0
	if err := Eventually(find, func() (err error) { master, err = r.stage.master(find); return err }); err != nil {
		r.broken("before fault %d: %v", n, err)
		return false, nil
	}
	hit := r.stage.aim(f, master, r.dice)
	var names []string
	for _, i := range hit {
		names = append(names, r.stage.Nodes[i].Name)
	}
	b := Bout{N: n, Kind: f.Name, Family: f.Name, Outage: f.Outage, Text: f.Name + " on " + strings.Join(names, ", "), Master: master + 1, Broken: r.rec.Now()}
	r.say("fault %d: %s (master is %s)", n, b.Text, r.stage.Nodes[master].Name)
	if err := r.stage.run(ctx, hit, f.Break); err != nil {
		return false, errors.Join(fmt.Errorf("fault %d: %w", n, err), r.stage.run(ctx, hit, f.Mend))
	}
	until := time.Now().Add(f.Hold)
	var unserved error
	if !f.Outage {
		unserved = r.waitAck(ctx, serveLimit)
	}
	r.pass(ctx, time.Until(until))
	if err := r.stage.run(ctx, hit, f.Mend); err != nil {
		return false, fmt.Errorf("fault %d: mend: %w", n, err)
	}
	b.Mended = r.rec.Now()
	if unserved != nil {
		r.broken("fault %d: %s: %v", n, b.Text, unserved)
	} else if err := r.wellAgain(ctx); err != nil {
		r.broken("fault %d: %s: after the mend %v", n, b.Text, err)
	} else {
		b.Well = r.rec.Now()
		b.Pause = r.rec.Pause(b.Broken, b.Well)
		r.say("fault %d: %s without commits, all well %s after the mend", n, short(b.Pause), short(time.Duration(b.Well-b.Mended)))
	}
	r.verdict.Bouts = append(r.verdict.Bouts, b)
	return b.Well > 0, nil
}

// wellAgain waits for a commit, and until every node shows a row that was written then.
func (r *stageRun) wellAgain(ctx context.Context) error {
	if err := r.waitAck(ctx, serveLimit); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, wellLimit)
	defer cancel()
	return r.stage.caughtUp(ctx)
}

// caughtUp writes a row and waits until every node shows it.
func (s *Stage) caughtUp(ctx context.Context) error {
	mark := time.Now().UnixNano()
	write := []string{"CREATE TABLE IF NOT EXISTS " + schema + ".mark (id INT PRIMARY KEY, v BIGINT)", fmt.Sprintf("REPLACE INTO %s.mark VALUES (1, %d)", schema, mark)}
	if err := Eventually(ctx, func() error {
		return s.Exec(ctx, append([]string{"CREATE DATABASE IF NOT EXISTS " + schema}, write...)...)
	}); err != nil {
		return err
	}
	for _, n := range s.Nodes {
		err := Eventually(ctx, func() error {
			db, err := s.Open(n.RO, "")
			if err != nil {
				return err
			}
			defer db.Close()
			got, err := pairs(ctx, db, "SELECT id, v FROM "+schema+".mark")
			if err == nil && got[1] < mark {
				err = errNotYet
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("wait until %s has caught up: %w", n.Name, err)
		}
	}
	return nil
}

// judge ends the loads and holds what clients were told against every node.
func (r *stageRun) judge(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, judgeLimit)
	defer cancel()
	r.say("judging")
	stopLoads(r.loads)
	if err := r.stage.caughtUp(ctx); err != nil {
		r.broken("after the load: %v", err)
		return nil
	}
	err := r.judgeLoads(ctx, func() error { return r.stage.compare(ctx) })
	if r.verdict.OK {
		err = errors.Join(err, r.stage.tidy(ctx))
	}
	return err
}

// compare compares the tables of the drill on all nodes, row by row.
func (s *Stage) compare(ctx context.Context) error {
	first := ""
	for _, n := range s.Nodes {
		db, err := s.Open(n.RO, "")
		if err != nil {
			return err
		}
		text, err := checksums(ctx, db, "table_schema IN ('"+strings.Join(stageSchemas, "', '")+"')")
		db.Close()
		if err != nil {
			return fmt.Errorf("read node %s: %w", n.Name, err)
		}
		if first == "" {
			first = text
		}
		if text != first {
			return fmt.Errorf("nodes %s and %s differ:\n%s", s.Nodes[0].Name, n.Name, Difference(first, text))
		}
	}
	return nil
}

// tidy drops what the loads made. What is still prepared is rolled back first: it holds
// locks.
func (s *Stage) tidy(ctx context.Context) error {
	db, err := s.Open(s.Nodes[0].RW, "")
	if err != nil {
		return err
	}
	defer db.Close()
	prepared, err := preparedXA(ctx, db)
	if err != nil {
		return fmt.Errorf("tidy up target: %w", err)
	}
	var statements []string
	for id := range prepared {
		statements = append(statements, "XA ROLLBACK "+(&xaTxn{id: id}).name())
	}
	for _, name := range stageSchemas {
		statements = append(statements, "DROP DATABASE IF EXISTS "+name)
	}
	if err := execAll(ctx, s, s.Nodes[0].RW, statements); err != nil {
		return fmt.Errorf("tidy up target: %w", err)
	}
	return nil
}
