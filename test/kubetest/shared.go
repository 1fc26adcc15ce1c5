package kubetest

import (
	"sync"
	"testing"

	"github.com/caracal-net/caracal/test/need"
)

// Shared is one Server for all tests of a package, started when the first test asks for it. A package has it in a
// variable and stops it in TestMain:
//
//	var cluster kubetest.Shared
//
//	func TestMain(m *testing.M) { os.Exit(cluster.Main(m)) }
type Shared struct {
	mu     sync.Mutex
	server *Server
	err    error
}

// Main runs the tests and stops the Server.
func (s *Shared) Main(m *testing.M) int {
	code := m.Run()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.server != nil {
		s.server.stop()
	}
	return code
}

// Get returns the Server. Both sets of Calico's resource definitions are installed in it.
func (s *Shared) Get(t testing.TB) *Server {
	t.Helper()
	binary := need.APIServer(t)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.server == nil && s.err == nil {
		if s.server, s.err = launch(binary); s.err == nil {
			s.server.InstallCRDs(t, Classic, Native)
		}
	}
	if s.err != nil {
		t.Fatal(s.err)
	}
	return s.server
}
