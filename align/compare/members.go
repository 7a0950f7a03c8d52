package compare

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/specalign/specalign/align"
)

// members are the samples of one group, the set I: those with at least half the median score of the samples listed.
type members struct {
	level   float64
	count   int
	inside  float64 // Σ v_i² over I
	drawn   []Entry // maxDrawn of them, every set of that size equally likely, in no order; all where there are no more
	rng     *rand.Rand
	classes map[string]int
	moments []float64 // Σ φ φᵀ over I, centred, (D, D); nil where it was not asked for
}

// newMembers begins to collect those of direction k.
func newMembers(s *Scores, k int, seed uint64) members {
	return members{
		level: levelOf(s.High[k]), classes: map[string]int{}, drawn: []Entry{}, rng: rand.New(rand.NewPCG(seed+uint64(k), streamMembers)),
	}
}

// levelOf returns the score from which on a sample belongs to the group.
func levelOf(list []Entry) float64 {
	if len(list) == 0 {
		return math.Inf(1)
	}
	return list[len(list)/2].Score / 2
}

// gatherRows is how many rows of a group are multiplied at a time.
const gatherRows = 1024

// gathered are the rows of a group that wait to be multiplied.
type gathered struct {
	phi  [2]align.Matrix // in host memory
	used int
	sum  *grams
}

// members finds the members of the directions first .. end-1, in one pass; with their moments where these are wanted.
func (w *Worker) members(ctx context.Context, d *Directions, s *Scores, labels []string, first, end int, wanted bool) ([]members, error) {
	out := make([]members, end-first)
	waiting := make([]gathered, end-first)
	dims := w.plan.dims()
	dim := dims[0] + dims[1]
	for k := range out {
		out[k] = newMembers(s, first+k, w.plan.Options.Seed)
		if !wanted {
			continue
		}
		out[k].moments = make([]float64, dim*dim)
		for side, c := range dims {
			m, err := w.alloc(gatherRows, c)
			if err != nil {
				return nil, err
			}
			defer w.free(m)
			waiting[k].phi[side] = m
		}
		var err error
		if waiting[k].sum, err = w.newGrams(out[k].moments, dim); err != nil {
			return nil, err
		}
		defer waiting[k].sum.free()
	}
	for at := 0; at < w.plan.N; at += BlockRows {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		count := min(BlockRows, w.plan.N-at)
		phi, err := w.load(at, count)
		if err != nil {
			return nil, err
		}
		v, err := w.project(d, phi)
		if err != nil {
			return nil, err
		}
		if wanted {
			if phi, err = w.featuresDown(phi); err != nil {
				return nil, err
			}
		}
		for k := range out {
			for i, x := range row(v, first+k) {
				if float64(x) < out[k].level {
					continue
				}
				out[k].add(float64(x), labels, at+i)
				if !wanted {
					continue
				}
				if err := w.gather(&waiting[k], phi, i, d.Mean); err != nil {
					return nil, err
				}
			}
		}
		w.step(count)
	}
	for k := range out {
		if wanted {
			if err := w.multiplyGathered(&waiting[k]); err != nil {
				return nil, err
			}
			if err := waiting[k].sum.end(); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

func (m *members) add(score float64, labels []string, index int) {
	m.count++
	m.inside += score * score
	// Reservoir sampling: what has come so far is in the reservoir with equal probability.
	if len(m.drawn) < maxDrawn {
		m.drawn = append(m.drawn, Entry{index, score})
	} else if at := m.rng.IntN(m.count); at < maxDrawn {
		m.drawn[at] = Entry{index, score}
	}
	if labels != nil {
		m.classes[labels[index]]++
	}
}

// gather copies one row's features, centred.
func (w *Worker) gather(g *gathered, phi [2]align.Matrix, i int, mean []float64) error {
	at := 0
	for side, p := range phi {
		to := row(g.phi[side], g.used)
		for j, x := range row(p, i) {
			to[j] = x - float32(mean[at+j])
		}
		at += p.Cols
	}
	if g.used++; g.used < gatherRows {
		return nil
	}
	return w.multiplyGathered(g)
}

func (w *Worker) multiplyGathered(g *gathered) error {
	if g.used == 0 {
		return nil
	}
	var phi [2]align.Matrix
	for side, m := range g.phi {
		var err error
		if phi[side], err = w.up("gathered"+sideName[side], firstRows(m, g.used)); err != nil {
			return err
		}
	}
	g.used = 0
	return g.sum.add(phi[0], phi[1])
}

// membersOf finds the members of groups whose scores are known.
func membersOf(v dense, s *Scores, labels []string, seed uint64) []members {
	out := make([]members, v.Rows)
	for k := range out {
		out[k] = newMembers(s, k, seed)
		for i, x := range v.row(k) {
			if x >= out[k].level {
				out[k].add(x, labels, i)
			}
		}
	}
	return out
}

// outside is |v outside I| / |v inside I|; nil where nothing is inside.
func (m *members) outside(norm float64) *float64 {
	if m.inside <= 0 {
		return nil
	}
	ratio := math.Sqrt(math.Max(norm-m.inside, 0) / m.inside)
	return &ratio
}

// composition turns counts of classes into shares, the largest first.
func (m *members) composition() []Share {
	out := []Share{}
	for label, c := range m.classes {
		out = append(out, Share{label, float64(c) / float64(m.count)})
	}
	slices.SortFunc(out, compareShares)
	return out
}
