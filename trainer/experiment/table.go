package experiment

import (
	"encoding/csv"
	"fmt"
	"io"
	"math"
	"strconv"
)

// ResultsName is the file in an experiment's folder with a row for each seed.
const ResultsName = "results.csv"

// measures are the columns of scores.
var measures = []struct {
	name string
	of   func(*Score) *float64
}{
	{"probe", func(s *Score) *float64 { return &s.Probe }},
	{"knn", func(s *Score) *float64 { return &s.KNN }},
	{"spec_diff", func(s *Score) *float64 { return s.SpecDiff }},
	{"cka", func(s *Score) *float64 { return s.CKA }},
	{"nngs", func(s *Score) *float64 { return &s.NNGS }},
}

// WriteCSV writes one row for each seed: its scores before and after, and the reference's.
func WriteCSV(w io.Writer, results []Result) error {
	out := csv.NewWriter(w)
	line := []string{"seed", "steps"}
	for _, m := range measures {
		line = append(line, m.name+"_before", m.name+"_after", m.name+"_reference")
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
		line := []string{strconv.FormatUint(r.Seed, 10), strconv.Itoa(r.Steps)}
		for _, m := range measures {
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

// Print writes a table over the seeds for a person: means, and standard deviations of more than one.
func Print(w io.Writer, results []Result) error {
	if len(results) == 0 {
		return nil
	}
	count := fmt.Sprintf("%d seeds", len(results))
	if len(results) == 1 {
		count = "one seed"
	}
	if _, err := fmt.Fprintf(w, "%-10s  %-15s  %-15s  %-15s  %s\n", "held out", "before", "after", "reference", "of the gap"); err != nil {
		return err
	}
	for _, m := range measures {
		var before, after, reference, closed []float64
		for _, r := range results {
			if r.After == nil || m.of(r.Before) == nil || m.of(r.After) == nil {
				continue
			}
			b, a := *m.of(r.Before), *m.of(r.After)
			before, after = append(before, b), append(after, a)
			if c := m.of(r.Reference); c != nil {
				reference = append(reference, *c)
				if gap := *c - b; gap != 0 {
					closed = append(closed, (a-b)/gap)
				}
			}
		}
		if len(after) == 0 {
			continue
		}
		share := ""
		if m.name == "probe" || m.name == "knn" { // the others measure a distance to the reference, and it has none
			if mean, _ := meanAndDeviation(closed); len(closed) > 0 {
				share = fmt.Sprintf("%.0f %%", 100*mean)
			}
		} else {
			reference = nil
		}
		if _, err := fmt.Fprintf(w, "%-10s  %-15s  %-15s  %-15s  %s\n", m.name, spread(before), spread(after), spread(reference), share); err != nil {
			return err
		}
	}
	seconds, shares := make([]float64, len(results)), make([]float64, len(results))
	for i, r := range results {
		seconds[i], shares[i] = r.Seconds*1e3, 100*r.Share
	}
	meanSeconds, _ := meanAndDeviation(seconds)
	meanShare, _ := meanAndDeviation(shares)
	_, err := fmt.Fprintf(w, "%s of %d steps, %.1f ms each, %.0f %% of that in the penalty\n", count, results[0].Steps, meanSeconds, meanShare)
	return err
}

// spread is a mean with its standard deviation.
func spread(v []float64) string {
	if len(v) == 0 {
		return ""
	}
	mean, deviation := meanAndDeviation(v)
	if len(v) == 1 {
		return fmt.Sprintf("%.3f", mean)
	}
	return fmt.Sprintf("%.3f ± %.3f", mean, deviation)
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
