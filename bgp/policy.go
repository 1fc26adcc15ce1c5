package bgp

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/routes"
)

// rulesKey is what the rules of a session depend on besides the state: sessions of a kind share them.
type rulesKey struct {
	resource string
	family   cluster.Family
	kind     cluster.PeerType
	localAS  uint32
	export   bool
}

// filters gives a session the rules of its BGPFilters.
func (m *maker) filters(p *Peer, b *cluster.BGPPeer) {
	if len(b.Filters) == 0 {
		return
	}
	k := rulesKey{resource: b.Name, family: cluster.FamilyOf(p.Addr), kind: cluster.IBGP, localAS: cmp.Or(p.LocalASN, m.asnOf(m.self))}
	if k.localAS != p.ASN {
		k.kind = cluster.EBGP
	}
	p.Import = m.rulesOf(k, b)
	k.export = true
	p.Export = m.rulesOf(k, b)
}

// rulesOf returns the rules of one direction. BIRD 1.6 puts our AS before the path before it asks export filters about what eBGP peers are sent; rules here are
// asked about the path as it was learned, so an asPathPrefix begins with our AS there, or never holds, and loses it.
func (m *maker) rulesOf(k rulesKey, b *cluster.BGPPeer) []Rule {
	if rules, ok := m.rules[k]; ok {
		return rules
	}
	list := map[bool]string{true: "exportV", false: "importV"}[k.export] + fmt.Sprint(uint8(k.family))
	var rules []Rule
	for _, name := range b.Filters {
		f := m.st.BGPFilter(name)
		if f == nil {
			m.problemOnce("BGPPeer "+b.Name, "spec.filters",
				fmt.Sprintf("BGPFilter %s does not exist or cannot be used, so the sessions go on without it: create or mend it, or leave its name out", name))
			continue
		}
		for i, r := range f.Rules(k.family, k.export) {
			if r.PeerType != "" && r.PeerType != k.kind {
				continue
			}
			if k.export && k.kind == cluster.EBGP && len(r.ASPathPrefix) > 0 {
				if r.ASPathPrefix[0] != k.localAS {
					m.problemOnce("BGPFilter "+f.Name, fmt.Sprintf("spec.%s[%d].asPathPrefix", list, i),
						fmt.Sprintf("holds for nothing that is sent to eBGP peers: their paths begin with our own AS, so write %d before the others, or peerType: iBGP", k.localAS))
					continue
				}
				r.ASPathPrefix = r.ASPathPrefix[1:]
			}
			r.PeerType = ""
			r.RemotePeers = r.RemotePeers && k.export // what is received comes from a remote peer
			at := fmt.Sprintf("spec.%s[%d]", list, i)
			if k.export && k.kind == cluster.EBGP && !ExactPrepend(r.Prepend, k.localAS) {
				m.problemOnce("BGPFilter "+f.Name, at+".operations",
					fmt.Sprintf("towards eBGP peers the AS path is sent with our own AS %d once more behind the prepended ones, because it is added before filters run: end the list with %d to have the path exactly as written", k.localAS, k.localAS))
			}
			rules = append(rules, Rule{FilterRule: r, Source: "BGPFilter " + f.Name + " " + at})
		}
	}
	if m.rules == nil {
		m.rules = make(map[rulesKey][]Rule)
	}
	m.rules[k] = rules
	return rules
}

// ExactPrepend reports whether AS numbers can be put exactly where they belong towards an eBGP peer: behind our own AS, which the
// engine has put there already. It can put numbers only before that, so the last of them must be our own.
func ExactPrepend(list []uint32, localAS uint32) bool {
	return len(list) == 0 || list[len(list)-1] == localAS
}

// secret gives a session its password, or holds it down if there should be one and is not: without it the session would
// either fail in a way that says nothing, or come up unprotected.
func (m *maker) secret(p *Peer, ref cluster.SecretKey, object, field string) {
	if !ref.Wanted {
		return
	}
	s := m.st.Secret(ref.Name)
	switch {
	case ref.Name == "" || ref.Key == "":
		p.Held = "a password is wanted, but " + field + " of " + object + " names no secret: write secretKeyRef with name and key"
	case s == nil:
		p.Held = fmt.Sprintf("Secret %s, which %s of %s names, does not exist or cannot be read: create it in the namespace of the daemon, and let its role read it", ref.Name, field, object)
	case s.Data[ref.Key] == "":
		p.Held = fmt.Sprintf("Secret %s has no value under key %s, which %s of %s names: add it", ref.Name, ref.Key, field, object)
	case len(s.Data[ref.Key]) > maxPassword:
		p.Held = fmt.Sprintf("the password in key %s of Secret %s is longer than %d bytes, the most TCP MD5 takes: shorten it on both sides", ref.Key, ref.Name, maxPassword)
	default:
		p.Password = Password(s.Data[ref.Key])
	}
	if p.Held != "" {
		m.problemOnce(object, field, "sessions are held down: "+p.Held)
	}
}

// maxPassword is TCP_MD5SIG_MAXKEYLEN of Linux.
const maxPassword = 80

// asksForInterfaces reports whether any rule has a condition on the interface.
func asksForInterfaces(peers []Peer) bool {
	asks := func(r Rule) bool { return r.Interface != "" }
	return slices.ContainsFunc(peers, func(p Peer) bool {
		return slices.ContainsFunc(p.Import, asks) || slices.ContainsFunc(p.Export, asks)
	})
}

// ways returns the host's own routes without those to workloads, which are no next hops, sorted.
func ways(h *routes.Host) []Way {
	var out []Way
	h.Routes(func(r *routes.HostRoute) bool {
		device := deviceThrough(r)
		if !isWorkload(h, r.Dst) {
			out = append(out, Way{Prefix: r.Dst, Device: device})
		}
		return true
	})
	slices.SortFunc(out, func(a, b Way) int { return a.Prefix.Compare(b.Prefix) })
	return out
}

func isWorkload(h *routes.Host, p netip.Prefix) bool {
	_, found := slices.BinarySearchFunc(h.Workloads, p, netip.Prefix.Compare)
	return found
}

func deviceThrough(r *routes.HostRoute) string {
	if r.Type != 0 && r.Type != routes.Unicast || len(r.Hops) == 0 {
		return ""
	}
	return r.Hops[0].Device
}
