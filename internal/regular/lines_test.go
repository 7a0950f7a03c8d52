package regular

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestLines(t *testing.T) {
	for _, test := range []struct {
		name, text string
		most       int
		want       []string
		wrong      string
	}{
		{"both ends", "a\r\nb\n\nc", 9, []string{"a", "b", "", "c"}, ""},
		{"only the first", "a\nb\n" + strings.Repeat("x", maxLine+1), 2, []string{"a", "b"}, ""},
		{"too long", "a\n" + strings.Repeat("x", maxLine), 9, nil, "line 2 has 65536 bytes or more"},
		{"empty", "", 9, nil, ""},
	} {
		path := filepath.Join(t.TempDir(), "list")
		if err := os.WriteFile(path, []byte(test.text), 0o600); err != nil {
			t.Fatal(err)
		}
		switch got, err := Lines(path, test.most); {
		case test.wrong == "" && (err != nil || !slices.Equal(got, test.want)):
			t.Errorf("%s: %q, %v", test.name, got, err)
		case test.wrong != "" && (err == nil || !strings.Contains(err.Error(), path+": "+test.wrong)):
			t.Errorf("%s: %v, want %q", test.name, err, test.wrong)
		}
	}
}
