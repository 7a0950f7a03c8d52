package memory

import (
	"math"
	"os"
	"path/filepath"
	"testing"
)

func TestGroupLimit(t *testing.T) {
	root := t.TempDir()
	for name, text := range map[string]string{
		"memory.max": "max\n", "a/memory.max": "5000\n", "a/b/memory.max": "9000\n", "c/memory.max": "max\n",
		"memory/d/memory.limit_in_bytes": "700\n",
	} {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		groups string
		want   uint64
	}{
		{"0::/a/b\n", 5000}, {"0::/c\n", math.MaxUint64}, {"0::/\n", math.MaxUint64}, {"", math.MaxUint64},
		{"0::/../../x\n", math.MaxUint64}, {"5:memory:/d\n4:cpu:/a\n0::/c\n", 700}, {"nonsense", math.MaxUint64},
	} {
		if got := groupLimit(root, c.groups); got != c.want {
			t.Errorf("%q: %d, want %d", c.groups, got, c.want)
		}
	}
	if m := Available(); m < 1<<26 || m == math.MaxUint64 {
		t.Errorf("%d bytes", m)
	}
}
