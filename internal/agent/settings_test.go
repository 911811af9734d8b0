package agent

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/phxsql/phxsql/internal/api"
	"github.com/phxsql/phxsql/internal/config"
	"github.com/phxsql/phxsql/internal/relay"
)

func TestSettingsChange(t *testing.T) {
	file := config.Default()
	now := &relay.Settings{At: 4, Values: map[string]relay.Setting{
		"log.keep": {Value: "1GiB"}, "proxy.max_connections": {Value: "100"},
		"later.key": {Value: "of a newer release"},
	}}
	c, err := settingsChange(&file, now, api.SettingsRequest{
		Set:   map[string]string{"log.keep": "1024MiB", "log.limit": "4096MiB"},
		Unset: []string{"switchover.drain", "proxy.max_connections"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Set) != 1 || c.Set["log.limit"] != "4GiB" {
		t.Errorf("what holds already is set again, or not in the usual form: %v", c.Set)
	}
	if !slices.Equal(c.Unset, []string{"proxy.max_connections"}) {
		t.Errorf("unset %v", c.Unset)
	}
	for name, req := range map[string]api.SettingsRequest{
		"log.limit":            {Set: map[string]string{"log.keep": "5GiB"}},
		"set and":              {Set: map[string]string{"log.keep": "1GiB"}, Unset: []string{"log.keep"}},
		"each node":            {Unset: []string{"node.id"}},
		"three heartbeats":     {Set: map[string]string{"consensus.lease": "200ms"}},
		"between 100ms and 1m": {Set: map[string]string{"consensus.lease": "2m"}},
		"while the cluster":    {Set: map[string]string{"consensus.heartbeat": "50ms"}},
		"did you mean":         {Set: map[string]string{"log.limt": "2GiB"}},
	} {
		_, err := settingsChange(&file, now, req)
		var refused *api.Error
		if !errors.As(err, &refused) || refused.Name != "bad_setting" || !strings.Contains(refused.Reason, name) {
			t.Errorf("%v: %v, want %q", req, err, name)
		}
	}
}

// A value for all members may not fit what this node's own file says: then what is
// worked by fits nevertheless.
func TestSettingsFitTheFile(t *testing.T) {
	file := config.Default()
	file.Log = config.Log{Keep: 4 << 30, Limit: 9 << 30}
	c, err := file.Overlay(map[string]string{"log.limit": "2GiB"})
	if err == nil {
		t.Fatal("not noticed")
	}
	if c = reconciled(c); c.Log != (config.Log{Keep: 1 << 30, Limit: 2 << 30}) {
		t.Errorf("worked by %+v", c.Log)
	}
	file = config.Default()
	file.Consensus.Heartbeat, file.Consensus.Lease = config.Duration(time.Second), config.Duration(9*time.Second)
	if c, err = file.Overlay(map[string]string{"consensus.lease": "900ms"}); err == nil {
		t.Fatal("a lease shorter than a heartbeat is not noticed")
	}
	if c = reconciled(c); c.Consensus.Lease.D() != 3*time.Second {
		t.Errorf("leases of %v with heartbeats of a second", c.Consensus.Lease)
	}
}
