package peers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
)

// plainGoBGP is the library that this project embeds, run by itself (test/peers/plaingobgp).
type plainGoBGP struct{}

// buildGoBGP builds the program once a process, into a cache that the next process overwrites with the same.
var buildGoBGP = sync.OnceValues(func() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	path := filepath.Join(cache, "caracal", "plaingobgp")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", err
	}
	mine := fmt.Sprintf("%s.%d", path, os.Getpid())
	cmd := exec.Command("go", "build", "-o", mine, "github.com/caracal-net/caracal/test/peers/plaingobgp")
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build plaingobgp: %w: %s", err, out)
	}
	return path, os.Rename(mine, path) // whoever runs the former one keeps it
})

func (plainGoBGP) programs() []program {
	path, err := buildGoBGP()
	if err != nil {
		return []program{{"plaingobgp", err.Error()}}
	}
	return []program{{path, "this module"}}
}

func (plainGoBGP) user() string { return "" }

func (plainGoBGP) commands(r *Router) []command {
	path, _ := buildGoBGP() // Start has asked Missing
	args := []string{path, r.path("config.json"), r.path("socket")}
	if r.restarted {
		args = append(args, "restarted")
	}
	return []command{{"plaingobgp", args, func(ctx context.Context) error {
		var s []Session
		return askGoBGP(ctx, r, http.MethodGet, "/sessions", &s)
	}}}
}

func (plainGoBGP) files(r *Router) map[string]string {
	text, err := json.Marshal(r.cfg)
	if err != nil {
		text = []byte(err.Error()) // on which the program will choke
	}
	return map[string]string{"config.json": string(text)}
}

// askGoBGP asks the program on its socket.
func askGoBGP(ctx context.Context, r *Router, method, question string, out any) error {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", r.path("socket"))
	}}}
	req, err := http.NewRequestWithContext(ctx, method, "http://plaingobgp"+question, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return errors.New(string(text))
	}
	return json.Unmarshal(text, out)
}

func (plainGoBGP) reload(ctx context.Context, r *Router) error {
	var nothing any
	return askGoBGP(ctx, r, http.MethodPost, "/reload", &nothing)
}

func (plainGoBGP) sessions(ctx context.Context, r *Router) ([]Session, error) {
	var out []Session
	err := askGoBGP(ctx, r, http.MethodGet, "/sessions", &out)
	return out, err
}

func (plainGoBGP) paths(ctx context.Context, r *Router, p netip.Prefix) ([]Path, error) {
	var out []Path
	err := askGoBGP(ctx, r, http.MethodGet, "/paths?prefix="+url.QueryEscape(p.String()), &out)
	return out, err
}
