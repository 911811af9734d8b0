package telemetry

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"time"
)

// LogOptions configure a node's log.
type LogOptions struct {
	Level  string // debug, info, warn, error; empty is info
	Format string // text, json; empty is text
	// Events, if not nil, keeps the records of level Info and above as well.
	Events *Events
}

// NewLogger returns a logger that writes to w. Times are in UTC, so that the logs
// of several machines can be laid side by side.
func NewLogger(w io.Writer, o LogOptions) (*slog.Logger, error) {
	var level slog.Level
	if o.Level != "" {
		if err := level.UnmarshalText([]byte(o.Level)); err != nil {
			return nil, fmt.Errorf("set log level: %w", err)
		}
	}
	ho := &slog.HandlerOptions{Level: level, ReplaceAttr: plainTimes}
	var h slog.Handler
	switch o.Format {
	case "", "text":
		h = slog.NewTextHandler(w, ho)
	case "json":
		h = slog.NewJSONHandler(w, ho)
	default:
		return nil, fmt.Errorf("set log format: %q is neither text nor json", o.Format)
	}
	if o.Events != nil {
		h = &tee{out: h, events: o.Events}
	}
	return slog.New(h), nil
}

// plainTimes writes record times in UTC and lengths of time as people write them,
// in both formats.
func plainTimes(groups []string, a slog.Attr) slog.Attr {
	switch {
	case len(groups) == 0 && a.Key == slog.TimeKey && a.Value.Kind() == slog.KindTime:
		a.Value = slog.TimeValue(a.Value.Time().UTC())
	case a.Value.Kind() == slog.KindDuration:
		a.Value = slog.StringValue(a.Value.Duration().String())
	}
	return a
}

// tee hands records to a handler and to the ring of events.
type tee struct {
	out    slog.Handler
	events *Events
	attrs  []slog.Attr
	group  string
}

func (t *tee) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= slog.LevelInfo || t.out.Enabled(ctx, l)
}

func (t *tee) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= slog.LevelInfo {
		t.events.add(t.event(r))
	}
	if !t.out.Enabled(ctx, r.Level) {
		return nil
	}
	return t.out.Handle(ctx, r)
}

func (t *tee) event(r slog.Record) Event {
	e := Event{Time: r.Time.UTC(), Level: levelName(r.Level), Message: r.Message}
	add := func(a slog.Attr, prefix string) {
		if len(e.Attrs) < maxEventAttrs {
			e.Attrs = append(e.Attrs, EventAttr{prefix + a.Key, clip(text(a.Value))})
		}
	}
	for _, a := range t.attrs {
		add(a, "")
	}
	r.Attrs(func(a slog.Attr) bool {
		add(a, t.group)
		return true
	})
	return e
}

func text(v slog.Value) string {
	v = v.Resolve()
	if v.Kind() == slog.KindTime {
		return v.Time().UTC().Format(time.RFC3339Nano)
	}
	return v.String()
}

func levelName(l slog.Level) string {
	switch {
	case l >= slog.LevelError:
		return "error"
	case l >= slog.LevelWarn:
		return "warn"
	}
	return "info"
}

func (t *tee) WithAttrs(as []slog.Attr) slog.Handler {
	c := *t
	c.out = t.out.WithAttrs(as)
	c.attrs = append([]slog.Attr(nil), t.attrs...)
	for _, a := range as {
		c.attrs = append(c.attrs, slog.Attr{Key: t.group + a.Key, Value: a.Value})
	}
	return &c
}

func (t *tee) WithGroup(name string) slog.Handler {
	c := *t
	c.out = t.out.WithGroup(name)
	if name != "" {
		c.group = t.group + name + "."
	}
	return &c
}
