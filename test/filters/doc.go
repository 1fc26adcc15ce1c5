// Package filters compares our plain evaluation of BGPFilters, and of what is announced by default, with that of BIRD 2 and of BIRD 1.6, from which Calico's
// has branched off, configured the way Calico configures it. Random filters are written as resources; a node's BGP is planned from them, and a
// configuration of BIRD is rendered from them. BIRD learns random routes, and is asked what each filter makes of them, and which of them it
// would put into the kernel.
package filters
