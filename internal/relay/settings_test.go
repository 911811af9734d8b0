package relay

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/phxsql/phxsql/internal/entry"
)

func (l *memLog) change(t *testing.T, after uint64, key, value string) {
	t.Helper()
	text, err := entry.Change{After: after, By: "ann", Set: map[string]string{key: value}}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	l.add(&entry.Value{Kind: entry.Settings, Node: 1, Events: text})
}

// What was set before the log was trimmed holds behind it, with its history.
func TestSettingsSurviveTheEndOfTheLog(t *testing.T) {
	l := newMemLog(t)
	l.add(&entry.Value{Kind: entry.Epoch, Epoch: 1, Node: 1})
	l.change(t, 0, "log.keep", "1GiB")
	l.change(t, 2, "log.limit", "4GiB")
	l.add(txnsValue(1, checkpointBytes, 1))
	l.change(t, 3, "log.keep", "2GiB")
	l.add(txnsValue(1, checkpointBytes, 2))
	whole := NewJournal(l, Base{}, quiet())
	if err := whole.WaitThrough(t.Context(), l.Chosen()); err != nil {
		t.Fatal(err)
	}
	base, ok := whole.Cut(4, 0)
	if !ok || base.Settings.At != 3 {
		t.Fatalf("cut at %d with settings of %d, %v", base.Next, base.Settings.At, ok)
	}
	var err error
	if base.Settings, err = DecodeSettings(base.Settings.Encode()); err != nil {
		t.Fatal(err)
	}
	l.mu.Lock()
	l.first = base.Next
	l.mu.Unlock()
	late := NewJournal(l, Base{}, quiet())
	_, changed := late.Settings()
	if err := late.Rebase(base, func() error { return nil }); err != nil {
		t.Fatal(err)
	}
	<-changed
	if err := late.WaitThrough(t.Context(), l.Chosen()); err != nil {
		t.Fatal(err)
	}
	want, _ := whole.Settings()
	got, _ := late.Settings()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("behind the cut (-whole +behind):\n%s", d)
	}
	if got.At != 5 || len(got.History) != 3 {
		t.Errorf("newest at %d, %d changes", got.At, len(got.History))
	}
}

func TestSettingsForgetOldChangesOnly(t *testing.T) {
	s := &Settings{}
	s = s.with(1, entry.Change{Set: map[string]string{"first": "1"}})
	for i := 2; i <= maxHistory+7; i++ {
		s = s.with(s.At+1, entry.Change{After: uint64(s.At), Set: map[string]string{"k": fmt.Sprint(i)}})
	}
	if len(s.History) != maxHistory || s.Values["first"].Value != "1" || s.Values["k"].Value != fmt.Sprint(maxHistory+7) {
		t.Errorf("%d changes, %+v", len(s.History), s.Values)
	}
	if s.History[0].Instance != 8 {
		t.Errorf("the oldest change stands at %d", s.History[0].Instance)
	}
}

func TestAnUnreadableChangeStopsTheJournal(t *testing.T) {
	l := newMemLog(t)
	l.add(&entry.Value{Kind: entry.Settings, Node: 1, Events: []byte(`{"format":2}`)})
	if err := NewJournal(l, Base{}, quiet()).WaitThrough(t.Context(), 1); err == nil {
		t.Error("a change of a later format is passed over")
	}
}
