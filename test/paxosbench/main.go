package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// plan is what a run measures.
type plan struct {
	systems   []string
	groups    []int
	many      []int // proposers when there is more than one group
	sizes     []int
	proposers []int
	repeat    int
	warm      time.Duration
	time      time.Duration
	limit     time.Duration
	dir       string
	profile   string
	samples   io.Writer // JSON lines
}

func main() {
	var err error
	if len(os.Args) > 1 && os.Args[1] == "node" {
		err = nodeMain(os.Args[2:])
	} else {
		err = benchMain()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "paxosbench:", err)
		os.Exit(1)
	}
	os.Exit(0) // the libraries' goroutines end here
}

func benchMain() error {
	var p plan
	var names, groups, many, sizes, proposers, samples string
	flag.StringVar(&names, "systems", "ours,etcd-raft,hashi-raft,dragonboat", "systems to measure, ours first; also ours-tls")
	flag.StringVar(&groups, "groups", "1,20", "numbers of groups")
	flag.StringVar(&many, "many", "100", "numbers of proposers when there are several groups")
	flag.StringVar(&sizes, "sizes", "100,1024,102400", "sizes of values in bytes")
	flag.StringVar(&proposers, "proposers", "1,16,64,100", "numbers of proposers with one group")
	flag.IntVar(&p.repeat, "repeat", 3, "repetitions; the table has their medians")
	flag.DurationVar(&p.warm, "warm", 300*time.Millisecond, "time before each measurement")
	flag.DurationVar(&p.time, "time", time.Second, "time of each measurement")
	flag.DurationVar(&p.limit, "limit", 15*time.Minute, "no new cluster is started after this")
	flag.StringVar(&p.dir, "dir", "", "directory for the logs, on the disk to be measured; default: a temporary one")
	flag.StringVar(&p.profile, "profile", "", "directory for CPU profiles of each cell, of the leader and of a follower")
	flag.StringVar(&samples, "samples", "", "file for all samples, as JSON lines")
	flag.Parse()
	var errs []error
	p.systems = strings.Split(names, ",")
	for _, s := range p.systems {
		if systems[s] == nil {
			errs = append(errs, fmt.Errorf("unknown system %q", s))
		}
	}
	read := func(to *[]int, text string) {
		list, err := numbers(text)
		*to, errs = list, append(errs, err)
	}
	read(&p.groups, groups)
	read(&p.many, many)
	read(&p.sizes, sizes)
	read(&p.proposers, proposers)
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if samples != "" {
		f, err := os.Create(samples)
		if err != nil {
			return err
		}
		defer f.Close()
		p.samples = f
	}
	return p.run()
}

func numbers(list string) ([]int, error) {
	var out []int
	for f := range strings.SplitSeq(list, ",") {
		n, err := strconv.Atoi(f)
		if err != nil || n <= 0 {
			return nil, fmt.Errorf("%q is not a positive number", f)
		}
		out = append(out, n)
	}
	return out, nil
}

// Ports of the clusters, one range after the other: each is used once before the
// first is used again, so that no old connection disturbs.
const (
	firstPort = 21000
	lastPort  = 29000
	portRange = nodes * 64
)

func (p *plan) run() error {
	if p.dir == "" {
		dir, err := os.MkdirTemp("", "paxosbench")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		p.dir = dir
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	r := &report{systems: p.systems, samples: map[cell]map[string][]sample{}, floors: map[string][]result{}}
	end := time.Now().Add(p.limit)
	port := firstPort
	for repeat := range p.repeat {
		for _, g := range p.groups {
			for _, size := range p.sizes {
				p.floors(r)
				for i := range p.systems {
					sys := p.systems[(i+repeat)%len(p.systems)] // nobody is always first
					select {
					case <-stop:
						end = time.Time{}
					default:
					}
					if time.Now().After(end) {
						r.faults = append(r.faults, fmt.Sprintf("the time was over: %s, %d groups, %s, repetition %d was not measured", sys, g, sizeName(size), repeat+1))
						continue
					}
					if err := p.session(r, sys, g, size, port); err != nil {
						r.faults = append(r.faults, fmt.Sprintf("%s, %d groups, %s: %v", sys, g, sizeName(size), err))
						fmt.Fprintln(os.Stderr, r.faults[len(r.faults)-1])
					}
					if port += portRange; port > lastPort {
						port = firstPort
					}
				}
			}
		}
	}
	r.print(os.Stdout)
	return nil
}

// floors measures the disk alone, at each turn, so that its noise shows too.
func (p *plan) floors(r *report) {
	const size, limit = 1024, 300 * time.Millisecond
	for name, measure := range map[string]func() (result, error){
		floorAppend:    func() (result, error) { return floor(p.dir, size, limit, false) },
		floorOverwrite: func() (result, error) { return floor(p.dir, size, limit, true) },
		floorShared:    func() (result, error) { return sharedFloor(p.dir, size, limit) },
	} {
		if f, err := measure(); err == nil {
			r.floors[name] = append(r.floors[name], f)
		} else {
			r.faults = append(r.faults, err.Error())
		}
	}
}

// settle is the time that a new cluster gets before it is measured: files were made,
// leaders elected.
const settle = 500 * time.Millisecond

// session measures one system at one size with all numbers of proposers, on a new
// cluster.
func (p *plan) session(r *report, sys string, groups, size, port int) error {
	c, err := startCluster(filepath.Join(p.dir, fmt.Sprintf("%s-%d", sys, port)), sys, groups, port)
	if err != nil {
		return err
	}
	defer func() {
		c.end()
		syscall.Sync() // what one system left to be written is not to disturb the next
	}()
	time.Sleep(settle)
	proposers := p.proposers
	if groups > 1 {
		proposers = p.many
	}
	for _, n := range proposers {
		j := job{Proposers: n, Size: size, Warm: p.warm, Time: p.time}
		at := cell{groups, size, n}
		if p.profile != "" {
			j.Profile = filepath.Join(p.profile, fmt.Sprintf("%s-%d-%d-%d.pprof", sys, groups, size, n))
		}
		s, err := c.measure(j)
		if err != nil {
			return fmt.Errorf("%d proposers: %w", n, err)
		}
		r.add(at, sys, s)
		fmt.Fprintf(os.Stderr, "%-11s %2d groups %7s %4d proposers: %s (others: %.1f cores)\n", sys, groups, sizeName(size), n, describe([]sample{s}), s.Others)
		p.record(at, sys, s)
	}
	return nil
}

func (p *plan) record(c cell, sys string, s sample) {
	if p.samples == nil {
		return
	}
	b, err := json.Marshal(map[string]any{"system": sys, "groups": c.groups, "size": c.size, "proposers": c.proposers, "sample": s})
	if err == nil {
		_, err = fmt.Fprintf(p.samples, "%s\n", b)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "record sample:", err)
	}
}
