package shards

import (
	"context"
	"math"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/align/compare"
)

// Shard is one shard of both embeddings: row i of the one and of the other belong to the same sample.
type Shard struct {
	Student   string `json:"student"` // names of files, as package features takes them
	Reference string `json:"reference"`
	Rows      int    `json:"rows"`
}

// Plan says which shards there are, in which order, and what is fixed before the first pass.
type Plan struct {
	compare.Plan
	Shards []Shard
	digest string
	first  []int // each shard's first row in the data set
}

// NewPlan resolves the settings for shards, whose names are those of the files of each side. It reads only the few rows
// that bandwidths, landmarks and centring need. Theorem 1 is left out of the settings.
func NewPlan(ctx context.Context, rows [2]compare.Sharded, names [2][]string, o compare.Options, b align.Backend) (*Plan, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	o.Certify, o.Threads, o.Device = false, 0, align.DefaultConfig().Device
	p := &Plan{}
	counts := [2][]int{rows[0].Shards(), rows[1].Shards()}
	if a, c := len(counts[0]), len(counts[1]); a != c {
		return nil, inputErrorf("shards: the student has %d shards and the reference %d; both must be divided alike", a, c)
	}
	for side := range names {
		seen := map[string]bool{}
		for _, name := range names[side] {
			if seen[name] {
				return nil, inputErrorf("shards: %s is given twice", name)
			}
			seen[name] = true
		}
	}
	for i, n := range counts[0] {
		if m := counts[1][i]; m != n {
			return nil, inputErrorf("shards: shard %d has %d rows in %s, but %d in %s; both must hold the same samples", i, n, names[0][i], m, names[1][i])
		}
		p.Shards = append(p.Shards, Shard{names[0][i], names[1][i], n})
	}
	made, err := compare.NewPlan(ctx, [2]compare.Rows{rows[0], rows[1]}, o, b)
	if err != nil {
		return nil, err
	}
	p.Plan = *made
	if err := p.AcrossShards(); err != nil {
		return nil, err
	}
	data, err := p.Encode()
	if err != nil {
		return nil, err
	}
	p.begin(data)
	return p, nil
}

func (p *Plan) begin(data []byte) {
	p.digest = digest(data)
	at := 0
	for _, s := range p.Shards {
		p.first = append(p.first, at)
		at += s.Rows
	}
}

// planHeader is the header of a plan's file.
type planHeader struct {
	Options compare.Options `json:"options"`
	N       int             `json:"n"`
	Maps    [2]planMap      `json:"maps"`
	Shards  []Shard         `json:"shards"`
	Notes   []string        `json:"notes,omitempty"`
}

// planMap is a compare.Map with lengths for its arrays.
type planMap struct {
	Kernel align.Kernel        `json:"kernel"`
	Dim    int                 `json:"dim"`
	Sigma  float64             `json:"sigma"`
	Method align.Approximation `json:"method"`
	Rank   int                 `json:"rank"`
	Basis  int                 `json:"basis"`
	Whiten int                 `json:"whiten"`
	Shift  int                 `json:"shift"`
}

// Encode writes the plan's file.
func (p *Plan) Encode() ([]byte, error) {
	h := planHeader{Options: p.Options, N: p.N, Shards: p.Shards, Notes: p.Notes}
	var body []byte
	for side, m := range p.Maps {
		h.Maps[side] = planMap{m.Kernel, m.Dim, m.Sigma, m.Method, m.Rank, len(m.Basis), len(m.Whiten), len(p.Shift[side])}
		for _, values := range [][]float32{m.Basis, m.Whiten, p.Shift[side]} {
			body = append32(body, values)
		}
	}
	return encode(KindPlan, &h, body)
}

// ParsePlan reads the file of a plan.
func ParsePlan(f File) (*Plan, error) {
	var h planHeader
	body, err := f.decode(KindPlan, &h)
	if err != nil {
		return nil, err
	}
	p := &Plan{Plan: compare.Plan{Options: h.Options, N: h.N, Notes: h.Notes}, Shards: h.Shards}
	if err := h.Options.Validate(); err != nil {
		return nil, f.malformed("%v", err)
	}
	if len(h.Shards) < 1 || len(h.Shards) > maxShards {
		return nil, f.malformed("it has %d shards", len(h.Shards))
	}
	n := 0
	for i, s := range h.Shards {
		if s.Rows < 1 || s.Rows > math.MaxInt32 {
			return nil, f.malformed("shard %d has %d rows", i, s.Rows)
		}
		n += s.Rows
	}
	if n != h.N {
		return nil, f.malformed("its shards have %d rows, not %d", n, h.N)
	}
	want := 0
	for side := range h.Maps {
		m := &h.Maps[side]
		if err := m.check(&h.Options, side); err != "" {
			return nil, f.malformed("%s", err)
		}
		if most := len(body) / 4; m.Basis > most || m.Whiten > most || m.Shift > most {
			return nil, f.malformed("its arrays are longer than it is")
		}
		want += 4 * (m.Basis + m.Whiten + m.Shift)
	}
	if len(body) != want {
		return nil, f.malformed("its arrays have %d bytes, not %d", len(body), want)
	}
	for side, m := range h.Maps {
		to := &p.Maps[side]
		*to = compare.Map{Kernel: m.Kernel, Dim: m.Dim, Sigma: m.Sigma, Method: m.Method, Rank: m.Rank}
		for _, a := range []struct {
			to    *[]float32
			count int
		}{{&to.Basis, m.Basis}, {&to.Whiten, m.Whiten}, {&p.Shift[side], m.Shift}} {
			if a.count == 0 {
				continue
			}
			if *a.to, body, err = take32(a.count, body); err != nil {
				return nil, f.malformed("%v", err)
			}
		}
	}
	if err := p.AcrossShards(); err != nil {
		return nil, f.malformed("%v", err)
	}
	p.begin(f.Data)
	return p, nil
}

// check says what is wrong with the map of a side, "" for nothing.
func (m *planMap) check(o *compare.Options, side int) string {
	features := m.Dim
	switch kernel := o.KernelOf(side); {
	case m.Kernel != kernel || m.Dim < 1 || m.Dim > maxDim || m.Basis < 0 || m.Whiten < 0 || m.Shift < 0 || m.Rank < 0:
		return "its feature maps are not those of its settings"
	case !kernel.NeedsSigma():
		if m.Basis != 0 || m.Whiten != 0 || m.Rank != 0 {
			return "a " + string(kernel) + " kernel has no basis"
		}
	case !(m.Sigma > 0) || math.IsInf(m.Sigma, 0) || m.Method != o.Approximation || m.Basis < m.Dim || m.Basis%m.Dim != 0 || m.Basis/m.Dim > maxDim:
		return "its basis is not that of its settings"
	case m.Method == align.ApproximationNystrom:
		if features = m.Rank; m.Rank < 1 || m.Rank > m.Basis/m.Dim || m.Whiten != m.Basis/m.Dim*m.Rank {
			return "its landmarks are not those of its settings"
		}
	case !m.Method.Fourier() || m.Whiten != 0 || m.Rank != 0:
		return "its frequencies are not those of its settings"
	default:
		features = 2 * (m.Basis / m.Dim)
	}
	if m.Shift != 0 && m.Shift != features || m.Shift != 0 != o.Center {
		return "its shift is not that of its settings"
	}
	return ""
}

// name calls a shard in messages.
func (p *Plan) name(shard int) string { return shardName(shard, p.Shards[shard].Student) }
