// Package health is the probe behind `caracald health --live` and `--ready`: the question a kubelet has executed in the pod.
//
// A Question goes in, nil or the reason why not comes out. Asked is the daemon's gRPC socket and nothing else, so that the
// probe needs no port on the host's network, and a daemon under backend none or vxlan is asked nothing about BGP.
//
//   - live: the daemon answers its health service within the time. The daemon reads its own state to answer, so one that is
//     stuck does not.
//   - ready: it is serving, and under backend bird its sessions are as Calico's bird-ready probe wants them
//     (node/pkg/health/bird): in the first while after its start all of them established and the graceful restart over,
//     so that a rolling update goes on to the next node only when this one is back; later at least one, so that a dead
//     top-of-rack switch makes no node unready. Without any peers it is ready.
//
// Calico measures the time since the start by the time of the file nodename; here the daemon says when it started.
//
// Nothing is kept between two questions and no goroutine is started.
package health
