// Package strictyaml reads YAML documents that people write into Go structs. What a struct does not say is an error
// with file, line and column: unknown keys, keys given twice, values of another type, numbers that are not finite,
// aliases.
package strictyaml

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"regexp"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"

	"github.com/specalign/specalign/internal/regular"
)

// Error is what is wrong with a document, and where.
type Error struct {
	Path         string
	Line, Column int // from 1; 0 where no place is to blame
	Text         string
}

func (e *Error) Error() string {
	if e.Line == 0 {
		return e.Path + ": " + e.Text
	}
	return fmt.Sprintf("%s:%d:%d: %s", e.Path, e.Line, e.Column, e.Text)
}

// Free is a mapping whose keys somebody else checks. Decoding over one that holds something puts its keys over those.
type Free struct {
	Values map[string]any
	whole  Error            // the place of the mapping
	places map[string]Error // and of its keys
}

// Error returns an error at the key that its text speaks of, or at the mapping.
func (f *Free) Error(text string) error {
	e := f.whole
	for _, word := range strings.FieldsFunc(text, func(r rune) bool { return r != '_' && (r < 'a' || r > 'z') }) {
		if place, ok := f.places[word]; ok {
			e = place
			break
		}
	}
	e.Text = text
	return &e
}

// MaxBytes bounds a document.
const MaxBytes = 1 << 20

// ReadFile reads the document in a regular file, for Parse.
func ReadFile(path string) ([]byte, error) {
	f, err := regular.Open(path)
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(f, MaxBytes+1))
	return text, errors.Join(err, f.Close())
}

// Parse reads one document whose root is a mapping.
func Parse(path string, text []byte) (*yaml.Node, error) {
	wrong := func(format string, args ...any) error { return &Error{Path: path, Text: fmt.Sprintf(format, args...)} }
	if len(text) > MaxBytes {
		return nil, wrong("larger than %d bytes; that is no document of settings", MaxBytes)
	}
	if !utf8.Valid(text) {
		return nil, wrong("it is not text in UTF-8")
	}
	var doc yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	if err := decoder.Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, wrong("it holds nothing")
		}
		return nil, wrong("%s", strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, wrong("more than one YAML document")
	}
	if root := doc.Content[0]; root.Kind == yaml.MappingNode {
		return root, nil
	}
	return nil, &Error{path, doc.Content[0].Line, doc.Content[0].Column, "a mapping is needed here, such as `steps: 600`"}
}

// Override puts one value, written in YAML, over what the struct that into points to holds: at a path of keys with dots
// between, such as penalty.k. A mapping for a Free takes the place of the whole.
func Override(key, text string, into any) error {
	where := "--set " + key
	var doc yaml.Node
	if err := yaml.NewDecoder(strings.NewReader(text)).Decode(&doc); err != nil {
		return &Error{Path: where, Text: fmt.Sprintf("%s is no value", shown(text))}
	}
	value := doc.Content[0]
	unplaced(value) // there is no line to name
	return put(where, &yaml.Node{Value: key}, value, into)
}

func unplaced(n *yaml.Node) {
	n.Line, n.Column = 0, 0
	for _, c := range n.Content {
		unplaced(c)
	}
}

// Decode puts a mapping over what the struct that into points to holds. Fields are found by their yaml tag.
func Decode(path string, node *yaml.Node, into any) error {
	return decoder{path, nil}.value(node, "", reflect.ValueOf(into).Elem())
}

type decoder struct {
	path    string
	instead *yaml.Node // takes the place of what a Free held, and is not put over it
}

func (d decoder) wrong(at *yaml.Node, format string, args ...any) error {
	return &Error{d.path, at.Line, at.Column, fmt.Sprintf(format, args...)}
}

var freeType, gridType = reflect.TypeFor[Free](), reflect.TypeFor[Grid]()

// bare refuses what YAML can say of a value beside the value.
func (d decoder) bare(node *yaml.Node) error {
	switch {
	case node.Kind == yaml.AliasNode || node.Anchor != "":
		return d.wrong(node, "anchors and aliases are not taken here; write the value out")
	case node.Style&yaml.TaggedStyle != 0:
		return d.wrong(node, "tags such as %s are not taken here", shown(node.Tag))
	case node.Kind == yaml.ScalarNode && numeric(node.ShortTag()) && odd.MatchString(node.Value):
		return d.wrong(node, "%s is read as another number by others; write it in decimal digits, without a zero before them", shown(node.Value))
	}
	return nil
}

func numeric(tag string) bool { return tag == "!!int" || tag == "!!float" }

// odd are numbers that YAML 1.1 and 1.2, or a person, read differently: 017 is 15 or 17.
var odd = regexp.MustCompile(`^[-+]?0[0-9a-zA-Z]|_`)

