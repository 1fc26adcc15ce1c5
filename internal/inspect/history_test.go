package inspect

import (
	"bytes"
	"net/netip"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	caracalv1 "github.com/caracal-net/caracal/proto/caracal/v1"
	"github.com/caracal-net/caracal/routes"
)

func TestHistory(t *testing.T) {
	w := testWorld()
	at := time.Date(2026, 8, 24, 12, 0, 0, 123456000, time.UTC)
	w.history = func(dst netip.Prefix) []routes.HistoryEvent {
		if dst != netip.MustParsePrefix("10.1.2.0/26") {
			return nil
		}
		return []routes.HistoryEvent{
			{At: at, Owner: routes.OwnerVXLAN, Metric: 1024, What: "asked", Kernel: "10.1.2.0/26 via 192.0.2.7 dev eth0", Cause: "datastore revision 7", CauseID: 3, CauseAt: at},
			{At: at.Add(time.Millisecond), Owner: routes.OwnerVXLAN, Metric: 1024, What: "refused", Detail: "ENETUNREACH: no", Cause: "datastore revision 7", CauseID: 3, CauseAt: at},
			{At: at.Add(time.Second), What: "deleted", CauseID: 1},
		}
	}
	w.historyOf = func(device string) []routes.HistoryEvent {
		if device != "vxlan.calico" {
			return nil
		}
		return []routes.HistoryEvent{{At: at, Owner: routes.OwnerVXLAN, What: "written", Object: "fdb 66:00:00:00:00:02 dst 192.0.2.2 dev vxlan.calico", Cause: "datastore revision 7", CauseID: 3, CauseAt: at}}
	}
	conn, _ := serve(t, w)
	client := caracalv1.NewInspectionClient(conn)
	m, err := client.History(t.Context(), &caracalv1.HistoryRequest{Prefix: "10.1.2.0/26"})
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := (Renderer{}).History(&b, m); err != nil {
		t.Fatal(err)
	}
	golden(t, "render/history.txt", b.Bytes())
	if m, err = client.History(t.Context(), &caracalv1.HistoryRequest{Device: "vxlan.calico"}); err != nil || m.Device != "vxlan.calico" {
		t.Fatalf("of a device: %v, %v", m, err)
	}
	b.Reset()
	if err := (Renderer{}).History(&b, m); err != nil {
		t.Fatal(err)
	}
	golden(t, "render/history-device.txt", b.Bytes())
	if _, err := client.History(t.Context(), &caracalv1.HistoryRequest{Device: "vxlan.calico", Prefix: "10.1.2.0/26"}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("of a device and a prefix: %v", err)
	}
	if m, err := client.History(t.Context(), &caracalv1.HistoryRequest{Prefix: "10.1.2.3"}); err != nil || m.Prefix != "10.1.2.3/32" || len(m.Events) != 0 {
		t.Errorf("of an address: %v, %v", m, err)
	}
	for _, bad := range []string{"", "ten", "10.1.2.1/26"} {
		if _, err := client.History(t.Context(), &caracalv1.HistoryRequest{Prefix: bad}); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
