package inspect

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// plainJSON is the protobuf JSON mapping with fields in the order of their numbers. protojson puts blanks in at
// random so that nobody relies on its spacing; Compact takes them out again.
func plainJSON(m proto.Message) ([]byte, error) {
	raw, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("write %s as JSON: %w", m.ProtoReflect().Descriptor().Name(), err)
	}
	var b bytes.Buffer
	if err := json.Compact(&b, raw); err != nil {
		return nil, fmt.Errorf("write %s as JSON: %w", m.ProtoReflect().Descriptor().Name(), err)
	}
	return b.Bytes(), nil
}

// WriteJSON writes a message as indented JSON. Times are absolute, fields without a value are written too, and the same
// message is always the same bytes.
func WriteJSON(w io.Writer, m proto.Message) error {
	plain, err := plainJSON(m)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if err := json.Indent(&b, plain, "", "  "); err != nil {
		return err
	}
	b.WriteByte('\n')
	_, err = w.Write(b.Bytes())
	return err
}

// WriteJSONLine writes a message as one line of JSON, for streams.
func WriteJSONLine(w io.Writer, m proto.Message) error {
	plain, err := plainJSON(m)
	if err != nil {
		return err
	}
	_, err = w.Write(append(plain, '\n'))
	return err
}

// WriteYAML writes a message as YAML, with the fields of WriteJSON in their order.
func WriteYAML(w io.Writer, m proto.Message) error {
	plain, err := plainJSON(m)
	if err != nil {
		return err
	}
	// JSON is YAML in flow style: read it as that, and write it in block style.
	var doc yaml.Node
	if err := yaml.Unmarshal(plain, &doc); err != nil {
		return fmt.Errorf("write %s as YAML: %w", m.ProtoReflect().Descriptor().Name(), err)
	}
	blockStyle(&doc)
	enc := yaml.NewEncoder(w)
	enc.SetIndent(2)
	if err := enc.Encode(&doc); err != nil {
		return err
	}
	return enc.Close()
}

func blockStyle(n *yaml.Node) {
	n.Style = 0
	for _, c := range n.Content {
		blockStyle(c)
	}
}
