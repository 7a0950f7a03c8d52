package strictyaml

import (
	"reflect"
	"strings"

	"go.yaml.in/yaml/v4"
)

// Grid is a mapping from paths of keys, with dots between, to lists of values: every combination of one value of each
// list is meant.
type Grid struct {
	path string
	axes []axis
}

// axis is one key of a Grid.
type axis struct {
	key    *yaml.Node
	values []*yaml.Node
}

// MaxCombinations bounds a Grid.
const MaxCombinations = 10_000

// Len returns the number of combinations: 1 of the empty Grid, which is the one that changes nothing.
func (g *Grid) Len() int {
	n := 1
	for _, a := range g.axes {
		n *= len(a.values)
	}
	return n
}

// Touches reports whether the Grid gives values to the key, to a part of it, or to what it is a part of.
func (g *Grid) Touches(key string) bool {
	for _, a := range g.axes {
		if k := a.key.Value; k == key || strings.HasPrefix(k, key+".") || strings.HasPrefix(key, k+".") {
			return true
		}
	}
	return false
}

// Put puts combination i, of which the last key's values vary fastest, over what the struct that into points to holds,
// and returns a text of it, such as `penalty.k=10 batch=256`.
func (g *Grid) Put(i int, into any) (name string, err error) {
	var words []string
	count := g.Len()
	for _, a := range g.axes {
		count /= len(a.values)
		value := a.values[i/count%len(a.values)]
		words = append(words, a.key.Value+"="+flow(value))
		if err := put(g.path, a.key, value, into); err != nil {
			return "", err
		}
	}
	return strings.Join(words, " "), nil
}

// put puts a value at the path of keys that key spells over what the struct holds.
func put(path string, key, value *yaml.Node, into any) error {
	inner := value
	parts := strings.Split(key.Value, ".")
	for i := len(parts) - 1; i >= 0; i-- {
		word := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: parts[i], Line: key.Line, Column: key.Column}
		inner = &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Content: []*yaml.Node{word, inner}, Line: key.Line, Column: key.Column}
	}
	return decoder{path, value}.value(inner, "", reflect.ValueOf(into).Elem())
}

// flow writes a value in one line.
func flow(n *yaml.Node) string {
	parts := make([]string, len(n.Content))
	for i, c := range n.Content {
		parts[i] = flow(c)
	}
	switch n.Kind {
	case yaml.SequenceNode:
		return "[" + strings.Join(parts, ", ") + "]"
	case yaml.MappingNode:
		var pairs []string
		for i := 0; i+1 < len(parts); i += 2 {
			pairs = append(pairs, parts[i]+": "+parts[i+1])
		}
		return "{" + strings.Join(pairs, ", ") + "}"
	}
	return n.Value
}

func (d decoder) grid(node *yaml.Node, name string, to *Grid) error {
	if node.Kind != yaml.MappingNode {
		return d.wrong(node, "%s is a mapping of lists, such as {penalty.k: [1, 10]}", name)
	}
	g := Grid{path: d.path}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, list := node.Content[i], node.Content[i+1]
		switch {
		case key.Kind != yaml.ScalarNode || key.Value == "" || key.Value == name || strings.HasPrefix(key.Value, name+"."):
			return d.wrong(key, "%s varies settings: give their names, such as penalty.k", name)
		case g.Touches(key.Value):
			return d.wrong(key, "%s gives values to %q twice", name, key.Value)
		case list.Kind != yaml.SequenceNode || len(list.Content) == 0:
			return d.wrong(list, "%s.%s is a list of values, such as [1, 10]", name, key.Value)
		case g.Len() > MaxCombinations/len(list.Content):
			return d.wrong(list, "%s has more than %d combinations", name, MaxCombinations)
		}
		seen := map[string]bool{}
		for _, value := range list.Content {
			if seen[flow(value)] {
				return d.wrong(value, "%s.%s has %s twice", name, key.Value, flow(value))
			}
			seen[flow(value)] = true
		}
		g.axes = append(g.axes, axis{key, list.Content})
	}
	*to = g
	return nil
}
