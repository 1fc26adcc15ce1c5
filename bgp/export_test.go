package bgp

// Shared returns how many entries r keeps of what routes share.
func Shared(r *Routes) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.shared) + len(r.ways)
}
