package routes

import (
	"errors"
	"fmt"
	"syscall"
	"testing"

	"github.com/caracal-net/caracal/internal/kernel"
	"github.com/caracal-net/caracal/internal/kernel/kerneltest"
)

// lying reports whether a fault makes the kernel say that what was asked for is so already, while it is not. What the
// Programmer then believes only a read can put right.
func lying(f kerneltest.Fault) bool {
	if f.Kind == kerneltest.NexthopOpFails && errors.Is(f.Err, kernel.ErrNotThere) {
		return false // then it is read and made anew
	}
	gone := errors.Is(f.Err, kernel.ErrNotThere) || errors.Is(f.Err, kernel.ErrNoDevice)
	switch f.Kind {
	case kerneltest.RouteOpFails, kerneltest.NexthopOpFails, kerneltest.NeighbourOpFails, kerneltest.DeleteLinkFails, kerneltest.DeleteAddressFails:
		return gone
	case kerneltest.AddAddressFails:
		return errors.Is(f.Err, kernel.ErrExists)
	}
	return false
}

// Every scenario against every fault, at the first, second and fifth occasion, once and three times in a row. Each scenario must
// end as it does without the fault: by itself where the kernel told the truth, else after a resync for each time
// that it lied.
func TestScenariosWithFaults(t *testing.T) {
	fired := map[kerneltest.Kind]int{}
	runs := 0
	for _, s := range scenarios() {
		t.Run(s.name, func(t *testing.T) {
			for _, f := range kerneltest.Faults() {
				for _, f.Nth = range []int{1, 2, 5} {
					for _, f.Times = range []int{1, 3} {
						runs++
						t.Run(f.String(), func(t *testing.T) {
							bubble(t, func(r *rig) {
								r.patient, r.lying = true, lying(f)
								injected := r.fake.Inject(f)
								s.run(r)
								fired[f.Kind] += injected.Fired()
							})
						})
					}
				}
			}
		})
	}
	for _, f := range kerneltest.Faults() {
		if f.Kind != kerneltest.LookupFails && fired[f.Kind] == 0 {
			t.Errorf("%s never fired in %d runs: nothing was shown", f.Kind, runs)
		}
	}
}

// A kernel that refuses for minutes and then comes to its senses.
func TestScenariosWithLongFaults(t *testing.T) {
	for _, s := range scenarios() {
		t.Run(s.name, func(t *testing.T) {
			for _, f := range []kerneltest.Fault{
				{Kind: kerneltest.RouteOpFails, Times: 12, Err: kernel.FromErrno(syscall.ENOMEM)},
				{Kind: kerneltest.RouteBatchBreaks, Times: 12, Err: kernel.FromErrno(syscall.ENOBUFS)},
				{Kind: kerneltest.RouteAcksLost, Times: 12, Err: kernel.FromErrno(syscall.ETIMEDOUT)},
				{Kind: kerneltest.ListRoutesBreaks, Times: 25, Err: kernel.FromErrno(syscall.EINTR)},
				{Kind: kerneltest.EventsLost, Times: 25},
				{Kind: kerneltest.WatchFails, Times: 6},
				{Kind: kerneltest.CreateLinkFails, Times: 6, Err: kernel.FromErrno(syscall.ENOMEM)},
				{Kind: kerneltest.ListNeighboursFails, Times: 6, Err: kernel.FromErrno(syscall.EINTR)},
			} {
				t.Run(fmt.Sprint(f), func(t *testing.T) {
					bubble(t, func(r *rig) {
						r.patient = true
						r.fake.Inject(f)
						s.run(r)
					})
				})
			}
		})
	}
}
