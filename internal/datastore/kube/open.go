package kube

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/caracal-net/caracal/internal/datastore"
)

// The environment, named and meant as in calico-node.
const (
	EnvAPIGroup  = "CALICO_API_GROUP" // crd.projectcalico.org/v1 or projectcalico.org/v3; empty: whichever the cluster has
	EnvNamespace = "NAMESPACE"        // of the ConfigMap calico-config and of passwords; empty: kube-system
)

// Options are what a Store may be told. The zero value is right inside a cluster.
type Options struct {
	Log *slog.Logger // nil: nothing is logged
	// Config is how the API server is reached; nil: by Kubeconfig.
	Config *rest.Config
	// Kubeconfig is a file; empty: the variable KUBECONFIG, else the service account of the pod.
	Kubeconfig string
	// APIGroup and Namespace stand for the variables CALICO_API_GROUP and NAMESPACE.
	APIGroup, Namespace string
	// ClusterIPs stand for serviceClusterIPs of BGPConfiguration; none: that counts.
	ClusterIPs []netip.Prefix
	// PodsOf names the node, as Kubernetes names it, whose Pods are watched; empty: none are.
	PodsOf string
	// Node is the same for Pods that are watched while a BGPPeer has workloads for peers; empty: they are not.
	Node string
	// Timeout bounds each call of the Store, and each page of a list, in which the API server may wait for etcd. 0 means 15 seconds.
	Timeout time.Duration
	// Doubt is how long a suspect list is told as such at least. 0 means 10 minutes: by then every kubelet has reported
	// its node (at the latest after 5 minutes: nodeStatusReportFrequency) and controllers have mended what they own.
	Doubt time.Duration
}

// FromEnv fills in what the environment says.
func (o Options) FromEnv(env func(string) string) Options {
	o.APIGroup, o.Namespace = env(EnvAPIGroup), env(EnvNamespace)
	return o
}

const (
	defaultNamespace = "kube-system"
	defaultTimeout   = 15 * time.Second
	defaultDoubt     = 10 * time.Minute
)

// Store is the Kubernetes API. All methods may be called from any goroutine.
type Store struct {
	opts    Options
	objects dynamic.Interface  // whole objects, as JSON
	metas   metadata.Interface // metadata only, as protobuf where it can be
	plain   rest.Interface     // for discovery, and what is read as it comes
	single  rest.Interface     // the same, each request on a connection of its own
	host    string

	mu    sync.Mutex
	found *form // once it is known
}

var (
	_ datastore.Store   = (*Store)(nil)
	_ datastore.Watcher = (*Store)(nil)
)

// Open returns the Store of a cluster. The API server need not be there yet: only what is wrong on this side of
// the network is an error here.
func Open(ctx context.Context, opts Options) (*Store, error) {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.Namespace == "" {
		opts.Namespace = defaultNamespace
	}
	if opts.Timeout == 0 {
		opts.Timeout = defaultTimeout
	}
	if opts.Doubt == 0 {
		opts.Doubt = defaultDoubt
	}
	s := &Store{opts: opts}
	switch opts.APIGroup {
	case "":
	case classic.String(), classic.group:
		s.found = &classic
	case native.String(), native.group:
		s.found = &native
	default:
		return nil, fmt.Errorf("open datastore: %s=%q is not known: write %s or %s, or nothing", EnvAPIGroup, opts.APIGroup, classic, native)
	}
	config, err := opts.config()
	if err != nil {
		return nil, fmt.Errorf("open datastore: %w", err)
	}
	if err := s.connect(config); err != nil {
		return nil, fmt.Errorf("open datastore %s: %w", config.Host, err)
	}
	return s, ctx.Err()
}

// config finds out how the API server is reached.
func (o *Options) config() (*rest.Config, error) {
	if o.Config != nil {
		return rest.CopyConfig(o.Config), nil
	}
	rules := clientcmd.NewDefaultClientConfigLoadingRules() // reads KUBECONFIG
	rules.ExplicitPath = o.Kubeconfig
	if o.Kubeconfig == "" && os.Getenv(clientcmd.RecommendedConfigPathEnvVar) == "" {
		config, err := rest.InClusterConfig()
		if err != nil {
			return nil, fmt.Errorf("%w; outside a cluster, name a file in %s", err, clientcmd.RecommendedConfigPathEnvVar)
		}
		return config, nil
	}
	return clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, nil).ClientConfig()
}

