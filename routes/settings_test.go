package routes

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/caracal-net/caracal/internal/kernel"
	"github.com/caracal-net/caracal/internal/kernel/kerneltest"
)

func (r *rig) sysctl(name kernel.Sysctl) int {
	r.t.Helper()
	v, err := r.far.ReadSysctl(r.t.Context(), name)
	r.must(err)
	return v
}

func (r *rig) wantSysctl(name kernel.Sysctl, want int) {
	r.t.Helper()
	r.eventually(func() error {
		if have := r.sysctl(name); have != want {
			return fmt.Errorf("%s is %d, want %d; %+v", name, have, want, r.p.Settings())
		}
		return nil
	})
}

// settingsChanged: forwarding is set and kept, and the reverse path filter of our device is never strict; eth0 is left as it is.
func settingsChanged(r *rig) {
	for _, name := range []kernel.Sysctl{kernel.SysctlIPForward, kernel.SysctlIPv6Forward} {
		r.must(r.far.WriteSysctl(r.t.Context(), name, 0))
	}
	r.ready(whole())
	if r.sysctl(kernel.SysctlIPv6Forward) != 0 {
		r.t.Fatal("IPv6 is forwarded though nobody wants anything of IPv6")
	}
	r.apply(vxlanSet(2))
	r.wantSysctl(kernel.SysctlIPForward, 1)
	r.wantTunnel(vxlanSet(2))
	if r.sysctl(kernel.SysctlIPv6Forward) != 0 {
		r.t.Fatal("IPv6 is forwarded though nobody wants anything of IPv6")
	}
	r.apply(Change{Routes: []Route{via("2001:db8:1::/64", "2001:db8::7")}})
	r.wantSysctl(kernel.SysctlIPv6Forward, 1)
	for _, c := range []struct {
		name       kernel.Sysctl
		set, after int
	}{
		{kernel.SysctlIPForward, 0, 1},
		{kernel.SysctlIPv6Forward, 0, 1},
		{kernel.DeviceForward(DeviceVXLAN, false), 0, 1},
		{kernel.DeviceRPFilter(DeviceVXLAN), kernel.RPFilterStrict, kernel.RPFilterLoose},
		{kernel.DeviceRPFilter(DeviceVXLAN), kernel.RPFilterOff, kernel.RPFilterOff},
		{kernel.DeviceForward("eth0", true), 0, 0},
		{kernel.DeviceRPFilter("eth0"), kernel.RPFilterStrict, kernel.RPFilterStrict},
	} {
		r.must(r.far.WriteSysctl(r.t.Context(), c.name, c.set))
		r.wait()
		r.wantSysctl(c.name, c.after)
	}
	r.eventually(func() error {
		reported := map[string]Outcome{}
		for _, s := range r.p.Settings() {
			reported[s.Name] = s.Outcome
		}
		for name, want := range map[kernel.Sysctl]Outcome{kernel.DeviceForward("eth0", true): Foreign, kernel.DeviceRPFilter("eth0"): Foreign, kernel.SysctlIPForward: Installed} {
			if reported[string(name)] != want {
				return fmt.Errorf("%s is reported %q, want %q: %+v", name, reported[string(name)], want, r.p.Settings())
			}
		}
		return nil
	})
	r.must(r.far.WriteSysctl(r.t.Context(), kernel.SysctlRPFilter, kernel.RPFilterStrict)) // counts for every interface
	r.wantSysctl(kernel.DeviceRPFilter(DeviceVXLAN), kernel.RPFilterLoose)
}

