package config

import (
	"encoding"
	"errors"
	"fmt"
	"math"
	"reflect"
	"sort"
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"
)

// Fault is one thing that is wrong with a configuration.
type Fault struct {
	Key    string // dotted, such as consensus.lease; empty for the whole file
	Reason string
	Hint   string // what to do; may be empty
}

func (f Fault) String() string {
	s := f.Reason
	if f.Key != "" {
		s = f.Key + ": " + s
	}
	if f.Hint != "" {
		s += " (" + f.Hint + ")"
	}
	return s
}

// Faults are all that is wrong with a configuration; never empty when returned
// as an error.
type Faults []Fault

// Error lists the faults, one a line if there are several.
func (fs Faults) Error() string {
	if len(fs) == 1 {
		return fs[0].String()
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d faults:", len(fs))
	for _, f := range fs {
		b.WriteString("\n  " + f.String())
	}
	return b.String()
}

func (fs Faults) orNil() error {
	if len(fs) == 0 {
		return nil
	}
	return fs
}

// Parse reads a configuration and checks everything that needs no look at the
// machine. Keys that are absent have their default. The error is of type Faults.
func Parse(data []byte) (Config, error) {
	var tree map[string]any
	if _, err := toml.Decode(string(data), &tree); err != nil {
		return Config{}, Faults{syntaxFault(err)}
	}
	c := Default()
	b := binder{}
	b.table("", tree, reflect.ValueOf(&c).Elem())
	b.faults = append(b.faults, c.check(b.bad)...)
	sort.SliceStable(b.faults, func(i, j int) bool { return b.faults[i].Key < b.faults[j].Key })
	return c, b.faults.orNil()
}

func syntaxFault(err error) Fault {
	var pe toml.ParseError
	if errors.As(err, &pe) {
		return Fault{Reason: fmt.Sprintf("line %d: %s", pe.Position.Line, pe.Message), Hint: "the file is not TOML"}
	}
	return Fault{Reason: err.Error(), Hint: "the file is not TOML"}
}

// binder moves a TOML tree into a struct and collects every fault on the way.
type binder struct {
	faults Faults
	bad    map[string]bool // keys that have a fault already
}

func (b *binder) fault(key, reason, hint string) {
	if b.bad == nil {
		b.bad = map[string]bool{}
	}
	b.bad[key] = true
	b.faults = append(b.faults, Fault{key, reason, hint})
}

func (b *binder) table(prefix string, tree map[string]any, dst reflect.Value) {
	fields := map[string]reflect.Value{}
	var names []string
	for i := range dst.NumField() {
		name := dst.Type().Field(i).Tag.Get("toml")
		fields[name] = dst.Field(i)
		names = append(names, name)
	}
	for key, v := range tree {
		full := prefix + key
		f, ok := fields[key]
		if !ok {
			b.fault(full, "unknown key", didYouMean(key, prefix, names))
			continue
		}
		b.value(full, v, f)
	}
}

func (b *binder) value(key string, v any, dst reflect.Value) {
	if dst.Kind() == reflect.Struct {
		t, ok := v.(map[string]any)
		if !ok {
			b.fault(key, "must be a table, not "+describe(v), "write ["+key+"] on a line of its own")
			return
		}
		b.table(key+".", t, dst)
		return
	}
	if u, ok := dst.Addr().Interface().(encoding.TextUnmarshaler); ok {
		b.text(key, v, u)
		return
	}
	b.scalar(key, v, dst)
}

func (b *binder) text(key string, v any, u encoding.TextUnmarshaler) {
	s, ok := v.(string)
	if !ok {
		s = fmt.Sprint(v)
		if err := u.UnmarshalText([]byte(s)); err == nil {
			b.fault(key, "must be a string with a unit, not "+describe(v), "")
			return
		}
	}
	if err := u.UnmarshalText([]byte(s)); err != nil {
		b.fault(key, err.Error(), "")
	}
}

func (b *binder) scalar(key string, v any, dst reflect.Value) {
	var want string
	switch dst.Kind() {
	case reflect.String:
		want = "a string"
		if s, ok := v.(string); ok {
			dst.SetString(s)
			return
		}
	case reflect.Bool:
		want = "true or false"
		if t, ok := v.(bool); ok {
			dst.SetBool(t)
			return
		}
	case reflect.Int, reflect.Uint64:
		want = "a whole number that is not negative"
		if n, ok := v.(int64); ok && n >= 0 && n <= math.MaxInt32 {
			if dst.Kind() == reflect.Int {
				dst.SetInt(n)
			} else {
				dst.SetUint(uint64(n))
			}
			return
		}
	case reflect.Float64:
		want = "a number"
		switch n := v.(type) {
		case float64:
			dst.SetFloat(n)
			return
		case int64:
			dst.SetFloat(float64(n))
			return
		}
	case reflect.Map:
		b.options(key, v, dst)
		return
	default:
		panic("config: field of kind " + dst.Kind().String() + " at " + key)
	}
	b.fault(key, "must be "+want+", not "+describe(v), "")
}

// options reads a table of free names with plain values.
func (b *binder) options(key string, v any, dst reflect.Value) {
	t, ok := v.(map[string]any)
	if !ok {
		b.fault(key, "must be a table, not "+describe(v), "write ["+key+"] on a line of its own")
		return
	}
	m := map[string]string{}
	for k, x := range t {
		switch x := x.(type) {
		case string:
			m[k] = x
		case int64:
			m[k] = strconv.FormatInt(x, 10)
		case float64:
			m[k] = strconv.FormatFloat(x, 'g', -1, 64)
		case bool:
			m[k] = map[bool]string{true: "ON", false: "OFF"}[x]
		default:
			b.fault(key+"."+k, "must be a string, a number, true or false, not "+describe(x), "")
		}
	}
	dst.Set(reflect.ValueOf(m))
}

func describe(v any) string {
	switch v := v.(type) {
	case string:
		return fmt.Sprintf("the string %q", v)
	case bool, int64, float64:
		return fmt.Sprint(v)
	case map[string]any:
		return "a table"
	case []any, []map[string]any:
		return "an array"
	}
	return fmt.Sprintf("a value of type %T", v)
}
