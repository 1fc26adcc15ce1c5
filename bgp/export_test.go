package bgp

import "net/netip"

// Shared returns how many entries r keeps of what routes share.
func Shared(r *Routes) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.shared) + len(r.ways)
}

// Refused returns why r, which has planned, makes no route to a prefix over a path.
func Refused(r *Routes, p netip.Prefix, path *Path) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.way(p, r.st.PoolFor(p), path).refused
}
