package cluster

import (
	"net/netip"
	"reflect"
	"testing"
)

// TestEveryFieldCounts: an object of which any field changes is not equal to what it was. One that were would keep a change of the datastore
// from everybody.
func TestEveryFieldCounts(t *testing.T) {
	equal := map[reflect.Type]func(a, b any) bool{
		reflect.TypeFor[Node]():          func(a, b any) bool { return equalNodes(a.(*Node), b.(*Node)) },
		reflect.TypeFor[Block]():         func(a, b any) bool { return equalBlocks(a.(*Block), b.(*Block)) },
		reflect.TypeFor[BGPPeer]():       func(a, b any) bool { return equalPeers(a.(*BGPPeer), b.(*BGPPeer)) },
		reflect.TypeFor[BGPFilter]():     func(a, b any) bool { return equalFilters(a.(*BGPFilter), b.(*BGPFilter)) },
		reflect.TypeFor[FilterRule]():    func(a, b any) bool { return EqualRules(a.(*FilterRule), b.(*FilterRule)) },
		reflect.TypeFor[Secret]():        func(a, b any) bool { return equalSecrets(a.(*Secret), b.(*Secret)) },
		reflect.TypeFor[Service]():       func(a, b any) bool { return equalServices(a.(*Service), b.(*Service)) },
		reflect.TypeFor[EndpointSlice](): func(a, b any) bool { return equalSlices(a.(*EndpointSlice), b.(*EndpointSlice)) },
		reflect.TypeFor[Pod]():           func(a, b any) bool { return equalPods(a.(*Pod), b.(*Pod)) },
		reflect.TypeFor[BGPConfig]():     func(a, b any) bool { return equalBGP(a.(*BGPConfig), b.(*BGPConfig)) },
	}
	for typ, same := range equal {
		if !same(reflect.New(typ).Interface(), reflect.New(typ).Interface()) {
			t.Errorf("%s: two zero values differ", typ.Name())
		}
		eachField(typ, nil, func(index []int, name string) {
			changed := reflect.New(typ)
			if !set(changed.Elem().FieldByIndex(index)) {
				t.Errorf("%s.%s: this test knows no other value of its kind", typ.Name(), name)
			} else if same(reflect.New(typ).Interface(), changed.Interface()) {
				t.Errorf("a change of %s.%s goes unnoticed", typ.Name(), name)
			}
		})
	}
}

// eachField calls f with every field that is no struct of ours, those of such structs included.
func eachField(typ reflect.Type, above []int, f func(index []int, name string)) {
	for i := range typ.NumField() {
		field := typ.Field(i)
		index := append(append([]int(nil), above...), i)
		if field.Type.Kind() == reflect.Struct && field.Type.PkgPath() == typ.PkgPath() {
			eachField(field.Type, index, f)
			continue
		}
		f(index, field.Name)
	}
}

// set gives a field that is zero another value; false if it knows none.
func set(v reflect.Value) bool {
	if !v.CanSet() {
		return true // not ours to compare
	}
	switch v.Interface().(type) {
	case netip.Addr:
		v.Set(reflect.ValueOf(netip.MustParseAddr("192.0.2.1")))
		return true
	case netip.Prefix:
		v.Set(reflect.ValueOf(netip.MustParsePrefix("192.0.2.0/24")))
		return true
	}
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(true)
	case reflect.String:
		v.SetString("x")
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(1)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(1)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(reflect.Zero(v.Type().Key()), reflect.Zero(v.Type().Elem()))
	case reflect.Array:
		return set(v.Index(0))
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
	default:
		return false
	}
	return true
}
