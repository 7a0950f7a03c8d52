// Package page writes what came of a plan of experiments as one HTML page that opens offline: a table over the seeds,
// the curves of the runs, and the spectra of the difference to the reference before and after. It has no program, and a
// content-security policy forbids it to fetch anything.
package page

import (
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"slices"

	"github.com/specalign/specalign/trainer/experiment"
)

//go:embed page.html
var text string

//go:embed page.css
var style string

var parsed = template.Must(template.New("page").Parse(text))

// stretches bounds the points of a curve.
const stretches = 200

// document is what the template is filled with.
type document struct {
	Question string
	Policy   string
	Style    template.CSS
	Measures []string
	Scored   bool
	Begun    []string // scores before, of the first setting, in the order of the table's columns
	Aim      []string // scores of the reference
	Settings []setting
	Runs     []run
	Versions []string
	Plan     string // JSON
}

// setting is one experiment of the plan: the table's row and its charts.
type setting struct {
	Name    string
	Cells   []string
	Curves  template.HTML
	Spectra template.HTML
	Steps   int
	Millis  string // a step takes
	Share   string // of it in the penalty
}

// run is one line of the last table.
type run struct {
	Setting string
	Seed    uint64
	Cells   []string
}

// Write writes the page of results, whose tables of steps lie in the plan's folder dir.
func Write(w io.Writer, p *experiment.Plan, dir, version string, results []experiment.Result) error {
	sum := sha256.Sum256([]byte(style))
	d := &document{
		Question: p.Question, Style: template.CSS(style),
		Policy: fmt.Sprintf("default-src 'none'; style-src 'sha256-%s'; img-src data:; base-uri 'none'; form-action 'none'", base64.StdEncoding.EncodeToString(sum[:])),
	}
	if d.Question == "" {
		d.Question = "An experiment"
	}
	measures := experiment.Measured(results)
	for _, m := range measures {
		d.Measures = append(d.Measures, m.Name)
	}
	for i, g := range experiment.BySetting(results) {
		s, err := settingOf(p, dir, measures, g)
		if err != nil {
			return err
		}
		d.Settings = append(d.Settings, s)
		d.Scored = g[0].After != nil
		if i == 0 {
			d.Begun = cells(measures, g, func(v experiment.Values) []float64 { return v.Before }, false)
			d.Aim = cells(measures, g, func(v experiment.Values) []float64 { return v.Reference }, false)
		}
		for j, r := range g {
			d.Runs = append(d.Runs, run{r.Setting, r.Seed, cells(measures, g[j:j+1], func(v experiment.Values) []float64 { return v.After }, true)})
		}
	}
	for name, v := range experiment.Versions(version) {
		d.Versions = append(d.Versions, name+" "+v)
	}
	slices.Sort(d.Versions)
	plan, err := json.MarshalIndent(p.Cells, "", "  ")
	if err != nil {
		return err
	}
	d.Plan = string(plan)
	return parsed.Execute(w, d)
}

// cells are a row of the table: each measure, and behind an accuracy the share of the gap that was closed.
func cells(measures []experiment.Measure, g []experiment.Result, of func(experiment.Values) []float64, gap bool) (out []string) {
	for _, m := range measures {
		v := m.Values(g)
		text := experiment.Spread(of(v), 3)
		if share := experiment.Percent(v.Gap); gap && share != "" {
			text += " (" + share + ")"
		}
		out = append(out, text)
	}
	return out
}

func settingOf(p *experiment.Plan, dir string, measures []experiment.Measure, g []experiment.Result) (setting, error) {
	s := setting{Name: g[0].Setting, Steps: g[0].Steps, Cells: cells(measures, g, func(v experiment.Values) []float64 { return v.After }, true)}
	var curves, spectra []series
	name := "loss"
	var millis, shares []float64
	for i, r := range g {
		c, err := p.Curve(dir, r, stretches)
		if err != nil {
			return s, err
		}
		y := c.Loss
		if len(c.Penalty) > 0 {
			name, y = "penalty", c.Penalty
		}
		curves = append(curves, series{class: "after", x: c.Step, y: y})
		if r.Seconds > 0 {
			millis, shares = append(millis, 1e3*r.Seconds), append(shares, 100*r.Share)
		}
		if i == 0 && r.After != nil {
			spectra = append(spectra, spectrum("before", r.Before), spectrum("after", r.After))
		}
	}
	s.Millis, s.Share = experiment.Spread(millis, 1), experiment.Percent(shares)
	s.Curves = chart("the "+name+" over the steps", name+" by step", curves)
	if spectra != nil {
		s.Spectra = chart("eigenvalues before and after", "eigenvalues by rank", spectra)
	}
	return s, nil
}

// spectrum are the eigenvalues of both signs, by rank.
func spectrum(class string, score *experiment.Score) series {
	s := series{class: class, dots: true}
	for _, side := range [][]float64{score.Spectrum.Positive, score.Spectrum.Negative} {
		for i, v := range side {
			s.x, s.y = append(s.x, float64(i+1)), append(s.y, v)
		}
	}
	return s
}
