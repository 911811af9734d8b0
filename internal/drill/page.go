package drill

import (
	_ "embed"
	"fmt"
	"html/template"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/phxsql/phxsql/internal/api"
)

// The picture's measures, in pixels.
const (
	chartWidth  = 1400
	chartHeight = 160
	laneHeight  = 18
	labelWidth  = 70
	columns     = 700 // of the throughput
)

//go:embed page.html
var pageText string

var pageTemplate = template.Must(template.New("page").Funcs(template.FuncMap{
	"short": short,
	"since": func(ns int64) string { return short(time.Duration(ns)) },
	"back": func(b Bout) string {
		if b.Well == 0 {
			return "with the next"
		}
		return short(time.Duration(b.Well - b.Mended))
	},
	"inc": func(i int) int { return i + 1 },
}).Parse(pageText))

// page is what the template needs.
type page struct {
	*Verdict
	Width, Height, Label int
	Area                 string // the throughput, as an SVG path
	Peak                 string // what its top means
	Bars                 []bar
	Lanes                []lane
	Ticks                []tick
	Legend               []legend
	Phases               []string // of promotions, in their order
	Promotions           []promotion
}

// promotion is a failover with a cell for each phase.
type promotion struct {
	Failover
	Cells []string
}

// bar is a rectangle with a text that shows on hovering.
type bar struct {
	X, Y, W, H float64
	Class      string
	Title      string
	N          int
}

type lane struct {
	Name string
	Y    int
	Bars []bar
}

type tick struct {
	X      float64
	Text   string
	Anchor string // of the text: start or end
}

type legend struct{ Class, Text string }

// writePage writes the report that one can look at.
func writePage(path string, v *Verdict, acks []int64, end int64) error {
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	if err := pageTemplate.Execute(f, newPage(v, acks, end)); err != nil {
		f.Close()
		return fmt.Errorf("write report: %w", err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

func newPage(v *Verdict, acks []int64, end int64) *page {
	p := &page{Verdict: v, Width: labelWidth + chartWidth + 10, Label: labelWidth}
	end = max(end, int64(time.Second))
	x := func(at int64) float64 { return labelWidth + float64(min(max(at, 0), end))/float64(end)*chartWidth }
	p.throughput(acks, end)
	y := chartHeight + 10
	for i, b := range v.Bouts {
		to := b.Mended
		if to == 0 {
			to = end
		}
		row := float64(y + i%3*laneHeight) // overlapping faults stand below each other
		title := fmt.Sprintf("%d: %s, from %s to %s, %s without commits", b.N, b.Text, short(time.Duration(b.Broken)), short(time.Duration(to)), short(b.Pause))
		p.Bars = append(p.Bars, bar{x(b.Broken), row, max(2, x(to)-x(b.Broken)), laneHeight - 4, "fault", title, b.N})
		if b.Well > 0 {
			p.Bars = append(p.Bars, bar{x(to), row, max(1, x(b.Well)-x(to)), laneHeight - 4, "repair", fmt.Sprintf("%d: repair until %s", b.N, short(time.Duration(b.Well))), 0})
		}
	}
	y += 3*laneHeight + 8
	for n := 1; n <= v.Nodes; n++ {
		p.Lanes = append(p.Lanes, newLane(n, y, v.Changes, end, x))
		y += laneHeight + 4
	}
	p.ticks(end, x)
	p.promotions(v.Failovers)
	p.Height = y + 24
	for _, s := range []api.State{api.StateMaster, api.StateFollower, api.StatePromoting, api.StateDemoting, api.StateStarting, api.StateProving, api.StateFaulty, stateSilent} {
		p.Legend = append(p.Legend, legend{string(s), string(s)})
	}
	return p
}

// promotions gives each phase a column.
func (p *page) promotions(fs []Failover) {
	for _, f := range fs {
		at := 0
		for _, ph := range f.Phases {
			if i := slices.Index(p.Phases, ph.Name); i >= 0 {
				at = i + 1
				continue
			}
			p.Phases = slices.Insert(p.Phases, at, ph.Name) // after the one before it
			at++
		}
	}
	for _, f := range fs {
		cells := make([]string, len(p.Phases))
		for _, ph := range f.Phases {
			cells[slices.Index(p.Phases, ph.Name)] = ph.Took
		}
		p.Promotions = append(p.Promotions, promotion{f, cells})
	}
}

// throughput draws the acknowledgements of each column. What comes at once after a pause
// is far more than all else: what exceeds three times the 90th percentile is cut off.
func (p *page) throughput(acks []int64, end int64) {
	counts := make([]int, columns)
	for _, a := range acks {
		counts[min(columns-1, int(a*columns/(end+1)))]++
	}
	most := max(1, min(slices.Max(counts), 3*slices.Sorted(slices.Values(counts))[columns*9/10]))
	var b strings.Builder
	fmt.Fprintf(&b, "M%d,%d", labelWidth, chartHeight)
	for i, n := range counts {
		y := float64(chartHeight) * (1 - float64(min(n, most))/float64(most))
		fmt.Fprintf(&b, " L%.1f,%.1f L%.1f,%.1f", labelWidth+float64(i)*chartWidth/columns, y, labelWidth+float64(i+1)*chartWidth/columns, y)
	}
	fmt.Fprintf(&b, " L%d,%d Z", labelWidth+chartWidth, chartHeight)
	p.Area = b.String()
	p.Peak = fmt.Sprintf("%.0f/s", float64(most)/(float64(end)/columns/float64(time.Second)))
}

func newLane(node, y int, changes []Change, end int64, x func(int64) float64) lane {
	l := lane{Name: fmt.Sprintf("node %d", node), Y: y}
	var last *Change
	add := func(to int64) {
		if last != nil {
			l.Bars = append(l.Bars, bar{x(last.At), float64(y), max(0.5, x(to)-x(last.At)), laneHeight, string(last.State),
				fmt.Sprintf("node %d is %s from %s to %s", node, last.State, short(time.Duration(last.At)), short(time.Duration(to))), 0})
		}
	}
	for i := range changes {
		if changes[i].Node == node {
			add(changes[i].At)
			last = &changes[i]
		}
	}
	add(end)
	return l
}

// ticks puts about a dozen times on the axis.
func (p *page) ticks(end int64, x func(int64) float64) {
	step := time.Second
	for _, s := range []time.Duration{2, 5, 10, 30, 60, 120, 300, 600, 1800} {
		if int64(step)*14 < end {
			step = s * time.Second
		}
	}
	for at := int64(0); at <= end; at += int64(step) {
		anchor := "start"
		if x(at) > labelWidth+chartWidth-30 {
			anchor = "end"
		}
		p.Ticks = append(p.Ticks, tick{x(at), time.Duration(at).String(), anchor})
	}
}
