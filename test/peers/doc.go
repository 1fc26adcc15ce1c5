// Package peers runs real BGP routers as child processes inside a namespace: BIRD 2, BIRD 1.6, FRR, GoBGP and OpenBGPD as
// Debian packs them. Tests and benchmarks describe a router once, in a Config, and get it from any of these.
//
//	Config -> configuration files in a directory of the caller's -> processes -> control socket -> Session, Path
//
// Start writes the files, starts the processes and returns when they answer on their control socket; whether sessions come up
// is asked with Sessions or WaitEstablished. Stop ends the processes, Kill does so without a word. No
// system service, no file outside the directory, no state between runs.
//
// Each process has a goroutine that waits for it, and a guard: a shell that kills the process group when the test binary
// goes without having stopped it. So no router outlives the process that started it, however that ends.
//
// The programs come from test/install; a test asks need.Tool or Missing before it starts one. BIRD 1.6 cannot be
// installed beside BIRD 2 and is unpacked instead, GoBGP is built from the module that this one embeds.
package peers
