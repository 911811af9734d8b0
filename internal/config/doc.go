// Package config reads a node's configuration: one TOML file, nested, durations
// and sizes with units.
//
// It is not where settings take effect, and it changes nothing: Parse is a pure
// function of the file's bytes, and Check only looks at the machine.
//
// Invariants:
//   - An unknown key is a fault, with the key that was probably meant.
//   - All faults of a file are reported at once, each with its key.
//   - The commented sample (Sample) parses to Default. A test says so.
package config
