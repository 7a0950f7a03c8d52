package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestBadSettings: what is wrong in a file is said with its name and line.
func TestBadSettings(t *testing.T) {
	path := filepath.Join(t.TempDir(), "settings.yaml")
	for text, want := range map[string]string{
		"k: 3\neta: .inf\n":                      path + ":2:6: .inf is no finite number",
		"tolerance: .nan\n":                      path + ":1:12: .nan is no finite number",
		"k: 3\nterms: 5\n":                       path + ":2:8: terms is a list",
		"k: [1, 2]\n":                            path + ":1:4: k is one value",
		"terms:\n- objective: ky_fan\n  k: {}\n": path + ":3:6: k is one value",
		"\xff\xfek: 3":                           path + ": it is not text in UTF-8",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readSettings(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}
