package main

import (
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
)

const (
	// socketName is the socket on which the API server reaches etcd, in etcd's directory.
	socketName = "etcd.sock"
	// quota is the size of the database at which etcd stops taking writes (bytes): 25,000 objects with their history
	// take a tenth of it.
	quota = 4 << 30
	// slow is the time from which on etcd writes a warning about a request. NewConfig leaves it 0, which is one
	// warning for each request.
	slow = time.Second
)

// runEtcd serves one member of etcd on a socket in dir until a signal ends it. Its files are in dir too, and are
// not flushed to disk: the tests kill processes, not the machine.
func runEtcd(dir string) error {
	conf := embed.NewConfig()
	conf.Name = "test"
	conf.Dir = filepath.Join(dir, "data")
	conf.LogLevel = "error"
	conf.UnsafeNoFsync = true
	conf.QuotaBackendBytes = quota
	conf.WarningUnaryRequestDuration = slow
	peer := url.URL{Scheme: "http", Host: "127.0.0.1:0"}
	conf.ListenPeerUrls, conf.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	conf.ListenClientUrls = []url.URL{{Scheme: "unix", Path: filepath.Join(dir, socketName)}}
	// A socket is refused here; nobody asks a single member where else it listens.
	conf.AdvertiseClientUrls = []url.URL{{Scheme: "http", Host: "127.0.0.1:2379"}}
	conf.InitialCluster = conf.InitialClusterFromName(conf.Name)

	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	server, err := embed.StartEtcd(conf)
	if err != nil {
		return fmt.Errorf("start etcd in %s: %w", dir, err)
	}
	defer server.Close()
	select {
	case <-server.Server.ReadyNotify():
	case err := <-server.Err():
		return fmt.Errorf("etcd in %s: %w", dir, err)
	case <-stop:
		return nil
	}
	select {
	case err := <-server.Err():
		return fmt.Errorf("etcd in %s: %w", dir, err)
	case <-stop:
		return nil
	}
}
