package config

import _ "embed"

// Sample is a commented configuration with every key at its default.
//
//go:embed sample.toml
var Sample string
