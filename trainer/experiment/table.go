package experiment

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// ResultsName is the file in an experiment's folder with a row for each setting and seed.
const ResultsName = "results.csv"

// Measure is one number of a score. Accuracies have a gap to the reference's; the others measure a distance to it.
type Measure struct {
	Name     string
	accuracy bool
	of       func(*Score) *float64
}

// Measures are the columns of scores: of the table for machines all of them.
var Measures = []Measure{
	{"probe", true, func(s *Score) *float64 { return &s.Probe }},
	{"knn", true, func(s *Score) *float64 { return &s.KNN }},
	{"spec_diff", false, func(s *Score) *float64 { return s.SpecDiff }},
	{"cka", false, func(s *Score) *float64 { return s.CKA }},
	{"nngs", false, func(s *Score) *float64 { return &s.NNGS }},
	{"known", false, func(s *Score) *float64 { return s.Known }},
	{"zero_shot", false, func(s *Score) *float64 { return s.ZeroShot }},
}

// Measured are the measures that results have.
func Measured(results []Result) []Measure {
	return slices.DeleteFunc(slices.Clone(Measures), func(m Measure) bool { return len(m.Values(results).After) == 0 })
}

// WriteCSV writes one row for each setting and seed: its scores before and after, and the reference's.
func WriteCSV(w io.Writer, results []Result) error {
	out := csv.NewWriter(w)
	line := []string{"setting", "seed", "steps"}
	for _, m := range Measures {
		line = append(line, m.Name+"_before", m.Name+"_after", m.Name+"_reference")
	}
	if err := out.Write(append(line, "seconds_a_step", "share_of_the_penalty")); err != nil {
		return err
	}
	number := func(x *float64) string {
		if x == nil {
			return ""
		}
		return strconv.FormatFloat(*x, 'g', -1, 64)
	}
	for _, r := range results {
		line := []string{r.Setting, strconv.FormatUint(r.Seed, 10), strconv.Itoa(r.Steps)}
		for _, m := range Measures {
			for _, s := range []*Score{r.Before, r.After, r.Reference} {
				if s == nil {
					line = append(line, "")
				} else {
					line = append(line, number(m.of(s)))
				}
			}
		}
		if err := out.Write(append(line, number(&r.Seconds), number(&r.Share))); err != nil {
			return err
		}
	}
	out.Flush()
	return out.Error()
}

// Print writes a table for a person: of one setting its scores before and after, of several a line for each; means over
// the seeds, with standard deviations of more than one.
func Print(w io.Writer, results []Result) error {
	groups := BySetting(results)
	switch len(groups) {
	case 0:
		return nil
	case 1:
		return printOne(w, groups[0])
	}
	return printMany(w, groups)
}

// BySetting parts results by their settings, in order.
func BySetting(results []Result) [][]Result {
	var groups [][]Result
	for i, r := range results {
		if i == 0 || r.Setting != results[i-1].Setting {
			groups = append(groups, nil)
		}
		last := len(groups) - 1
		groups[last] = append(groups[last], r)
	}
	return groups
}

// Values are one measure's over the seeds; Gap is the share of the distance to the reference that training closed, in
// percent. Reference and Gap are those of accuracies.
type Values struct{ Before, After, Reference, Gap []float64 }

// Values takes a measure of the results of one setting.
func (m *Measure) Values(results []Result) (v Values) {
	for _, r := range results {
		if r.After == nil || m.of(r.Before) == nil || m.of(r.After) == nil {
			continue
		}
		before, after := *m.of(r.Before), *m.of(r.After)
		v.Before, v.After = append(v.Before, before), append(v.After, after)
		if x := m.of(r.Reference); x != nil && m.accuracy {
			v.Reference = append(v.Reference, *x)
			if *x != before {
				v.Gap = append(v.Gap, 100*(after-before)/(*x-before))
			}
		}
	}
	return v
}

