package config

import (
	"errors"
	"slices"
	"testing"
	"time"
)

func TestOverlay(t *testing.T) {
	file := Default()
	file.Log.Keep = 64 << 20
	got, err := file.Overlay(map[string]string{"log.limit": "1GiB", "proxy.max_connections": "7", "switchover.drain": "1s", "audit.enabled": "false"})
	if err != nil {
		t.Fatal(err)
	}
	if got.Log != (Log{Keep: 64 << 20, Limit: 1 << 30}) || got.Proxy.MaxConnections != 7 || got.Switchover.Drain.D() != time.Second || got.Audit.Enabled || !file.Audit.Enabled {
		t.Errorf("got %+v %+v %+v", got.Log, got.Proxy, got.Switchover)
	}
	if file.Log.Limit != 8<<30 {
		t.Error("the file's own values were changed")
	}
	for _, key := range SharedKeys() {
		again, err := file.Overlay(map[string]string{key: file.SharedValue(key)})
		if err != nil || again.SharedValue(key) != file.SharedValue(key) {
			t.Errorf("%s: %v does not come back: %v", key, file.SharedValue(key), err)
		}
	}
}

// Everything that is wrong is said at once, with what to do.
func TestOverlayRefuses(t *testing.T) {
	file := Default()
	_, err := file.Overlay(map[string]string{
		"log.keep": "2GiB", "log.limit": "3GiB", "proxy.max_connections": "-1", "switchover.limit": "soon",
		"audit.enabled": "yes", "audit.rate": "7", "copy.rate": "1KiB",
		"log.kep": "1GiB", "node.data_dir": "/tmp", "consensus.heartbeat": "200ms", "consensus.lease": "1h",
	})
	var faults Faults
	if !errors.As(err, &faults) {
		t.Fatal(err)
	}
	var got []string
	for _, f := range faults {
		got = append(got, f.String())
	}
	want := []string{
		"audit.enabled: \"yes\" is neither true nor false",
		"audit.rate: is 7, must be between 100 and 10000000",
		"consensus.heartbeat: cannot be changed while the cluster runs (stop all members, change all files, start them)",
		"consensus.lease: is 1h0m0s, must be between 100ms and 1m0s",
		"copy.rate: is 1KiB, must be at least 1MiB",
		"log.kep: unknown key (did you mean \"log.keep\"?)",
		"log.limit: is 3GiB, less than twice log.keep (2GiB)",
		"node.data_dir: belongs to each node (change the node's own file, then 'phxsql rolling-restart')",
		"proxy.max_connections: \"-1\" is not a whole number",
		"switchover.limit: \"soon\" is not a length of time with a unit, such as \"900ms\" or \"10s\"",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%q, want\n%q", got, want)
	}
}
