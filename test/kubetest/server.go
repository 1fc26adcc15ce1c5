package kubetest

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"github.com/caracal-net/caracal/test/need"
)

// Users for whom a Server has a token.
const (
	Admin  = "admin"  // may do everything (group system:masters)
	Daemon = "daemon" // may do what a test grants
	Nobody = "nobody" // is granted nothing
)

// patience is how long a process may take to be ready: a hundred times what it takes on an idle machine.
const patience = 2 * time.Minute

// Server is a running API server with its etcd.
type Server struct {
	binary string
	dir    string
	port   int
	ca     []byte
	extra  []string // more flags of the API server

	etcd, apiserver *process
}

// Start runs a new, empty cluster until the test ends. More flags of kube-apiserver may be given.
func Start(t testing.TB, flags ...string) *Server {
	t.Helper()
	s, err := launch(need.APIServer(t), flags...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.stop)
	return s
}

// launch makes the directory and starts both processes.
func launch(binary string, flags ...string) (s *Server, err error) {
	// A short path: a socket's name has at most 107 characters (unix(7)), and etcd's is in here.
	dir, err := os.MkdirTemp("", "kube-")
	if err != nil {
		return nil, err
	}
	s = &Server{binary: binary, dir: dir, extra: flags}
	defer func(started *Server) { // a failure returns nil
		if err != nil {
			started.stop()
		}
	}(s)
	if s.ca, err = writeKeys(dir); err != nil {
		return nil, fmt.Errorf("write keys: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, tokenFile), []byte(tokens()), 0o600); err != nil {
		return nil, err
	}
	if err := s.startEtcd(); err != nil {
		return nil, err
	}
	// Another process may take the port between our finding it and the server's taking it.
	for range 3 {
		if s.port, err = freePort(); err != nil {
			return nil, err
		}
		if err = s.startAPIServer(); err == nil {
			return s, nil
		}
		s.apiserver.kill()
	}
	return nil, err
}

func tokens() string {
	return strings.Join([]string{
		`token-admin,admin,1,"system:masters"`,
		`token-daemon,daemon,2,"caracal"`,
		`token-nobody,nobody,3,"strangers"`,
	}, "\n") + "\n"
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

func (s *Server) stop() {
	for _, p := range []*process{s.apiserver, s.etcd} {
		if p != nil {
			p.kill()
		}
	}
	_ = os.RemoveAll(s.dir) // in the system's temporary directory; nothing depends on it
}

func (s *Server) startEtcd() (err error) {
	s.etcd, err = start(filepath.Join(s.dir, "etcd.log"), s.binary, "etcd", s.dir)
	return err
}

func (s *Server) startAPIServer() (err error) {
	in := func(name string) string { return filepath.Join(s.dir, name) }
	args := []string{
		"apiserver",
		"--etcd-servers=unix://" + in("etcd.sock"),
		"--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", fmt.Sprint("--secure-port=", s.port),
		"--tls-cert-file=" + in(certFile), "--tls-private-key-file=" + in(keyFile),
		"--client-ca-file=" + in(caFile), "--token-auth-file=" + in(tokenFile),
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + in(saFile), "--service-account-signing-key-file=" + in(saFile),
		"--service-cluster-ip-range=10.96.0.0/16,fd00:10:96::/108",
		"--authorization-mode=RBAC", "--allow-privileged=true",
		// No controller makes service accounts or takes taints away again.
		"--disable-admission-plugins=ServiceAccount,TaintNodesByCondition",
		"--endpoint-reconciler-type=none", // the default one refuses a loopback address
		// Without these two a server that is asked to end keeps watches open for a minute.
		"--shutdown-send-retry-after=true", "--shutdown-watch-termination-grace-period=1s",
		"--profiling=false",
	}
	s.apiserver, err = start(in("apiserver.log"), s.binary, append(args, s.extra...)...)
	if err != nil {
		return err
	}
	return s.awaitReady()
}

// awaitReady waits until the server says that it is ready.
func (s *Server) awaitReady() error {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(s.ca)
	client := &http.Client{
		Timeout:   5 * time.Second,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: true},
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var last error
	for ctx.Err() == nil {
		if s.apiserver.ended() || s.etcd.ended() {
			return errors.New("the API server or etcd ended while starting\n" + s.logs())
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL()+"/readyz", nil)
		if err != nil {
			return err
		}
		req.Header.Set("Authorization", "Bearer token-admin")
		resp, err := client.Do(req)
		if err == nil {
			body, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
			err = fmt.Errorf("%s: %s", resp.Status, body)
		}
		last = err
		time.Sleep(50 * time.Millisecond) // between two questions, up to the deadline
	}
	return fmt.Errorf("API server not ready within %s: %w\n%s", patience, last, s.logs())
}

// logs returns the end of what the processes said.
func (s *Server) logs() string {
	var out bytes.Buffer
	for _, name := range []string{"etcd.log", "apiserver.log"} {
		text, err := os.ReadFile(filepath.Join(s.dir, name))
		if err != nil {
			text = []byte(err.Error())
		}
		const end = 4000
		fmt.Fprintf(&out, "--- %s\n%s\n", name, text[max(0, len(text)-end):])
	}
	return out.String()
}

// URL returns the server's address.
func (s *Server) URL() string { return fmt.Sprintf("https://127.0.0.1:%d", s.port) }

// Config returns how a client reaches the server as a user. The client's own limit of requests a second is off.
func (s *Server) Config(user string) *rest.Config {
	return &rest.Config{
		Host: s.URL(), BearerToken: "token-" + user, QPS: -1,
		TLSClientConfig: rest.TLSClientConfig{CAData: bytes.Clone(s.ca)},
		WarningHandler:  rest.NoWarnings{},
	}
}

// Kubeconfig writes a file for KUBECONFIG and returns its path.
func (s *Server) Kubeconfig(t testing.TB, user string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kubeconfig")
	text := fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: %q, certificate-authority: %q}}]
