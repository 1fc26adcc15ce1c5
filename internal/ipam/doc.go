// Package ipam claims blocks of addresses for this node and assigns addresses from them, to workloads and to the
// node's tunnel devices, in Calico's own data model, so that Calico's IPAM and this one can work on one datastore
// at the same time.
//
// # What flows in and out
//
// Everything goes through a datastore.Store: IPPool, Node and IPAMConfiguration are read, IPAMBlock, BlockAffinity and
// IPAMHandle are written with compare-and-swap, and three fields of our own Node are patched. Nothing is kept in memory
// between two calls but whether the last pass over the tunnel addresses went well, and no goroutine is started: a Client
// is its store and its node's name. Block logic (block.go) is pure and works on one block in memory. Check is pure
// too: it says what does not agree in a set of objects.
//
// # What is written in which order, and what a death at each step leaves
//
// Every write is a compare-and-swap on one object; the datastore has no transaction over two. So each operation is a
// row of writes chosen so that after every prefix of it the wrong that is left is harmless and can be seen by the one
// who mends it. An address is never assigned twice, and is never held without a handle that leads to it.
//
// Claiming a block:
//
//	1  create BlockAffinity, pending     left: a claim without a block. It owns nothing, nobody routes by it.
//	2  create IPAMBlock with our owner   left: our block, its claim pending. Nobody else can take it; BGP does not
//	   (this is the lock: the name         announce it yet.
//	   exists once)
//	3  BlockAffinity -> confirmed        done
//
// Releasing a block:
//
//	1  BlockAffinity -> pendingDeletion  left: our block, as it was, with a claim that says otherwise.
//	2  delete IPAMBlock if empty, else   left: a claim on a block that is gone or nobody's.
//	   clear its owner
//	3  delete BlockAffinity              done
//
// Both leftovers are mended by whoever uses the claim next (any AutoAssign of the node finishes the claim) and by
// Repair, which the daemon runs at start: a claim with our block is confirmed, one without a block is deleted, one on
// another's block is stale and deleted. Repair reads only what the node's claims and tunnel handles lead to. No death
// leaves anything else; a block of ours whose claim somebody else deleted is claimed again by the next search
// for space, which comes by it. A claimer that meets a release rewrites the block, unchanged but for its
// version, before it confirms: the releaser, who has read the block before, then fails to delete it and looks again.
// A releaser that finds the block in use again puts the claim back.
//
// Assigning an address:
//
//	1  IPAMHandle + 1                    left: a handle that counts an address too many.
//	2  IPAMBlock: address to the handle  done
//
// Releasing an address:
//
//	1  IPAMBlock: address free again     left: a handle that counts an address too many.
//	2  IPAMHandle - 1, deleted at 0      done
//
// So a handle may count too much and never too little: what it counts leads to every address, and any release by the
// handle sets it right. If the answer to a write of a block is lost, the block is read back; where that is not possible
// either, the count stays. Who mends: ReleaseByHandle for workloads (the container runtime repeats its request until it
// succeeds), Repair for the node's tunnel handles. A handle must have one user at a time, as Calico's have.
//
// Deleting an object: mark it deleted (compare-and-swap), then delete it with its UID and version. The mark is what
// counts; a reader that meets a marked object finishes the deletion and reports it as not found.
//
// Tunnel addresses: first what is wrong is released, then what is missing is assigned, then the Node is patched once.
//
//	release by handle                    left: a Node that names an address it no longer has. The next pass sees that
//	                                       the address is nobody's, or another's, and assigns a new one.
//	assign                               left: an address under our handle that the Node does not name. The next pass
//	                                       releases everything under the handle that the Node does not name.
//	patch Node                           done
//
// A kind of tunnel that cannot be served loses its address in the Node as well, the other kinds are served, and the
// error names pool and remedy.
//
// # Many writers
//
// A conflict is retried a hundred times with short, growing, random pauses. A node starts its search for a free block at
// a place that depends on its name, with Calico's own generator, so that nodes do not all want the same block and
// two processes of one node do. A search goes by what is known of the blocks by whoever watches them
// (Client.Known): each one that seems not to exist is looked up before it is claimed, so it may be old. Where that finds nothing, or is wrong too often, the blocks
// are listed, once for a search; blocks lost to others on the way are remembered.
//
// # Standards and deviations
//
// The model is Calico's at v3.34 (libcalico-go/lib/ipam, node/pkg/allocateip; facts in the comments by field). On purpose
// other than there:
//   - One failing pool or kind of tunnel does not take the others with it, and the Node never names an address
//     that IPAM has not given it.
//   - Pools that take no addresses are left out of the tunnel candidates instead of failing the pass.
//   - The tunnel address that a pool with a problem (a selector that cannot be read, two modes) may have given stays until the pool is mended.
//   - AssignIP looks again when it loses a race for a block.
//   - Release by a handle corrects the handle's counts; Calico leaves one that counts too much to its garbage collector.
//   - A new block never overlaps an existing one of another size, nor a more specific pool.
//   - A released address is freed in the same write where no cooldown is set.
//   - A release of addresses gives up an empty block whose pool no longer selects its node only if the node is ours.
//   - A request does not name a namespace: a pool with a namespaceSelector is used only where it is asked for.
//   - IPReservations, WireGuard and the load balancer's virtual owners are not implemented; blocks of virtual owners
//     are left alone.
package ipam
