package file

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// parseJSON reads a JSON text into the tree the YAML library would make of it. JSON is not read as YAML because the
// library knows neither tabs between tokens nor all of JSON's escapes.
func parseJSON(text []byte) (*yaml.Node, error) {
	r := &jsonReader{text: text, line: 1, dec: json.NewDecoder(bytes.NewReader(text))}
	r.dec.UseNumber()
	n, err := r.value()
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	if _, err := r.dec.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("something follows the value that ends on line %d", r.line)
	}
	return n, nil
}

type jsonReader struct {
	dec  *json.Decoder
	text []byte
	at   int // up to where line was counted
	line int
}

func (r *jsonReader) token() (json.Token, error) {
	t, err := r.dec.Token()
	offset := int(r.dec.InputOffset())
	r.line += bytes.Count(r.text[r.at:offset], []byte("\n"))
	r.at = offset
	return t, err
}

func (r *jsonReader) value() (*yaml.Node, error) {
	t, err := r.token()
	if err != nil {
		return nil, err
	}
	n := &yaml.Node{Kind: yaml.ScalarNode, Line: r.line}
	switch t := t.(type) {
	case json.Delim:
		n.Kind, n.Tag = yaml.MappingNode, "!!map"
		if t == '[' {
			n.Kind, n.Tag = yaml.SequenceNode, "!!seq"
		}
		for r.dec.More() {
			v, err := r.value() // in an object, names and values take turns
			if err != nil {
				return nil, err
			}
			n.Content = append(n.Content, v)
		}
		_, err = r.token()
	case string:
		n.Tag, n.Value, n.Style = "!!str", t, yaml.DoubleQuotedStyle
	case json.Number:
		n.Tag, n.Value = "!!int", t.String()
		if strings.ContainsAny(n.Value, ".eE") {
			n.Tag = "!!float"
		}
	case bool:
		n.Tag, n.Value = "!!bool", strconv.FormatBool(t)
	default:
		n.Tag, n.Value = "!!null", "null"
	}
	return n, err
}

// writeJSON is the way back.
func writeJSON(n *yaml.Node) ([]byte, error) {
	var b bytes.Buffer
	appendJSON(&b, n)
	var out bytes.Buffer
	if err := json.Indent(&out, b.Bytes(), "", "  "); err != nil {
		return nil, fmt.Errorf("write JSON: %w", err)
	}
	out.WriteByte('\n')
	return out.Bytes(), nil
}

func appendJSON(b *bytes.Buffer, n *yaml.Node) {
	switch {
	case n.Kind == yaml.DocumentNode:
		appendJSON(b, n.Content[0])
	case n.Kind == yaml.MappingNode:
		b.WriteByte('{')
		for i := 0; i+1 < len(n.Content); i += 2 {
			if i > 0 {
				b.WriteByte(',')
			}
			b.WriteString(quoteJSON(n.Content[i].Value))
			b.WriteByte(':')
			appendJSON(b, n.Content[i+1])
		}
		b.WriteByte('}')
	case n.Kind == yaml.SequenceNode:
		b.WriteByte('[')
		for i, item := range n.Content {
			if i > 0 {
				b.WriteByte(',')
			}
			appendJSON(b, item)
		}
		b.WriteByte(']')
	case n.Tag == "!!str" || n.Tag == "!!timestamp":
		b.WriteString(quoteJSON(n.Value))
	default:
		b.WriteString(n.Value)
	}
}

func quoteJSON(s string) string {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil { // a string can always be encoded
		panic(err)
	}
	return strings.TrimSuffix(b.String(), "\n")
}
