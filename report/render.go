package report

import (
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"io"
	"io/fs"
	"math"
	"strconv"
	"strings"
)

// The page's program is not in the repository: the folder has only a note until `make build` has bundled it.
//
//go:embed page.html page.css web/dist
var files embed.FS

const program = "web/dist/report.js"

// built tells whether the page's program is in this one.
func built() bool {
	_, err := fs.Stat(files, program)
	return err == nil
}

// parts are the page's program and style sheet, and the policy that admits them and nothing else.
type parts struct {
	Script template.JS
	Style  template.CSS
	Policy string
}

func loadParts() (parts, error) {
	script, err := files.ReadFile(program)
	if err != nil {
		return parts{}, ErrNotBuilt
	}
	style, err := files.ReadFile("page.css")
	if err != nil {
		return parts{}, err
	}
	policy := fmt.Sprintf("default-src 'none'; script-src '%s'; style-src '%s'; img-src data:; base-uri 'none'; form-action 'none'", hash(script), hash(style))
	return parts{Script: template.JS(script), Style: template.CSS(style), Policy: policy}, nil
}

// hash names a script or style sheet in a content-security policy.
func hash(text []byte) string {
	sum := sha256.Sum256(text)
	return "sha256-" + base64.StdEncoding.EncodeToString(sum[:])
}

var pageTemplate = template.Must(template.New("page.html").Funcs(template.FuncMap{
	"num": number, "count": count, "percent": percent, "along": along, "letter": letter, "plural": plural,
	"far": func(closer [2]float64, side int) float64 { return 1 - closer[side] }, "closer": closerText, "ticks": ticks,
	"pc":    func(x float64) string { return strconv.FormatFloat(100*x, 'f', 1, 64) },
	"other": func(side int) int { return 1 - side },
	"pick":  pick, "rest": rest,
	"dict":   dict,
	"source": func(url string) template.URL { return template.URL(url) }, // of our own pictures only
}).ParseFS(files, "page.html"))

func (p *page) render(w io.Writer) error { return pageTemplate.Execute(w, p) }

// number shows three significant digits.
func number(x float64) string {
	if x != 0 && (math.Abs(x) < 1e-3 || math.Abs(x) >= 1e5) {
		return strconv.FormatFloat(x, 'e', 1, 64)
	}
	return strconv.FormatFloat(x, 'g', 3, 64)
}

// count groups digits in threes.
func count(n int) string {
	s := strconv.Itoa(n)
	for at := len(s) - 3; at > 0; at -= 3 {
		s = s[:at] + "," + s[at:]
	}
	return s
}

func percent(x float64) string { return strconv.Itoa(int(math.Round(100*x))) + " %" }

// letter is the letter of a model: A for the student, B for the reference.
func letter(side int) string { return string(rune('A' + side)) }

func plural(n int, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return count(n) + " " + strings.TrimSuffix(one, "s") + "s"
}

// dict makes the map that a template takes for several arguments.
func dict(pairs ...any) map[string]any {
	m := map[string]any{}
	for i := 0; i+1 < len(pairs); i += 2 {
		m[pairs[i].(string)] = pairs[i+1]
	}
	return m
}

// rest is what classes beyond the first count make up.
func rest(classes []share, count int) float64 {
	sum := 0.0
	for _, c := range classes[min(count, len(classes)):] {
		sum += c.Part
	}
	return sum
}
