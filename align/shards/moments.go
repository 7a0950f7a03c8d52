package shards

import (
	"github.com/specalign/specalign/align/compare"
)

type momentsHeader struct {
	cover
	Dims  [2]int        `json:"dims"` // D1, D2
	Parts []momentsPart `json:"parts"`
}

type momentsPart struct {
	partHeader
	ZeroRows [2]int     `json:"zero_rows"`
	Trace    [2]float64 `json:"trace"`
	Differ   bool       `json:"differ"`
}

// moments is a file of moments that was read.
type moments struct {
	cover
	tree *compare.Tree[*compare.Moments]
}

func encodeMoments(c *cover, tree *compare.Tree[*compare.Moments]) ([]byte, error) {
	h := momentsHeader{cover: *c}
	var body []byte
	for _, p := range sorted(tree) {
		m := p.Sum
		h.Dims = m.Dims
		h.Parts = append(h.Parts, momentsPart{partHeader{p.Level, p.Index, p.Children, m.N}, m.ZeroRows, m.Trace, m.Differ})
		d := m.Dim()
		for i := range d {
			body = append64(body, m.Gram[i*d:i*d+i+1])
		}
		body = append64(body, m.Sum)
	}
	return encode(KindMoments, &h, body)
}

func parseMoments(f File) (*moments, error) {
	var h momentsHeader
	body, err := f.decode(KindMoments, &h)
	if err != nil {
		return nil, err
	}
	if err := h.check(f); err != nil {
		return nil, err
	}
	if h.Dims[0] < 1 || h.Dims[1] < 1 || h.Dims[0] > maxDim || h.Dims[1] > maxDim {
		return nil, f.malformed("it has %v features", h.Dims)
	}
	d := h.Dims[0] + h.Dims[1]
	if want := 8 * (d*(d+1)/2 + d); len(body)%want != 0 || len(body)/want != len(h.Parts) {
		return nil, f.malformed("its arrays have %d bytes, not %d for each of %d parts", len(body), want, len(h.Parts))
	}
	out := &moments{h.cover, compare.NewTree(h.Total, (*compare.Moments).Merge)}
	headers, sums := []partHeader{}, []*compare.Moments{}
	for _, p := range h.Parts {
		m := compare.NewMoments(h.Dims[0], h.Dims[1])
		m.N, m.ZeroRows, m.Trace, m.Differ = p.N, p.ZeroRows, p.Trace, p.Differ
		for side := range 2 {
			if m.ZeroRows[side] < 0 || m.ZeroRows[side] > m.N || m.Trace[side] < 0 {
				return nil, f.malformed("%d of %d rows are zero, and the trace is %v", m.ZeroRows[side], m.N, m.Trace[side])
			}
		}
		for i := range d {
			if body, err = take64(m.Gram[i*d:i*d+i+1], body); err != nil {
				return nil, f.malformed("%v", err)
			}
			for j := range i {
				m.Gram[j*d+i] = m.Gram[i*d+j]
			}
		}
		if body, err = take64(m.Sum, body); err != nil {
			return nil, f.malformed("%v", err)
		}
		headers, sums = append(headers, p.partHeader), append(sums, m)
	}
	return out, placed(f, &h.cover, out.tree, headers, sums)
}