func printOne(w io.Writer, results []Result) error {
	if results[0].After != nil {
		if _, err := fmt.Fprintf(w, "%-10s  %-15s  %-15s  %-15s  %s\n", "held out", "before", "after", "reference", "of the gap"); err != nil {
			return err
		}
	}
	for _, m := range Measured(results) {
		v := m.Values(results)
		if _, err := fmt.Fprintf(w, "%-10s  %-15s  %-15s  %-15s  %s\n", m.Name, Spread(v.Before, 3), Spread(v.After, 3), Spread(v.Reference, 3), Percent(v.Gap)); err != nil {
			return err
		}
	}
	seconds, shares := make([]float64, len(results)), make([]float64, len(results))
	for i, r := range results {
		seconds[i], shares[i] = r.Seconds*1e3, 100*r.Share
	}
	meanSeconds, _ := meanAndDeviation(seconds)
	meanShare, _ := meanAndDeviation(shares)
	_, err := fmt.Fprintf(w, "%s of %d steps, %.1f ms each, %.0f %% of that in the penalty\n", seeds(results), results[0].Steps, meanSeconds, meanShare)
	return err
}

func printMany(w io.Writer, groups [][]Result) error {
	width := len("reference")
	for _, g := range groups {
		width = max(width, utf8.RuneCountInString(g[0].Setting))
	}
	line := func(name string, cells []string) error {
		text := fmt.Sprintf("%-*s", width, name)
		for _, c := range cells {
			text += fmt.Sprintf("  %-13s", c)
		}
		_, err := fmt.Fprintln(w, strings.TrimRight(text, " "))
		return err
	}
	measures := Measured(groups[0])
	var head []string
	for i, m := range measures {
		if head = append(head, m.Name); i == 0 {
			head = append(head, "of the gap")
		}
	}
	err := line("held out", append(head, "ms a step"))
	cells := func(g []Result, of func(Values) []float64, gap bool) (out []string) {
		for i, m := range measures {
			v := m.Values(g)
			out = append(out, Spread(of(v), 3))
			if i == 0 && gap {
				out = append(out, Percent(v.Gap))
			} else if i == 0 {
				out = append(out, "")
			}
		}
		return out
	}
	if groups[0][0].After != nil {
		err = errors.Join(err, line("before", cells(groups[0], func(v Values) []float64 { return v.Before }, false)),
			line("reference", cells(groups[0], func(v Values) []float64 { return v.Reference }, false)))
	}
	for _, g := range groups {
		var seconds []float64
		for _, r := range g {
			seconds = append(seconds, 1e3*r.Seconds)
		}
		err = errors.Join(err, line(g[0].Setting, append(cells(g, func(v Values) []float64 { return v.After }, true), Spread(seconds, 1))))
	}
	_, e := fmt.Fprintf(w, "%d settings, %s of each\n", len(groups), seeds(groups[0]))
	return errors.Join(err, e)
}

func seeds(results []Result) string {
	if len(results) == 1 {
		return "one seed"
	}
	return fmt.Sprintf("%d seeds", len(results))
}

// Percent writes shares as Spread does; nothing where there are none.
func Percent(v []float64) string {
	if len(v) == 0 {
		return ""
	}
	return Spread(v, 0) + " %"
}

// Spread writes a mean and, of more than one number, the standard deviation.
func Spread(v []float64, digits int) string {
	if len(v) == 0 {
		return ""
	}
	mean, deviation := meanAndDeviation(v)
	if len(v) == 1 {
		return fmt.Sprintf("%.*f", digits, mean)
	}
	return fmt.Sprintf("%.*f ± %.*f", digits, mean, digits, deviation)
}

// meanAndDeviation returns the mean and the standard deviation of a sample.
func meanAndDeviation(v []float64) (mean, deviation float64) {
	for _, x := range v {
		mean += x / float64(len(v))
	}
	for _, x := range v {
		deviation += (x - mean) * (x - mean)
	}
	if len(v) > 1 {
		deviation = math.Sqrt(deviation / float64(len(v)-1))
	}
	return mean, deviation
}