// connect makes the clients. They share one connection, but for watches that never rest.
func (s *Store) connect(config *rest.Config) error {
	s.host = config.Host
	rest.AddUserAgent(config, "caracald")
	// Fairness among clients is the server's business (API priority and fairness); the client's own limit of five
	// requests a second would only slow down a node that starts.
	config.QPS = -1
	if config.WarningHandler == nil {
		config.WarningHandler = rest.NoWarnings{}
	}
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return impatience{next} })
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return err
	}
	if s.objects, err = dynamic.NewForConfigAndClient(config, client); err != nil {
		return err
	}
	if s.metas, err = metadata.NewForConfigAndClient(config, client); err != nil {
		return err
	}
	d, err := discovery.NewDiscoveryClientForConfigAndClient(config, client)
	if err != nil {
		return err
	}
	s.plain = d.RESTClient()
	s.single, err = singly(config)
	return err
}

// The kernel asks a peer that says nothing whether it is there, as HTTP/2 does with pings: it is given up after idle + count × interval, 45 s.
const (
	aliveIdle     = 15 * time.Second
	aliveInterval = 10 * time.Second
	aliveCount    = 3
	dialTimeout   = 30 * time.Second // as in client-go
)

// singly makes a client that speaks HTTP/1.1. HTTP/2 answers every few kilobytes with two frames that open its windows, and hands everything
// from one goroutine to another: of a watch on which something comes all the time that is a good part of the cost, on both sides.
func singly(config *rest.Config) (rest.Interface, error) {
	config = rest.CopyConfig(config)
	config.NextProtos = []string{"http/1.1"}
	if config.Dial == nil {
		config.Dial = (&net.Dialer{Timeout: dialTimeout, KeepAliveConfig: net.KeepAliveConfig{
			Enable: true, Idle: aliveIdle, Interval: aliveInterval, Count: aliveCount}}).DialContext
	}
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, err
	}
	d, err := discovery.NewDiscoveryClientForConfigAndClient(config, client)
	if err != nil {
		return nil, err
	}
	return d.RESTClient(), nil
}

// errNoCalico: the cluster has no definitions of Calico's resources.
var errNoCalico = errors.New("the cluster has no Calico resources: install Calico, or the definitions in deploy/crds")

// form returns the API group the cluster uses, by Calico's rule: projectcalico.org/v3 only where it is served and
// crd.projectcalico.org/v1 is not. Beside the classic form, v3 is Calico's own API server in front of the same objects.
func (s *Store) form(ctx context.Context) (form, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.found != nil {
		return *s.found, nil
	}
	hasNative, err := s.serves(ctx, native)
	if err != nil {
		return form{}, err
	}
	// The classic form is asked for last: both come at one time while the server starts, and a wrong answer
	// here could only be that it is not there yet.
	hasClassic, err := s.serves(ctx, classic)
	if err != nil {
		return form{}, err
	}
	switch {
	case hasClassic:
		s.found = &classic
	case hasNative:
		s.found = &native
	default:
		return form{}, errNoCalico
	}
	s.opts.Log.Info("found Calico's resources", logGroup, s.found.String())
	return *s.found, nil
}

// serves reports whether the API server, once it is ready, serves a form.
func (s *Store) serves(ctx context.Context, f form) (bool, error) {
	// While the server starts, groups appear one after the other.
	err := s.plain.Get().AbsPath("/readyz").Do(ctx).Error()
	if err != nil && !apierrors.IsForbidden(err) { // a cluster may hide it from everybody
		return false, fmt.Errorf("the API server is not ready: %w", err)
	}
	text, err := s.plain.Get().AbsPath("/apis/" + f.group).Do(ctx).Raw()
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("find the API group %s: %w", f.group, err)
	}
	return strings.Contains(string(text), `"`+f.String()+`"`), nil
}

// Keys of log records.
const (
	logGroup = "group"
	logHost  = "host"
	logKind  = "kind"
	logErr   = "error"
	logWhy   = "why"
)

// isTooNew reports whether the server says that a resourceVersion lies in its future.
func isTooNew(err error) bool {
	return apierrors.HasStatusCause(err, metav1.CauseTypeResourceVersionTooLarge)
}
