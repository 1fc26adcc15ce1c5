package calico

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// ASNumber is an autonomous system number, written as a number, as a decimal string or as "high.low".
type ASNumber uint32

// Duration is written as Go and Kubernetes write durations: "120s", "2m".
type Duration time.Duration

// ParseASNumber reads "64512" or "1.10" (RFC 5396: asplain and asdot).
func ParseASNumber(s string) (ASNumber, error) {
	high, low, dotted := strings.Cut(s, ".")
	if !dotted {
		n, err := strconv.ParseUint(s, 10, 32)
		if err != nil {
			return 0, fmt.Errorf("%q is not an AS number: write a number from 0 to 4294967295, or two from 0 to 65535 as in \"1.10\"", s)
		}
		return ASNumber(n), nil
	}
	h, err1 := strconv.ParseUint(high, 10, 16)
	l, err2 := strconv.ParseUint(low, 10, 16)
	if err1 != nil || err2 != nil {
		return 0, fmt.Errorf("%q is not an AS number: in the dotted form write two numbers from 0 to 65535, as in \"1.10\"", s)
	}
	return ASNumber(h<<16 | l), nil
}

// UnmarshalYAML reads a number or a string.
func (a *ASNumber) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind != yaml.ScalarNode {
		return errors.New("must be an AS number such as 64512 or \"1.10\"")
	}
	v, err := ParseASNumber(n.Value)
	if err == nil {
		*a = v
	}
	return err
}

// UnmarshalJSON reads a number or a string.
func (a *ASNumber) UnmarshalJSON(b []byte) error {
	v, err := ParseASNumber(strings.Trim(string(b), `"`))
	if err == nil {
		*a = v
	}
	return err
}

// UnmarshalYAML reads a duration with its unit.
func (d *Duration) UnmarshalYAML(n *yaml.Node) error {
	v, err := time.ParseDuration(n.Value)
	if n.Kind != yaml.ScalarNode || err != nil {
		return fmt.Errorf("%q is not a duration: write a number with its unit, as in 120s or 2m", n.Value)
	}
	*d = Duration(v)
	return nil
}

// MarshalYAML writes the duration with its units.
func (d Duration) MarshalYAML() (any, error) { return time.Duration(d).String(), nil }

// UnmarshalJSON reads a duration with its unit.
func (d *Duration) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	v, err := time.ParseDuration(s)
	*d = Duration(v)
	return err
}

// MarshalJSON writes the duration with its units.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(time.Duration(d).String()) }

// UnmarshalYAML reads true, false, "true", "false" and, as Calico does, nothing for false.
func (b *StringBool) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode {
		switch {
		case n.Value == "" || n.Tag == "!!null":
			*b = false
			return nil
		case n.Tag == "!!bool" || n.Tag == "!!str":
			if v, err := strconv.ParseBool(n.Value); err == nil {
				*b = StringBool(v)
				return nil
			}
		}
	}
	return fmt.Errorf("%q is neither true nor false", n.Value)
}

// MarshalYAML writes a boolean, the form of projectcalico.org/v3.
func (b StringBool) MarshalYAML() (any, error) { return bool(b), nil }

// UnmarshalJSON reads a boolean or a string.
func (b *StringBool) UnmarshalJSON(raw []byte) error {
	s := strings.Trim(string(raw), `"`)
	if s == "" || s == "null" {
		*b = false
		return nil
	}
	v, err := strconv.ParseBool(s)
	if err != nil {
		return fmt.Errorf("%s is neither true nor false", raw)
	}
	*b = StringBool(v)
	return nil
}

// MarshalJSON writes a boolean, the form of projectcalico.org/v3.
func (b StringBool) MarshalJSON() ([]byte, error) { return strconv.AppendBool(nil, bool(b)), nil }
