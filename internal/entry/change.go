package entry

import (
	"encoding/json"
	"fmt"
	"time"
)

// MaxChange is the largest text of a Change in bytes.
const MaxChange = 64 << 10

// Change is the text of a Settings value: one change of what a cluster has once for
// all its members. It counts only if the newest change that counts before it stands
// at After: two that were checked apart never mix.
//
// It is JSON. A reader of an older release passes over fields that it does not know,
// so nothing that must not be missed is ever added as a field of this format.
type Change struct {
	Format int `json:"format"` // 1
	// After is the instance of the newest change that counts; 0 if there is none.
	After uint64 `json:"after"`
	// At is when, by the clock of the node that proposed it; By is who, in their
	// own words. Both are for people.
	At time.Time `json:"at"`
	By string    `json:"by,omitempty"`
	// Set gives keys a value, Unset takes it away. The values are texts, as they
	// would stand in a configuration; this package does not judge them.
	Set   map[string]string `json:"set,omitempty"`
	Unset []string          `json:"unset,omitempty"`
}

// Encode returns the text of the change, with its format.
func (c Change) Encode() ([]byte, error) {
	c.Format = 1
	b, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("encode change of settings: %w", err)
	}
	if len(b) > MaxChange {
		return nil, fmt.Errorf("encode change of settings: %d bytes, limit %d", len(b), MaxChange)
	}
	return b, nil
}

// DecodeChange reads the text of a Settings value.
func DecodeChange(b []byte) (Change, error) {
	var c Change
	if len(b) > MaxChange {
		return c, fmt.Errorf("decode change of settings: %d bytes: %w", len(b), ErrMalformed)
	}
	if err := json.Unmarshal(b, &c); err != nil {
		return c, fmt.Errorf("decode change of settings: %v: %w", err, ErrMalformed)
	}
	if c.Format != 1 {
		return c, fmt.Errorf("decode change of settings: format %d: %w", c.Format, ErrMalformed)
	}
	return c, nil
}
