package features

import "testing"

func TestSplit(t *testing.T) {
	for _, c := range []struct{ name, path, key string }{
		{"z.npz:feat.npy", "z.npz", "feat.npy"},
		{"a/z.safetensors:b.npz", "a/z.safetensors", "b.npz"},
		{"z.npz:feat", "z.npz", "feat"},
		{"a.npz:b/z.npy", "a.npz:b/z.npy", ""},
		{"z.npy", "z.npy", ""},
	} {
		if path, key, _, err := split(c.name); path != c.path || key != c.key || err != nil {
			t.Errorf("%s: path %q, key %q, %v; want %q, %q", c.name, path, key, err, c.path, c.key)
		}
	}
}
