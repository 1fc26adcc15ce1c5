package kube

import (
	"os"
	"testing"

	"github.com/caracal-net/caracal/internal/datastore"
	"github.com/caracal-net/caracal/internal/datastore/datastoretest"
	"github.com/caracal-net/caracal/test/kubetest"
)

var shared kubetest.Shared

func TestMain(m *testing.M) { os.Exit(shared.Main(m)) }

// open returns a Store of a server, as a user, in one form of the resources.
func open(t testing.TB, s *kubetest.Server, user string, form kubetest.Form) *Store {
	t.Helper()
	store, err := Open(t.Context(), Options{Config: s.Config(user), APIGroup: string(form)})
	if err != nil {
		t.Fatal(err)
	}
	return store
}

func TestContract(t *testing.T) {
	for _, form := range []kubetest.Form{kubetest.Classic, kubetest.Native} {
		t.Run(string(form), func(t *testing.T) {
			server := shared.Get(t)
			datastoretest.Contract(t, func(t *testing.T) datastore.Store {
				server.Clear(t, form)
				return open(t, server, kubetest.Admin, form)
			})
			datastoretest.ContractStart(t, func(t *testing.T) datastore.Store {
				server.Clear(t, form)
				return open(t, server, kubetest.Admin, form)
			})
		})
	}
}
