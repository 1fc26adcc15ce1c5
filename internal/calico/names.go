package calico

import (
	"crypto/sha256"
	"crypto/sha3"
	"encoding/base32"
	"encoding/hex"
	"net/netip"
	"strings"
)

// Labels that Calico's readers select block affinities by (API: ipam labels; libcalico-go: ipam_affinity_v1.go).
// An affinity written without them cannot be listed by Calico.
const (
	LabelHostnameHash = "projectcalico.org/hostname-hash"
	LabelAffinityType = "projectcalico.org/affinity-type"
	LabelIPVersion    = "projectcalico.org/ip-version"
)

// Kubernetes' limit on the length of a name, and the number of hash digits in a name shortened to fit it
// (libcalico-go: ipam_affinity_v1.go, parseKey).
const (
	maxName    = 252
	hashDigits = 11
)

// BlockName returns the name of the IPAMBlock of a CIDR: "10-244-1-0-26", "fd00-10-244---122".
func BlockName(cidr netip.Prefix) string {
	return strings.NewReplacer(".", "-", ":", "-", "/", "-").Replace(cidr.String())
}

// AffinityName returns the name of a host's BlockAffinity, shortened with a hash if Kubernetes could not hold it.
func AffinityName(host string, cidr netip.Prefix) string {
	block := BlockName(cidr)
	name := host + "-" + block
	if len(name) <= maxName {
		return name
	}
	sum := sha256.Sum256([]byte(host + "+" + block))
	keep := maxName - len(block) - hashDigits - 2 // two dashes
	return host[:keep] + "-" + block + "-" + hex.EncodeToString(sum[:])[:hashDigits]
}

// HostnameHash returns the value of the label hostname-hash: a label value has at most 63 characters, a host name may
// have more.
func HostnameHash(host string) string {
	sum := sha3.Sum256([]byte(host))
	return base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:])
}
