package api

import (
	"context"
	"net/http"
	"time"

	"github.com/phxsql/phxsql/internal/telemetry"
	"github.com/phxsql/phxsql/paxos"
)

// Setting is one key that may be set for all members at once.
type Setting struct {
	Key string `json:"key"`
	// Value is what the node works by.
	Value string `json:"value"`
	// From says where it comes from: cluster (it is set for all members), file (of
	// the node that answers), or default.
	From    string `json:"from"`
	Default string `json:"default"`
	// File is what the file of the node that answers says, where that does not count.
	File string `json:"file,omitempty"`
	// Instance, Changed and By tell of the change that set it for all members.
	Instance paxos.Instance `json:"instance,omitempty"`
	Changed  *time.Time     `json:"changed,omitempty"`
	By       string         `json:"by,omitempty"`
}

// SettingsResult are the settings as a node knows them.
type SettingsResult struct {
	// At is where the newest change stands; 0 if there was none.
	At       paxos.Instance `json:"at"`
	Settings []Setting      `json:"settings"`
	// Waiting are the members that are not known to work by it yet.
	Waiting []paxos.NodeID `json:"waiting"`
}

// SettingsRequest changes settings of the whole cluster.
type SettingsRequest struct {
	Set map[string]string `json:"set,omitempty"`
	// Unset are keys that are left to each member's own file again.
	Unset []string `json:"unset,omitempty"`
	// By is who asks, in their own words; for the history.
	By string `json:"by,omitempty"`
}

// SettingsChange is one change of the settings.
type SettingsChange struct {
	Instance paxos.Instance    `json:"instance"`
	Time     time.Time         `json:"time"`
	By       string            `json:"by,omitempty"`
	Set      map[string]string `json:"set,omitempty"`
	Unset    []string          `json:"unset,omitempty"`
}

// SettingsHistory are the newest changes, oldest first.
type SettingsHistory struct {
	Changes []SettingsChange `json:"changes"`
}

const (
	configPath  = "/v1/config"
	historyPath = "/v1/config/history"
	changePath  = "/v1/config/change"
	maxBy       = 200 // characters of SettingsRequest.By
)

func (s *Server) settingsRoutes(member func(method, path string, h http.HandlerFunc)) {
	member("GET", configPath, func(w http.ResponseWriter, r *http.Request) {
		res, err := s.o.Node.Settings(r.Context())
		s.answer(w, r, res, err)
	})
	member("GET", historyPath, func(w http.ResponseWriter, r *http.Request) {
		res, err := s.o.Node.SettingsHistory(r.Context())
		s.answer(w, r, res, err)
	})
	member("POST", changePath, post(s, "change of settings asked", switchTimeout, s.o.Node.ChangeSettings))
}

func (r *SettingsRequest) check() error {
	if len(r.Set)+len(r.Unset) == 0 {
		return BadRequest("no_setting", "no setting is named", "phxsql config show lists them")
	}
	return checkBy(r.By)
}

func (r *SettingsRequest) note() []any { return []any{telemetry.KeyUser, r.By} }

// checkBy bounds what those who ask call themselves.
func checkBy(by string) error {
	if len(by) > maxBy {
		return BadRequest("bad_by", "the name of who asks is too long", "")
	}
	return nil
}

// Settings asks for the settings.
func (c *Client) Settings(ctx context.Context) (SettingsResult, error) {
	var res SettingsResult
	err := c.do(ctx, "GET", configPath, nil, nil, &res)
	return res, err
}

// SettingsHistory asks for the changes of the settings.
func (c *Client) SettingsHistory(ctx context.Context) (SettingsHistory, error) {
	var res SettingsHistory
	err := c.do(ctx, "GET", historyPath, nil, nil, &res)
	return res, err
}

// ChangeSettings changes settings of the whole cluster.
func (c *Client) ChangeSettings(ctx context.Context, req SettingsRequest) (SettingsResult, error) {
	var res SettingsResult
	err := c.do(ctx, "POST", changePath, nil, req, &res)
	return res, err
}