// value decodes one value; name is what it is called in messages.
func (d decoder) value(node *yaml.Node, name string, to reflect.Value) error {
	if err := d.bare(node); err != nil {
		return err
	}
	switch {
	case to.Type() == freeType:
		return d.free(node, name, to.Addr().Interface().(*Free))
	case to.Type() == gridType:
		return d.grid(node, name, to.Addr().Interface().(*Grid))
	case to.Kind() == reflect.Pointer:
		if to.IsNil() {
			to.Set(reflect.New(to.Type().Elem()))
		}
		return d.value(node, name, to.Elem())
	case to.Kind() == reflect.Struct:
		return d.mapping(node, name, to)
	case to.Kind() == reflect.Slice:
		if node.Kind != yaml.SequenceNode {
			return d.wrong(node, "%s is a list, such as [1, 2]", name)
		}
		list := reflect.MakeSlice(to.Type(), len(node.Content), len(node.Content))
		for i, item := range node.Content {
			if err := d.value(item, fmt.Sprintf("%s[%d]", name, i), list.Index(i)); err != nil {
				return err
			}
		}
		to.Set(list)
		return nil
	}
	return d.scalar(node, name, to)
}

func (d decoder) mapping(node *yaml.Node, name string, to reflect.Value) error {
	if node.Kind != yaml.MappingNode {
		return d.wrong(node, "%s is a mapping of settings", name)
	}
	fields := map[string]int{}
	var names []string
	for i := range to.NumField() {
		if tag := to.Type().Field(i).Tag.Get("yaml"); tag != "" && tag != "-" {
			fields[tag] = i
			names = append(names, tag)
		}
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, inner := node.Content[i], node.Content[i+1]
		field, ok := fields[key.Value]
		if key.Kind != yaml.ScalarNode || !ok {
			return d.wrong(key, "there is no setting %q here; there are %s", key.Value, strings.Join(names, ", "))
		}
		if seen[key.Value] {
			return d.wrong(key, "%q is given twice", key.Value)
		}
		seen[key.Value] = true
		full := key.Value
		if name != "" {
			full = name + "." + full
		}
		if err := d.value(inner, full, to.Field(field)); err != nil {
			return err
		}
	}
	return nil
}

func (d decoder) free(node *yaml.Node, name string, to *Free) error {
	if node.Kind != yaml.MappingNode {
		return d.wrong(node, "%s is a mapping of settings", name)
	}
	values := map[string]any{}
	if err := d.plain(node, &values); err != nil {
		return err
	}
	if to.Values == nil || node == d.instead {
		*to = Free{Values: map[string]any{}, whole: Error{Path: d.path, Line: node.Line, Column: node.Column}, places: map[string]Error{}}
	}
	for i := 0; i < len(node.Content); i += 2 {
		key := node.Content[i]
		to.Values[key.Value] = values[key.Value]
		to.places[key.Value] = Error{Path: d.path, Line: key.Line, Column: key.Column}
	}
	return nil
}

// plain decodes what has no struct; the same things are refused in it.
func (d decoder) plain(node *yaml.Node, to any) error {
	var check func(n *yaml.Node) error
	check = func(n *yaml.Node) error {
		if err := d.bare(n); err != nil {
			return err
		}
		var f float64
		if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!float" && n.Decode(&f) == nil && (math.IsInf(f, 0) || math.IsNaN(f)) {
			return d.wrong(n, "%s is no finite number", n.Value)
		}
		seen := map[string]bool{}
		for i, c := range n.Content {
			if n.Kind == yaml.MappingNode && i%2 == 0 {
				if c.ShortTag() != "!!str" {
					return d.wrong(c, "a key is a word")
				}
				if seen[c.Value] {
					return d.wrong(c, "%q is given twice", c.Value)
				}
				seen[c.Value] = true
			}
			if err := check(c); err != nil {
				return err
			}
		}
		return nil
	}
	if err := check(node); err != nil {
		return err
	}
	if err := node.Decode(to); err != nil {
		return d.wrong(node, "%s", strings.TrimPrefix(err.Error(), "yaml: "))
	}
	return nil
}

// kinds are what the tags of scalars are called.
var kinds = map[string]string{"!!str": "text", "!!int": "a whole number", "!!float": "a number", "!!bool": "true or false", "!!null": "nothing"}

func (d decoder) scalar(node *yaml.Node, name string, to reflect.Value) error {
	tag := node.ShortTag()
	given := shown(node.Value)
	if given == node.Value && node.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle) != 0 {
		given = fmt.Sprintf("%q", given)
	}
	if node.Kind != yaml.ScalarNode {
		given = map[yaml.Kind]string{yaml.SequenceNode: "a list", yaml.MappingNode: "a mapping"}[node.Kind]
	}
	want := ""
	switch to.Kind() {
	case reflect.String:
		want = "!!str"
	case reflect.Bool:
		want = "!!bool"
	case reflect.Int, reflect.Uint64:
		want = "!!int"
	case reflect.Float64:
		want = "!!float"
	default:
		panic("strictyaml: no rule for " + to.Type().String())
	}
	fits := node.Kind == yaml.ScalarNode && (tag == want || want == "!!float" && tag == "!!int")
	if fits {
		fits = node.Decode(to.Addr().Interface()) == nil
	}
	if fits && want == "!!float" && (math.IsInf(to.Float(), 0) || math.IsNaN(to.Float())) {
		fits = false
	}
	if !fits {
		return d.wrong(node, "%s is %s; give %s", name, given, kinds[want])
	}
	return nil
}

// shown quotes what would not show, and shortens what is long.
func shown(text string) string {
	if text == "" {
		return "empty"
	}
	if len(text) > 60 {
		text = text[:60] + "..."
	}
	if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == utf8.RuneError }) {
		return fmt.Sprintf("%q", text)
	}
	return text
}
