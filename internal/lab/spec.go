package lab

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/caracal-net/caracal/internal/cluster"
)

// Mode says which pools the cluster has.
type Mode string

// The modes. Mixed has a VXLAN and an IPIP pool, both CrossSubnet, and gives each node workloads of both.
const (
	Mixed            Mode = "mixed"
	VXLAN            Mode = "vxlan"
	VXLANCrossSubnet Mode = "vxlan-cross-subnet"
	IPIP             Mode = "ipip"
	IPIPCrossSubnet  Mode = "ipip-cross-subnet"
	NoEncapsulation  Mode = "none"
)

// Modes lists every mode, the default first.
func Modes() []Mode {
	return []Mode{Mixed, VXLAN, VXLANCrossSubnet, IPIP, IPIPCrossSubnet, NoEncapsulation}
}

// NeedsIPIP reports whether the kernel must know IPIP devices.
func (m Mode) NeedsIPIP() bool { return m == Mixed || m == IPIP || m == IPIPCrossSubnet }

// Families says which address families workloads have.
type Families string

// The choices of families.
const (
	Only4     Families = "4"
	Only6     Families = "6"
	DualStack Families = "dual"
)

// Has reports whether a family is among them.
func (f Families) Has(fam cluster.Family) bool {
	return f == DualStack || f == Only4 && fam == cluster.IPv4 || f == Only6 && fam == cluster.IPv6
}

// The limits of a cluster on one machine.
const (
	maxNodes     = 100 // addresses .11 and up in two /24
	maxWorkloads = 20
	maxName      = 20
)

// Spec is what a user asks for. The zero value of each field means its default.
type Spec struct {
	Name      string          // of the cluster, part of every namespace's name; default "lab"
	Nodes     int             // default 3
	Workloads int             // a node; default 2
	Mode      Mode            // default Mixed
	Family    Families        // default Only4
	Backend   cluster.Backend // default by Mode: vxlan for the VXLAN modes, else bird
	// Kubernetes says that the datastore is an API server; Up sets it by its Options.
	Kubernetes bool
	// WorkloadRoutes has the daemons keep the routes to workloads and the settings of their interfaces (workload); the lab then makes neither.
	WorkloadRoutes bool
	// Bare has the datastore begin with the names of nodes alone: what else there is, the daemons' start makes, as in a new cluster.
	Bare bool
}

var clusterName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?$`)

// Complete returns the Spec with defaults filled in, or an error that names the field and the remedy.
func (s Spec) Complete() (Spec, error) {
	s.fill()
	switch {
	case !clusterName.MatchString(s.Name) || len(s.Name) > maxName:
		return s, fmt.Errorf("cluster name %q: use at most %d of a-z, 0-9 and -, beginning and ending with a letter or digit", s.Name, maxName)
	case s.Nodes < 1 || s.Nodes > maxNodes:
		return s, fmt.Errorf("%d nodes: one machine holds 1 to %d", s.Nodes, maxNodes)
	case s.Workloads < 1 || s.Workloads > maxWorkloads:
		return s, fmt.Errorf("%d workloads a node: use 1 to %d", s.Workloads, maxWorkloads)
	case s.Family != Only4 && s.Family != Only6 && s.Family != DualStack:
		return s, fmt.Errorf("family %q: use 4, 6 or dual", s.Family)
	case s.Backend != cluster.BackendBird && s.Backend != cluster.BackendVXLAN && s.Backend != cluster.BackendNone:
		return s, fmt.Errorf("backend %q: use bird, vxlan or none", s.Backend)
	}
	known := false
	for _, m := range Modes() {
		known = known || m == s.Mode
	}
	if !known {
		return s, fmt.Errorf("mode %q: use one of %v", s.Mode, Modes())
	}
	if s.Mode.NeedsIPIP() && s.Family == Only6 {
		return s, fmt.Errorf("mode %s with family 6: IPIP carries IPv4 only; use family 4 or dual (where the IPv6 pool is VXLAN), or mode vxlan or none", s.Mode)
	}
	return s, nil
}

func (s *Spec) fill() {
	if s.Name == "" {
		s.Name = "lab"
	}
	if s.Nodes == 0 {
		s.Nodes = 3
	}
	if s.Workloads == 0 {
		s.Workloads = 2
	}
	if s.Mode == "" {
		s.Mode = Mixed
	}
	if s.Family == "" {
		s.Family = Only4
	}
	if s.Backend == "" {
		s.Backend = cluster.BackendBird
		if strings.HasPrefix(string(s.Mode), "vxlan") {
			s.Backend = cluster.BackendVXLAN
		}
	}
}