users: [{name: u, user: {token: %q}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
`, s.URL(), filepath.Join(s.dir, caFile), "token-"+user)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// KillAPIServer ends the API server at once.
func (s *Server) KillAPIServer() { s.apiserver.kill() }

// EndAPIServer asks the API server to end, as a rolling update does, and waits for it.
func (s *Server) EndAPIServer() { s.apiserver.terminate(10 * time.Second) }

// StartAPIServer starts the API server again, on the same port, and waits until it is ready.
func (s *Server) StartAPIServer(t testing.TB) {
	t.Helper()
	if err := s.startAPIServer(); err != nil {
		t.Fatal(err)
	}
}

// KillEtcd ends etcd at once.
func (s *Server) KillEtcd() { s.etcd.kill() }

// StartEtcd starts etcd again with the data it had. The API server finds it by itself.
func (s *Server) StartEtcd(t testing.TB) {
	t.Helper()
	if err := s.startEtcd(); err != nil {
		t.Fatal(err)
	}
}

// SaveEtcd returns a copy of etcd's data. Etcd is stopped and started for it; the API server stays.
func (s *Server) SaveEtcd(t testing.TB) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "data")
	s.etcd.terminate(10 * time.Second)
	if err := os.CopyFS(dir, os.DirFS(s.data())); err != nil {
		t.Fatal(err)
	}
	s.StartEtcd(t)
	return dir
}

// RestoreEtcd puts a copy of etcd's data in place of what it has; "" stands for an etcd without any data. Both
// processes are stopped and started for it.
func (s *Server) RestoreEtcd(t testing.TB, dir string) {
	t.Helper()
	s.apiserver.kill()
	s.etcd.kill()
	if err := os.RemoveAll(s.data()); err != nil {
		t.Fatal(err)
	}
	if dir != "" {
		if err := os.CopyFS(s.data(), os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(s.startEtcd(), s.startAPIServer()); err != nil {
		t.Fatal(err)
	}
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }
