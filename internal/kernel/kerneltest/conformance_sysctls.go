package kerneltest

import (
	"github.com/caracal-net/caracal/internal/kernel"
)

// sysctlCases are about settings and what the kernel tells of them.
func sysctlCases() []testCase {
	return []testCase{
		{"sysctls are read and written", sysctls},
		{"sysctls that are not there", missingSysctls},
		{"forwarding of all", forwardAll},
		{"events of settings", settingEvents},
		{"a new interface tells its settings", settingsOfNew},
		{"silent sysctls", silentSysctls},
		{"settings of a workload's interface", workloadSettings},
	}
}

func (b *bench) sysctl(name kernel.Sysctl) int {
	b.Helper()
	v, err := b.Kernel.ReadSysctl(b.ctx, name)
	b.must(err)
	return v
}

func (b *bench) setSysctl(name kernel.Sysctl, value int) {
	b.Helper()
	b.must(b.Kernel.WriteSysctl(b.ctx, name, value))
}

func sysctls(b *bench) {
	for _, name := range []kernel.Sysctl{
		kernel.SysctlIPForward, kernel.SysctlIPv6Forward, kernel.SysctlRPFilter, kernel.SysctlNexthopCompat,
		kernel.DeviceRPFilter("w0"), kernel.DeviceForward("w0", false), kernel.DeviceForward("w0", true), kernel.DeviceRPFilter("default"),
	} {
		for _, value := range []int{1, 0, 1} {
			b.setSysctl(name, value)
			if got := b.sysctl(name); got != value {
				b.Errorf("%s is %d, want %d", name, got, value)
			}
		}
	}
	b.setSysctl(kernel.DeviceRPFilter("w0"), kernel.RPFilterLoose)
	if got := b.sysctl(kernel.DeviceRPFilter("w0")); got != kernel.RPFilterLoose {
		b.Errorf("rp_filter of w0 is %d, want %d", got, kernel.RPFilterLoose)
	}
	// The dot in a device's name is no separator.
	index, err := b.Kernel.CreateLink(b.ctx, calicoVXLAN(b, "vxlan.calico", b.self.Addr()))
	b.must(err)
	b.setSysctl(kernel.DeviceRPFilter("vxlan.calico"), 0)
	if got := b.sysctl(kernel.DeviceRPFilter("vxlan.calico")); got != 0 {
		b.Errorf("rp_filter of vxlan.calico is %d, want 0", got)
	}
	b.must(b.Kernel.DeleteLink(b.ctx, index))
	_, err = b.Kernel.ReadSysctl(b.ctx, kernel.DeviceRPFilter("vxlan.calico"))
	b.wantErr(err, kernel.ErrNotThere)
}

func missingSysctls(b *bench) {
	for _, name := range []kernel.Sysctl{kernel.DeviceRPFilter("none"), kernel.DeviceForward("none", true), "net/ipv4/nonesuch"} {
		_, err := b.Kernel.ReadSysctl(b.ctx, name)
		b.wantErr(err, kernel.ErrNotThere)
		b.wantErr(b.Kernel.WriteSysctl(b.ctx, name, 1), kernel.ErrNotThere)
	}
	b.wantErr(b.Kernel.WriteSysctl(b.ctx, kernel.SysctlNexthopCompat, 7), kernel.ErrInvalid)
	for _, name := range []kernel.Sysctl{"", "kernel/hostname", "net/../kernel/hostname", "net//ipv4", "/net/ipv4/ip_forward", kernel.DeviceRPFilter("..")} {
		_, err := b.Kernel.ReadSysctl(b.ctx, name)
		b.wantErr(err, kernel.ErrInvalid)
		b.wantErr(b.Kernel.WriteSysctl(b.ctx, name, 1), kernel.ErrInvalid)
	}
}

// forwardAll: one number stands for all interfaces, and for those to come.
func forwardAll(b *bench) {
	for v6, all := range map[bool]kernel.Sysctl{false: kernel.SysctlIPForward, true: kernel.SysctlIPv6Forward} {
		b.setSysctl(all, 0)
		b.setSysctl(all, 1)
		name := map[bool]string{false: "w4", true: "w6"}[v6]
		later := b.Wire(name)
		want := map[int]bool{kernel.LinkAll: true, kernel.LinkDefault: true, 1: true, b.w0: true, later: true}
		b.must(b.Kernel.ListNetconf(b.ctx, v6, func(c kernel.Netconf) bool {
			if c.Forwarding != 1 || c.V6 != v6 || (c.RPFilter == kernel.Unsaid) != v6 {
				b.Errorf("settings %+v, want forwarding of the family", c)
			}
			delete(want, c.Link)
			return true
		}))
		if len(want) > 0 {
			b.Errorf("settings of %v are not listed", want)
		}
		if b.sysctl(kernel.DeviceForward(name, v6)) != 1 {
			b.Error("a new interface does not forward")
		}
		b.setSysctl(kernel.DeviceForward("w0", v6), 0)
		if b.sysctl(all) != 1 || b.sysctl(kernel.DeviceForward(name, v6)) != 1 {
			b.Error("one interface's forwarding changed others'")
		}
	}
	seen := 0
	b.must(b.Kernel.ListNetconf(b.ctx, false, func(kernel.Netconf) bool { seen++; return seen < 2 }))
	if seen != 2 {
		b.Errorf("a list left early yields %d, want 2", seen)
	}
}

// conf waits for an event of settings.
func conf(c kernel.Netconf) func(kernel.Event) bool {
	return func(e kernel.Event) bool { return e.Kind == kernel.EventSysctl && !e.Deleted && e.Netconf == c }
}

func settingEvents(b *bench) {
	for _, name := range []kernel.Sysctl{kernel.SysctlIPForward, kernel.SysctlIPv6Forward, kernel.SysctlRPFilter, kernel.DeviceRPFilter("w0")} {
		b.setSysctl(name, 0)
	}
	take := b.watch()
	rpFilter := func(link int, v int8) kernel.Netconf {
		return kernel.Netconf{Link: link, Forwarding: kernel.Unsaid, RPFilter: v}
	}
	forward := func(link int, v6 bool, v int8) kernel.Netconf {
		return kernel.Netconf{Link: link, V6: v6, Forwarding: v, RPFilter: kernel.Unsaid}
	}
	b.setSysctl(kernel.SysctlRPFilter, 1)
	take("rp_filter of all", conf(rpFilter(kernel.LinkAll, 1)))
	b.setSysctl(kernel.DeviceRPFilter("w0"), 2)
	take("rp_filter of w0", conf(rpFilter(b.w0, 2)))
	b.setSysctl(kernel.DeviceRPFilter("default"), 1-b.sysctl(kernel.DeviceRPFilter("default"))&1)
	take("rp_filter of default", func(e kernel.Event) bool { return e.Kind == kernel.EventSysctl && e.Netconf.Link == kernel.LinkDefault })
	for _, v6 := range []bool{false, true} {
		all := map[bool]kernel.Sysctl{false: kernel.SysctlIPForward, true: kernel.SysctlIPv6Forward}[v6]
		b.setSysctl(all, 1)
		want := map[kernel.Netconf]bool{forward(kernel.LinkAll, v6, 1): true, forward(b.w0, v6, 1): true}
		take("forwarding of all and of each", func(e kernel.Event) bool {
			if e.Kind == kernel.EventSysctl {
				delete(want, e.Netconf)
			}
			return len(want) == 0
		})
		b.setSysctl(kernel.DeviceForward("w0", v6), 0)
		take("forwarding of w0", conf(forward(b.w0, v6, 0)))
	}
	// What is as it was is not told.
	b.setSysctl(kernel.SysctlRPFilter, 1)
	for _, e := range take("the mark", b.mark(99)) {
		if e.Kind == kernel.EventSysctl && e.Netconf.Link == kernel.LinkAll && e.Netconf.RPFilter != kernel.Unsaid {
			b.Errorf("event %+v of a write that changed nothing", e.Netconf)
		}
	}
}

