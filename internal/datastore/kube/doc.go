// Package kube is the datastore in the Kubernetes API (--datastore=kubernetes).
//
// # What flows in and out
//
// Calico keeps its resources as custom resources in one of two API groups, and its nodes as annotations of Kubernetes'
// Nodes. A Store reads and writes single objects there with compare-and-swap; Watch follows all of them and delivers
// States, through the same datastore.Intake as the file store. Which group a cluster has is found out by Calico's rule:
// CALICO_API_GROUP, else projectcalico.org/v3 only where crd.projectcalico.org/v1 is not served. In the classic group, the
// metadata that Calico shows is JSON in the annotation projectcalico.org/metadata of an object.
//
// The API server is reached by KUBECONFIG, else as the service account of the pod.
//
// # Writing
//
// An Update reads the object, compares its resourceVersion and UID with those of the caller's copy, changes in it what the
// caller's copy says, and leaves all else: fields of other releases of Calico, metadata of others. If somebody else writes
// in between, the API server answers with a conflict. A Delete has the UID and the resourceVersion as preconditions.
// PatchNode patches annotations, nothing else, and sends them to nodes/status, as Calico does, because that is all that
// Calico's role and ours allow. (Calico itself writes the whole status: two of its writers can undo each other's work.)
// A status of 404 is "not found" only if the server says so of the object: a missing definition gives 404 as well.
//
// ReportProblem makes an Event on an object (events.k8s.io/v1), named after the problem so that a cluster's daemons make one.
//
// # Watching
//
// Each kind has a feed: a Reflector of client-go, with streaming lists where the server offers them (Kubernetes 1.34 and
// later; else lists in pages), bookmarks, and a new list when the version to go on from is too old (410). Objects become
// words of package cluster where they come in, and the objects themselves are garbage. Custom resources come as lines of JSON,
// which are read as they come. Of Nodes only the metadata is asked for (PartialObjectMetadata, in protobuf), so a heartbeat costs a fifth of the bytes.
//
// Nodes report every few minutes or more often, and blocks are rewritten with every pod of the cluster. Of such an event a stream reads in one pass
// as much as tells whether anything that is routed on has changed: a hash of it is compared with that of the version that was
// passed on last (skim.go, skimnode.go, sieve.go). If nothing has, the event ends there, before it is decoded and in the goroutine that has
// read it; of its object nothing but the name and the new version goes on, with others, once a second. A list makes the sieve forget what it
// knows. These two watches have a connection of their own each, which speaks HTTP/1.1: no frames, no windows, no second goroutine. The
// kernel's keepalive finds a dead peer there in 45 s, as pings of HTTP/2 do elsewhere, and a watch that the server does not end in time is ended here.
//
// What else changes nothing that is routed on
// ends in the Intake and wakes nobody. A Secret has a feed of its own while a session asks for its password; that it
// cannot be read is a problem in the State, not an error of the datastore. Our own Node is watched whole besides, for whether it is
// cordoned (WatchCordon), which is no part of the State.
//
// Services and EndpointSlices of all namespaces are followed only while BGPConfiguration has addresses of Services announced, and Pods
// only of the node that Options.PodsOf names, by a field selector. Of a slice the nodes with ready endpoints are kept, of a Service its
// addresses and traffic policies, of a Pod its addresses: ports, probes, images and conditions change much more often.
//
// InSync is true from when every kind (but Secrets) that is followed was listed once. Until then, a kind whose definition is missing, or that
// we may not read (403, also what a server that starts says to everybody for a moment), is told in Err and asked for
// again. The last good State stays through every outage.
//
// Requests that fail are repeated by the feed, from 0.2 s to 15 s, with jitter; the first feed that gets through wakes the
// others. The header Retry-After is not obeyed, because it would bring all nodes back in one second.
//
// While etcd is gone but the API server is not, watches stay open and Err is nil; only writes fail.
//
// # Suspect lists
//
// A list that follows a list is compared with what was known. Update.Suspect is set when
//
//   - its resourceVersion is lower than the newest that was seen of the kind: etcd was restored from a backup, or is a new one;
//   - an object in it, of the same UID, has a lower resourceVersion than it had: the same, where the restore raised the
//     revision as etcd's documentation advises;
//   - none of at least two known objects is in it, by UID: somebody else's etcd, or one that was filled anew.
//
// What is in a suspect list is delivered as it is; whoever deletes routes decides what a doubt means to him. The doubt ends
// when the server's resourceVersion has passed the newest one that was seen, so that as much was written since as was lost,
// but not before Options.Doubt. With a new etcd it may last until the process is started again: that is the operator's way
// to say that it is right.
//
// A watch that would go on at a version which lies in the server's future is accepted by an API server, and silent until
// that version is reached. So before a watch goes on, the server is asked for its newest version (a list of one object).
// Not recognised is an etcd that is exchanged below a running API server; Kubernetes asks to restart API servers then.
//
// # Goroutines
//
// Watch runs in its caller's goroutine, which alone owns the Intake and calls the sink. It starts one goroutine for each
// feed, which hands notes to it over a channel, and waits for them when its context ends; client-go starts more below
// them, and each watch has a goroutine that reads it and owns the feed's sieve for as long. Stores may be used from any goroutine; none are started for them.
//
// # Deviations from Calico
//
//   - Objects keep the UID of the native object also in the classic group; Calico shows its bits reversed.
//   - A bad annotation counts as none, as in Calico, but a node that was good keeps its last good values.
//   - Nodes can be created and updated, by who has the right to: tests and the lab. Calico refuses it.
package kube
