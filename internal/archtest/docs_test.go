package archtest

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestNamedTests: every test that the tables of faults and of claims name is there.
func TestNamedTests(t *testing.T) {
	root := filepath.Join("..", "..")
	there := map[string]bool{}
	definition := regexp.MustCompile(`(?m)^(?:func |\s*def )((?:Test|Fuzz|test_)\w+)\(`)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() && strings.HasPrefix(name, ".") && len(name) > 2 {
			return fs.SkipDir
		}
		if !strings.HasSuffix(name, "_test.go") && !(strings.HasPrefix(name, "test_") && strings.HasSuffix(name, ".py")) {
			return nil
		}
		text, err := os.ReadFile(path)
		for _, m := range definition.FindAllSubmatch(text, -1) {
			there[string(m[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	mention := regexp.MustCompile("`((?:Test|Fuzz|test_)\\w+)`")
	for _, doc := range []string{"faults.md", "security.md"} {
		text, err := os.ReadFile(filepath.Join(root, "docs", doc))
		if err != nil {
			t.Fatal(err)
		}
		named := mention.FindAllSubmatch(text, -1)
		if len(named) < 20 {
			t.Errorf("docs/%s names %d tests", doc, len(named))
		}
		for _, m := range named {
			if !there[string(m[1])] {
				t.Errorf("docs/%s names %s, which does not exist", doc, m[1])
			}
		}
	}
}