// settingsOfNew: an interface begins with the settings of "default" and tells them, before its own event, in each family; it
// takes them along.
func settingsOfNew(b *bench) {
	b.setSysctl(kernel.DeviceRPFilter("default"), 2)
	b.setSysctl(kernel.SysctlIPForward, 1)
	take := b.watch()
	w1 := b.Wire("w1")
	link, settings := -1, map[bool]int{}
	for i, e := range take("the link is up", func(e kernel.Event) bool { return e.Kind == kernel.EventLink && e.Link.Index == w1 && e.Link.Up }) {
		switch {
		case e.Kind == kernel.EventLink && e.Link.Index == w1 && link < 0:
			link = i
		case e.Kind == kernel.EventSysctl && e.Netconf.Link == w1 && !e.Deleted && link < 0:
			settings[e.Netconf.V6]++
			if !e.Netconf.V6 && (e.Netconf.RPFilter != 2 || e.Netconf.Forwarding != 1) {
				b.Errorf("settings %+v, want those of default", e.Netconf)
			}
		}
	}
	if settings[false] == 0 || settings[true] == 0 {
		b.Errorf("settings told before the interface: %v times, want both families", settings)
	}
	b.must(b.Kernel.DeleteLink(b.ctx, w1))
	gone := map[bool]bool{}
	take("the settings go", func(e kernel.Event) bool {
		if e.Kind == kernel.EventSysctl && e.Deleted && e.Netconf.Link == w1 {
			gone[e.Netconf.V6] = true
		}
		return len(gone) == 2
	})
}

// silentSysctls: the kernel does not tell of nexthop_compat_mode; whoever relies on it reads it.
func silentSysctls(b *bench) {
	take := b.watch()
	b.compat(0)
	b.compat(1)
	for _, e := range take("the mark", b.mark(99)) {
		if e.Kind == kernel.EventSysctl {
			b.Errorf("event %+v", e.Netconf)
		}
	}
}

// workloadSettings are read and written, go with the interface, and of two of them the kernel tells that they were written.
func workloadSettings(b *bench) {
	w1 := b.Wire("w1")
	take := b.watch()
	for _, c := range []struct {
		name kernel.Sysctl
		v6   bool
		told bool
	}{
		{kernel.DeviceSetting("w1", false, kernel.RouteLocalnet), false, false},
		{kernel.ProxyDelay("w1"), false, false},
		{kernel.DeviceSetting("w1", false, kernel.ProxyARP), false, true},
		{kernel.DeviceSetting("w1", true, kernel.ProxyNDP), true, true},
		{kernel.DeviceSetting("w1", true, kernel.DisableIPv6), true, false},
	} {
		if c.name.Device() != "w1" {
			b.Errorf("%s is of interface %q", c.name, c.name.Device())
		}
		for _, value := range []int{1, 0, 100} { // hundredths of a second, of which each kernel rounds others in its own way
			if b.sysctl(c.name) == value || (c.name == kernel.ProxyDelay("w1")) != (value == 100) && value != 0 {
				continue
			}
			b.setSysctl(c.name, value)
			if got := b.sysctl(c.name); got != value {
				b.Errorf("%s is %d, want %d", c.name, got, value)
			}
			if c.told {
				take(string(c.name), conf(kernel.Netconf{Link: w1, V6: c.v6, Forwarding: kernel.Unsaid, RPFilter: kernel.Unsaid}))
			}
		}
	}
	b.must(b.Kernel.DeleteLink(b.ctx, w1))
	for _, name := range []kernel.Sysctl{kernel.ProxyDelay("w1"), kernel.DeviceSetting("w1", true, kernel.ProxyNDP)} {
		_, err := b.Kernel.ReadSysctl(b.ctx, name)
		b.wantErr(err, kernel.ErrNotThere)
	}
	for _, name := range []kernel.Sysctl{kernel.SysctlIPForward, kernel.SysctlNexthopCompat, "net/core/rmem_max", ""} {
		if d := name.Device(); d != "" {
			b.Errorf("%s is of interface %q", name, d)
		}
	}
}
