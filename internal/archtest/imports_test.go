// Package archtest holds the rules of who may import whom.
//
//	cmd -> plugin, report, trainer -> align <- csrc <- cuda
//
// align imports nothing of ours but its own subpackages; plugin, report and trainer do not know one another; only csrc,
// cuda and capi speak C; Gorgonia is for trainer and, its CUDA part, for cuda.
package archtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/specalign/specalign"

// pkg is what `go list -json` says of a package.
type pkg struct {
	ImportPath string
	Standard   bool
	Imports    []string
	Deps       []string
	CgoFiles   []string
}

// list runs go list over the whole module and everything it depends on.
func list(t *testing.T) map[string]pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-deps", "-json=ImportPath,Standard,Imports,Deps,CgoFiles", module+"/...")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	all := map[string]pkg{}
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all[p.ImportPath] = p
	}
}

// top is the name of the folder of ours that a package lies in, "" for a package of others.
func top(path string) string {
	rest, ours := strings.CutPrefix(path, module+"/")
	if !ours {
		return ""
	}
	name, _, _ := strings.Cut(rest, "/")
	return name
}

// allowed says which of our folders each folder may depend on, beside itself, directly or not.
var allowed = map[string][]string{
	"align":    {"internal"},
	"csrc":     {"align"},
	"cuda":     {"align", "csrc"},
	"capi":     {"align", "csrc", "cuda", "internal"},
	"plugin":   {"align", "internal"},
	"report":   {"align", "internal"},
	"trainer":  {"align", "csrc", "cuda", "internal"},
	"cmd":      {"align", "csrc", "cuda", "plugin", "report", "trainer", "internal", "python"},
	"python":   {},
	"internal": {"align"}, // internal/steps, which plugin and capi share
}

func TestImports(t *testing.T) {
	all := list(t)
	seen := map[string]bool{}
	for path, p := range all {
		from := top(path)
		if from == "" {
			if len(p.CgoFiles) > 0 && !p.Standard {
				t.Errorf("%s, a dependency, needs cgo; only csrc, cuda and capi may", path)
			}
			continue
		}
		seen[from] = true
		may, known := allowed[from]
		if !known {
			t.Errorf("%s: there is no rule for the folder %s", path, from)
			continue
		}
		if len(p.CgoFiles) > 0 && !slices.Contains([]string{"csrc", "cuda", "capi"}, from) {
			t.Errorf(`%s has import "C" in %v; only csrc, cuda and capi may`, path, p.CgoFiles)
		}
		for _, dep := range p.Deps {
			if to := top(dep); to != "" && to != from && !slices.Contains(may, to) {
				t.Errorf("%s depends on %s; %s may depend on %v", path, dep, from, may)
			}
			if strings.HasPrefix(dep, "gorgonia.org/cu") && from != "cuda" {
				t.Errorf("%s depends on %s, which ends the process where there is no GPU; only the GPU build may", path, dep)
			}
			if strings.HasPrefix(dep, "gorgonia.org/") && !slices.Contains([]string{"trainer", "cuda", "cmd"}, from) {
				t.Errorf("%s depends on %s; Gorgonia is for trainer", path, dep)
			}
		}
	}
	for _, must := range []string{"align", "csrc", "plugin", "report", "cmd"} {
		if !seen[must] {
			t.Errorf("%s was not looked at", must)
		}
	}
}

// TestEngineIsPure: align and its reference speak no protocol and read no files; only its subpackage features does.
func TestEngineIsPure(t *testing.T) {
	for path, p := range list(t) {
		if top(path) != "align" || strings.HasSuffix(path, "/align/features") {
			continue
		}
		for _, i := range p.Imports {
			if slices.Contains([]string{"os", "os/exec", "net", "net/http", "syscall", "C"}, i) ||
				strings.HasPrefix(i, "golang.org/x/sys") || strings.HasPrefix(i, "google.golang.org/") || strings.HasPrefix(i, "github.com/hashicorp/") {
				t.Errorf("%s imports %s; the mathematics knows no files, processes or protocols", path, i)
			}
		}
	}
}
