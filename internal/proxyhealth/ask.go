package proxyhealth

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"time"
)

// timeout bounds one question: who answers is on this host.
const timeout = time.Second

// maxAnswer is more than any answer has, in bytes.
const maxAnswer = 64 << 10

// answer is what came of a question.
type answer struct {
	status    string // "503 Service Unavailable"
	code      int
	endpoints int   // localEndpoints of a Service's answer
	err       error // nobody has answered
}

func (a *answer) ok() bool { return a.err == nil && a.code == http.StatusOK }

// get asks over HTTP. Connections are not kept: a question is asked every ten seconds.
func get(ctx context.Context, q question) answer {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+q.address+"/healthz", nil)
	if err != nil {
		return answer{err: err}
	}
	req.Close = true
	resp, err := (&http.Transport{}).RoundTrip(req) // never by a proxy of the environment
	if err != nil {
		return answer{err: err}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return answer{err: err}
	}
	a := answer{status: resp.Status, code: resp.StatusCode}
	var said struct {
		LocalEndpoints int `json:"localEndpoints"`
	}
	if json.Unmarshal(body, &said) == nil { // the proxy's own answer has none, and some proxies answer in plain text
		a.endpoints = said.LocalEndpoints
	}
	return a
}
