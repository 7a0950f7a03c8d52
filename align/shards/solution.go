package shards

import (
	"context"
	"fmt"
	"strings"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/align/compare"
)

// directionsHeader has the solution with the vectors and the mean in the body.
type directionsHeader struct {
	cover
	Moments  string           `json:"moments"` // digest
	Features int              `json:"features"`
	Solution compare.Solution `json:"solution"`
}

// directions is a file of directions that was read.
type directions struct {
	cover
	moments string
	compare.Solution
}

// Spectrum finds the directions from the moments of all shards.
func (p *Plan) Spectrum(ctx context.Context, f File) ([]byte, error) {
	c, m, err := p.all(f)
	if err != nil {
		return nil, err
	}
	s, err := compare.Solve(ctx, &p.Plan, m)
	if err != nil {
		return nil, err
	}
	h := directionsHeader{cover: *c, Moments: digest(f.Data), Features: m.Dim(), Solution: *s}
	d := &h.Solution.Directions
	body := append64(append64(nil, d.Vectors), d.Mean)
	d.Vectors, d.Mean = nil, nil
	return encode(KindDirections, &h, body)
}

// all reads moments that must be those of all shards.
func (p *Plan) all(f File) (*cover, *compare.Moments, error) {
	m, err := parseMoments(f)
	if err != nil {
		return nil, nil, err
	}
	if err := m.belongs(f, p); err != nil {
		return nil, nil, err
	}
	if names := m.missing(p); names != "" {
		return nil, nil, inputErrorf("shards: %s lacks %s", f.Name, names)
	}
	sum, ok := m.tree.Whole()
	if !ok {
		return nil, nil, f.malformed("its parts are not added up")
	}
	if d := [2]int{p.Maps[0].Features(), p.Maps[1].Features()}; sum.Dims != d || sum.N != p.N {
		return nil, nil, f.malformed("it has %d rows of %v features, the plan %d of %v", sum.N, sum.Dims, p.N, d)
	}
	return &m.cover, sum, nil
}

func parseDirections(f File) (*directions, error) {
	var h directionsHeader
	body, err := f.decode(KindDirections, &h)
	if err != nil {
		return nil, err
	}
	if err := h.check(f); err != nil {
		return nil, err
	}
	d := &h.Solution.Directions
	k := len(d.Values)
	koda := 0
	if h.Solution.Koda != nil {
		koda = len(h.Solution.Koda.Directions)
	}
	if len(h.Seen) != h.Total || k > maxDim || h.Features < 1 || h.Features > 2*maxDim || h.Solution.Spec < 0 ||
		h.Solution.Spec != k-koda || d.Positive < 0 || d.Positive > h.Solution.Spec || d.N < 1 || h.Solution.Floor < 0 {
		return nil, f.malformed("its numbers of directions, features or shards do not fit together")
	}
	if len(body) != 8*(k+1)*h.Features {
		return nil, f.malformed("its arrays have %d bytes, not %d", len(body), 8*(k+1)*h.Features)
	}
	d.Vectors, d.Mean = make([]float64, k*h.Features), make([]float64, h.Features)
	if body, err = take64(d.Vectors, body); err == nil {
		_, err = take64(d.Mean, body)
	}
	if err != nil {
		return nil, f.malformed("%v", err)
	}
	return &directions{h.cover, h.Moments, h.Solution}, nil
}

// Conclusion is what Conclude needs beside the plan.
type Conclusion struct {
	Moments, Directions, Scores File // of all shards
	// Input has names of samples, and rows for the permutation null and the validation: a few thousand are read. Without
	// rows there is neither.
	Input    compare.Input
	Backend  align.Backend
	Progress func(stage string, done, total int)
}

// Conclude gives the result of the two passes: that of compare.Run over the same shards, without Theorem 1.
func (p *Plan) Conclude(ctx context.Context, c Conclusion) (*compare.Result, error) {
	covered, m, err := p.all(c.Moments)
	if err != nil {
		return nil, err
	}
	d, err := parseDirections(c.Directions)
	if err != nil {
		return nil, err
	}
	if err := d.belongs(c.Directions, p); err != nil {
		return nil, err
	}
	if d.moments != digest(c.Moments.Data) || len(d.Solution.Directions.Mean) != m.Dim() || d.Solution.Directions.N != m.N {
		return nil, inputErrorf("shards: %s was not made from %s", c.Directions.Name, c.Moments.Name)
	}
	s, err := parseScores(c.Scores)
	if err != nil {
		return nil, err
	}
	if err := s.belongs(c.Scores, p); err != nil {
		return nil, err
	}
	if s.Pass != digest(c.Directions.Data) || s.directions != len(d.Solution.Directions.Values) || s.features != m.Dim() {
		return nil, inputErrorf("shards: %s has not the scores of %s", c.Scores.Name, c.Directions.Name)
	}
	if names := s.missing(p); names != "" {
		return nil, inputErrorf("shards: %s lacks %s", c.Scores.Name, names)
	}
	sum, ok := s.tree.Whole()
	if !ok {
		return nil, c.Scores.malformed("its parts are not added up")
	}
	for i, seen := range s.Seen {
		if err := changed(covered.Seen[i], seen); err != nil {
			return nil, err
		}
	}
	for k := range sum.High {
		for _, list := range [][]compare.Entry{sum.High[k], sum.Low[k]} {
			for _, e := range list {
				if e.Index >= p.N {
					return nil, c.Scores.malformed("it lists sample %d of %d", e.Index, p.N)
				}
			}
		}
	}
	r, err := compare.Conclude(ctx, &p.Plan, m, &d.Solution, sum, c.Input, c.Backend, c.Progress)
	if err != nil {
		return nil, err
	}
	r.Warnings = append(r.Warnings, p.warnings(covered, &s.cover)...)
	return r, nil
}

// warnings says what is worth knowing of the shards.
func (p *Plan) warnings(first, second *cover) []string {
	out := []string{"Theorem 1, the sizes of groups and an approximation's residuals are left out over shards: they need a third pass over the rows"}
	if isa := first.ISA; len(isa) > 1 || len(second.ISA) > 1 {
		out = append(out, fmt.Sprintf("the shards were computed with %s, and %s: where other machines take other shards, the last digits are others",
			strings.Join(isa, " and "), strings.Join(second.ISA, " and ")))
	}
	seen := map[[3]uint32]Seen{}
	for _, s := range first.Seen {
		key := [3]uint32{s.Student, s.Reference, uint32(s.Rows)}
		if other, twice := seen[key]; twice {
			out = append(out, fmt.Sprintf("%s and %s have the same rows", shardName(other.Shard, other.Name), shardName(s.Shard, s.Name)))
			break
		}
		seen[key] = s
	}
	return out
}