// settingsWished: what an owner wishes for of an interface is set when that comes, kept while it is there, whoever else writes to it, and left alone
// when nobody wishes for it any more.
func settingsWished(r *rig) {
	const device = "cali1"
	arp, localnet, filter := kernel.DeviceSetting(device, false, kernel.ProxyARP), kernel.DeviceSetting(device, false, kernel.RouteLocalnet), kernel.DeviceRPFilter(device)
	all := []Setting{{filter, kernel.RPFilterStrict}, {localnet, 1}, {kernel.ProxyDelay(device), 0}, {arp, 1},
		{kernel.DeviceForward(device, false), 1}, {kernel.DeviceSetting(device, true, kernel.ProxyNDP), 1}}
	set := func() {
		r.t.Helper()
		for _, s := range all {
			r.wantSysctl(s.Name, s.Value)
		}
		r.eventually(func() error {
			for _, s := range r.p.Settings() {
				if kernel.Sysctl(s.Name).Device() == device && s.Outcome != Installed {
					return fmt.Errorf("%+v", s)
				}
			}
			return nil
		})
	}
	r.ready(whole())
	r.apply(Change{Settings: all, Routes: []Route{{Dst: pfx("10.9.9.9/32"), Type: kernel.Unicast, Scope: kernel.ScopeLink, NextHops: []NextHop{{Device: device}}}}})
	r.wait()
	r.must(r.far.WriteSysctl(r.t.Context(), kernel.DeviceForward("default", false), 0))
	link := r.wire(device)
	set()
	r.wire("other") // something else that has all settings looked at
	r.wait()
	set()
	for _, s := range []struct {
		name  kernel.Sysctl
		value int
	}{{arp, 0}, {filter, kernel.RPFilterLoose}, {kernel.DeviceForward(device, false), 0}} { // the kernel tells
		r.must(r.far.WriteSysctl(r.t.Context(), s.name, s.value))
		r.wait()
		set()
	}
	r.must(r.far.WriteSysctl(r.t.Context(), localnet, 0)) // it does not
	reread := func() {
		r.t.Helper()
		for range lies { // a fault may refuse it
			if r.p.Resync(r.t.Context()) == nil {
				break
			}
		}
		r.wait()
	}
	reread()
	set()
	r.must(r.far.DeleteLink(r.t.Context(), link))
	r.eventually(func() error {
		for _, s := range r.p.Settings() {
			if kernel.Sysctl(s.Name).Device() == device {
				return fmt.Errorf("the interface is gone, and there is %+v", s)
			}
		}
		return nil
	})
	r.wire(device)
	set()
	r.apply(Change{Settings: all[:1]})
	r.wait()
	r.must(r.far.WriteSysctl(r.t.Context(), arp, 0))
	reread()
	r.wantSysctl(filter, kernel.RPFilterStrict)
	if r.sysctl(arp) != 0 {
		r.t.Error("a setting that nobody wishes for any more is still kept")
	}
}

// A setting that cannot be written is reported with the error, and written when it can be.
func TestSettingRefused(t *testing.T) {
	bubble(t, func(r *rig) {
		fault := r.fake.Inject(faultOfSysctls(3))
		r.ready(whole(via("10.1.0.0/26", "192.0.2.7")))
		r.wait()
		all := r.p.Settings()
		if fault.Fired() == 0 || len(all) == 0 || all[len(all)-1].Outcome != Failed || all[len(all)-1].Detail == "" {
			r.t.Errorf("fired %d times: %+v", fault.Fired(), all)
		}
		r.patient = true
		r.wantSysctl(kernel.SysctlIPForward, 1)
	})
}

func faultOfSysctls(times int) kerneltest.Fault {
	return kerneltest.Fault{Kind: kerneltest.WriteSysctlFails, Times: times, Err: kernel.FromErrno(syscall.EROFS)}
}

// The whole story with every fault of settings.
func TestSettingsWithFaults(t *testing.T) {
	for _, f := range kerneltest.SysctlFaults() {
		for _, f.Times = range []int{1, 3} {
			t.Run(f.String(), func(t *testing.T) {
				bubble(t, func(r *rig) {
					r.patient = true
					r.fake.Inject(f)
					settingsChanged(r)
				})
				bubble(t, func(r *rig) {
					r.patient = true
					r.fake.Inject(f)
					settingsWished(r)
				})
			})
		}
	}
}

// A program that sets a setting back at once is answered ever more slowly; when it stops, all is repaired.
func TestSettingFighter(t *testing.T) {
	bubble(t, func(r *rig) {
		r.ready(whole(via("10.1.0.0/26", "192.0.2.7")))
		r.wait()
		fights, told := 0, false
		for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
			if r.sysctl(kernel.SysctlIPForward) == 1 {
				fights++
				r.must(r.far.WriteSysctl(r.t.Context(), kernel.SysctlIPForward, 0))
			}
			for _, s := range r.p.Settings() {
				told = told || s.Name == string(kernel.SysctlIPForward) && s.Outcome == Waiting && s.Detail != ""
			}
		}
		if writes := r.fake.Calls("WriteSysctl"); fights < 8 || fights > 40 || writes > 80 || !told {
			r.t.Errorf("%d fights in 20 s, %d writes by both, told in the status: %v", fights, writes, told)
		}
		time.Sleep(2 * fightMost)
		r.wantSysctl(kernel.SysctlIPForward, 1)
	})
}
