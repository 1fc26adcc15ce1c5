package datastoretest

import (
	"reflect"

	"github.com/caracal-net/caracal/internal/calico"
)

// clone returns a deep copy. It goes by reflection rather than through JSON so that a copy never depends on how a
// kind is encoded: a field an encoder drops would be lost here without anybody noticing.
func clone(obj calico.Object) calico.Object {
	return cloneValue(reflect.ValueOf(obj)).Interface().(calico.Object)
}

func cloneValue(v reflect.Value) reflect.Value {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return v
		}
		c := reflect.New(v.Type().Elem())
		c.Elem().Set(cloneValue(v.Elem()))
		return c
	case reflect.Interface:
		if v.IsNil() {
			return v
		}
		c := reflect.New(v.Type()).Elem()
		c.Set(cloneValue(v.Elem()))
		return c
	case reflect.Slice:
		return cloneSlice(v)
	case reflect.Map:
		return cloneMap(v)
	case reflect.Struct:
		return cloneStruct(v)
	}
	return v
}

func cloneSlice(v reflect.Value) reflect.Value {
	if v.IsNil() {
		return v
	}
	c := reflect.MakeSlice(v.Type(), v.Len(), v.Len())
	switch v.Type().Elem().Kind() {
	case reflect.Pointer, reflect.Interface, reflect.Slice, reflect.Map, reflect.Struct, reflect.Array:
		for i := range v.Len() {
			c.Index(i).Set(cloneValue(v.Index(i)))
		}
	default: // plain values
		reflect.Copy(c, v)
	}
	return c
}

func cloneMap(v reflect.Value) reflect.Value {
	if v.IsNil() {
		return v
	}
	c := reflect.MakeMapWithSize(v.Type(), v.Len())
	for it := v.MapRange(); it.Next(); {
		c.SetMapIndex(it.Key(), cloneValue(it.Value()))
	}
	return c
}

// cloneStruct copies unexported fields as they are: the structs that have them are values (time.Time, netip.Addr).
func cloneStruct(v reflect.Value) reflect.Value {
	c := reflect.New(v.Type()).Elem()
	c.Set(v)
	for i := range v.NumField() {
		if v.Type().Field(i).IsExported() {
			c.Field(i).Set(cloneValue(v.Field(i)))
		}
	}
	return c
}
