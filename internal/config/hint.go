package config

import "reflect"

// didYouMean names the known key that is nearest to an unknown one: in its own
// table first, else wherever a key of that very name stands.
func didYouMean(key, prefix string, names []string) string {
	best, dist := "", len(key)/3+2
	for _, n := range names {
		if d := distance(key, n); d < dist {
			best, dist = n, d
		}
	}
	if best != "" {
		return "did you mean \"" + prefix + best + "\"?"
	}
	if full := findKey(reflect.TypeFor[Config](), "", key); full != "" {
		return "did you mean \"" + full + "\"?"
	}
	return "see 'phxsql config sample' for all keys"
}

func findKey(t reflect.Type, prefix, key string) string {
	for i := range t.NumField() {
		f := t.Field(i)
		name := prefix + f.Tag.Get("toml")
		if f.Type.Kind() == reflect.Struct {
			if full := findKey(f.Type, name+".", key); full != "" {
				return full
			}
			continue
		}
		if f.Tag.Get("toml") == key {
			return name
		}
	}
	return ""
}

// distance is the number of single-letter edits between two words.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		prev := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := prev
			if a[i] != b[j] {
				cost++
			}
			prev = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
