package shards

import (
	"math"

	"github.com/specalign/specalign/align/compare"
)

type scoresHeader struct {
	cover
	Directions int          `json:"directions"`
	Features   int          `json:"features"` // D
	Samples    int          `json:"samples"`  // entries kept at either end
	Parts      []scoresPart `json:"parts"`
}

type scoresPart struct {
	partHeader
	High [][]compare.Entry `json:"high"`
	Low  [][]compare.Entry `json:"low"`
}

// scores is a file of scores that was read.
type scores struct {
	cover
	directions, features, samples int
	tree                          *compare.Tree[*compare.Scores]
}

func newScoresTree(shards, samples int) *compare.Tree[*compare.Scores] {
	return compare.NewTree(shards, func(to, from *compare.Scores) error { to.Merge(from, samples); return nil })
}

func encodeScores(c *cover, directions, features, samples int, tree *compare.Tree[*compare.Scores]) ([]byte, error) {
	h := scoresHeader{cover: *c, Directions: directions, Features: features, Samples: samples}
	var body []byte
	for _, p := range sorted(tree) {
		s := p.Sum
		h.Parts = append(h.Parts, scoresPart{partHeader{p.Level, p.Index, p.Children, s.N}, s.High, s.Low})
		body = append64(append64(body, s.Sum), s.Norm)
		for _, image := range s.Image {
			body = append64(body, image)
		}
	}
	return encode(KindScores, &h, body)
}

func parseScores(f File) (*scores, error) {
	var h scoresHeader
	body, err := f.decode(KindScores, &h)
	if err != nil {
		return nil, err
	}
	if err := h.check(f); err != nil {
		return nil, err
	}
	if h.Directions < 0 || h.Directions > maxDim || h.Features < 1 || h.Features > 2*maxDim || h.Samples < 1 {
		return nil, f.malformed("it has %d directions of %d features, and %d samples", h.Directions, h.Features, h.Samples)
	}
	each := 8 * h.Directions * (2 + h.Features)
	if len(body) != each*len(h.Parts) {
		return nil, f.malformed("its arrays have %d bytes, not %d for each of %d parts", len(body), each, len(h.Parts))
	}
	out := &scores{h.cover, h.Directions, h.Features, h.Samples, newScoresTree(h.Total, h.Samples)}
	headers, sums := []partHeader{}, []*compare.Scores{}
	for _, p := range h.Parts {
		if len(p.High) != h.Directions || len(p.Low) != h.Directions {
			return nil, f.malformed("it lists the samples of %d and %d directions, not of %d", len(p.High), len(p.Low), h.Directions)
		}
		for k := range p.High {
			if !ordered(p.High[k], p.N, h.Samples, 1) || !ordered(p.Low[k], p.N, h.Samples, -1) {
				return nil, f.malformed("the samples of direction %d are not in order", k)
			}
		}
		s := &compare.Scores{
			N: p.N, High: p.High, Low: p.Low, Sum: make([]float64, h.Directions), Norm: make([]float64, h.Directions),
			Image: make([][]float64, h.Directions),
		}
		arrays := [][]float64{s.Sum, s.Norm}
		for k := range s.Image {
			s.Image[k] = make([]float64, h.Features)
			arrays = append(arrays, s.Image[k])
		}
		for _, a := range arrays {
			if body, err = take64(a, body); err != nil {
				return nil, f.malformed("%v", err)
			}
		}
		for k, v := range s.Norm {
			if v < 0 {
				return nil, f.malformed("direction %d has the squared norm %v", k, v)
			}
		}
		headers, sums = append(headers, p.partHeader), append(sums, s)
	}
	return out, placed(f, &h.cover, out.tree, headers, sums)
}

// ordered tells whether a list is one that a pass gives: by falling sign times score, then by index.
func ordered(list []compare.Entry, n, most int, sign float64) bool {
	if len(list) != min(n, most) {
		return false
	}
	for i, e := range list {
		if e.Index < 0 || e.Index > math.MaxInt64/2 {
			return false
		}
		if i > 0 {
			before := list[i-1]
			if sign*e.Score > sign*before.Score || e.Score == before.Score && e.Index <= before.Index {
				return false
			}
		}
	}
	return true
}
