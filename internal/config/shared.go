package config

import (
	"encoding"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
)

// A few keys may be set for all members at once: their values stand in the replicated
// log. Where the log has a value for a key, it counts on every member, and the one in a
// member's file does not. All other keys are a node's own.

// shared finds the place of each such key in a configuration.
var shared = map[string]func(*Config) any{
	"audit.enabled":         func(c *Config) any { return &c.Audit.Enabled },
	"audit.interval":        func(c *Config) any { return &c.Audit.Interval },
	"audit.prove_rate":      func(c *Config) any { return &c.Audit.ProveRate },
	"audit.rate":            func(c *Config) any { return &c.Audit.Rate },
	"copy.rate":             func(c *Config) any { return &c.Copy.Rate },
	"consensus.lease":       func(c *Config) any { return &c.Consensus.Lease },
	"flow.max_lag":          func(c *Config) any { return &c.Flow.MaxLag },
	"log.keep":              func(c *Config) any { return &c.Log.Keep },
	"log.limit":             func(c *Config) any { return &c.Log.Limit },
	"proxy.max_connections": func(c *Config) any { return &c.Proxy.MaxConnections },
	"proxy.connect_timeout": func(c *Config) any { return &c.Proxy.ConnectTimeout },
	"switchover.limit":      func(c *Config) any { return &c.Switchover.Limit },
	"switchover.drain":      func(c *Config) any { return &c.Switchover.Drain },
}

// SharedKeys are the keys that may be set for all members at once, sorted.
func SharedKeys() []string { return slices.Sorted(maps.Keys(shared)) }

// IsShared reports whether a key may be set for all members at once.
func IsShared(key string) bool { return shared[key] != nil }

// SharedValue is the value of such a key as text, as it would stand in the file.
func (c *Config) SharedValue(key string) string {
	return fmt.Sprint(deref(shared[key](c)))
}

func deref(p any) any {
	switch p := p.(type) {
	case *Size:
		return *p
	case *Duration:
		return *p
	case *int:
		return *p
	case *bool:
		return *p
	}
	panic(fmt.Sprintf("config: shared key of type %T", p))
}

// Overlay returns the configuration with the values that are set for all members in
// the place of its own. Faults are all that is wrong with the result: with the keys,
// the values, and how they go together. Then the configuration is returned too, with
// those that could be read.
func (c Config) Overlay(values map[string]string) (Config, error) {
	k := &checker{bad: map[string]bool{}}
	for _, key := range slices.Sorted(maps.Keys(values)) {
		place := shared[key]
		if place == nil {
			why, hint := unshared(key)
			k.add(false, key, why, hint)
			continue
		}
		if err := setText(place(&c), values[key]); err != nil {
			k.add(false, key, err.Error(), "")
			k.bad[key] = true
		}
	}
	c.checkShared(k)
	slices.SortStableFunc(k.faults, func(a, b Fault) int {
		switch {
		case a.Key < b.Key:
			return -1
		case a.Key > b.Key:
			return 1
		}
		return 0
	})
	return c, k.faults.orNil()
}

// unshared says why a key cannot be set for all members.
func unshared(key string) (why, hint string) {
	if key == "consensus.heartbeat" || key == "consensus.clock_error" {
		return "cannot be changed while the cluster runs", "stop all members, change all files, start them"
	}
	if hasKey(reflect.TypeFor[Config](), "", key) {
		return "belongs to each node", "change the node's own file, then 'phxsql rolling-restart'"
	}
	best, dist := "", len(key)/3+2
	for _, n := range SharedKeys() {
		if d := distance(key, n); d < dist {
			best, dist = n, d
		}
	}
	if best != "" {
		return "unknown key", "did you mean \"" + best + "\"?"
	}
	return "unknown key", "'phxsql config show' lists the keys"
}

// hasKey reports whether there is a key of this full name.
func hasKey(t reflect.Type, prefix, key string) bool {
	for f := range t.Fields() {
		name := prefix + f.Tag.Get("toml")
		if name == key || f.Type.Kind() == reflect.Struct && hasKey(f.Type, name+".", key) {
			return true
		}
	}
	return false
}

func setText(place any, text string) error {
	if u, ok := place.(encoding.TextUnmarshaler); ok {
		return u.UnmarshalText([]byte(text))
	}
	if b, ok := place.(*bool); ok {
		if text != "true" && text != "false" {
			return fmt.Errorf("%q is neither true nor false", text)
		}
		*b = text == "true"
		return nil
	}
	n, err := strconv.ParseUint(text, 10, 31)
	if err != nil {
		return fmt.Errorf("%q is not a whole number", text)
	}
	*place.(*int) = int(n)
	return nil
}
