package experiment

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/internal/regular"
)

// Curve is a run's table of steps, thinned to means over equal stretches of them.
type Curve struct {
	Step          []float64 // the last of each stretch
	Loss, Penalty []float64 // Penalty is empty without one
}

// Curve reads the curve of a result's run: in folder dir of the plan, in so many stretches or fewer.
func (p *Plan) Curve(dir string, r Result, stretches int) (c Curve, err error) {
	folder := ""
	for _, cell := range p.Cells {
		if cell.Name == r.Setting {
			folder = cell.Folder
		}
	}
	path := filepath.Join(dir, folder, seedFolder(r.Seed), tableName)
	f, err := regular.Open(path)
	if err != nil {
		return c, &align.InputError{Err: err}
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	in := csv.NewReader(f)
	head, err := in.Read()
	if err != nil || !slices.Equal(head, columns) {
		return c, inputErrorf("%s is damaged: it does not begin with the names of its columns", path)
	}
	width := (r.Steps + stretches - 1) / stretches
	var loss, penalty float64
	for count := 1; ; count++ {
		line, err := in.Read()
		if errors.Is(err, io.EOF) {
			return c, nil
		}
		if err != nil {
			return c, inputErrorf("%s: %w", path, err)
		}
		value := func(column string) (x float64) {
			if text := line[slices.Index(columns, column)]; text != "" && err == nil {
				if x, err = strconv.ParseFloat(text, 64); err != nil {
					err = fmt.Errorf("line %d: %s is no number", count+1, column)
				}
			}
			return x
		}
		loss += value("loss")
		penalty += value("penalty")
		if err != nil {
			return c, inputErrorf("%s: %w", path, err)
		}
		if count%width == 0 || count == r.Steps {
			n := float64((count-1)%width + 1)
			c.Step, c.Loss = append(c.Step, float64(count)), append(c.Loss, loss/n)
			if line[slices.Index(columns, "penalty")] != "" {
				c.Penalty = append(c.Penalty, penalty/n)
			}
			loss, penalty = 0, 0
		}
	}
}

// seedFolder is the name of a run's folder in that of its experiment.
func seedFolder(seed uint64) string { return fmt.Sprintf("seed-%d", seed) }
