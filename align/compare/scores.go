package compare

import (
	"cmp"
	"context"
	"math"
	"slices"

	"github.com/specalign/specalign/align"
)

// Scores is what the second pass finds over a range of rows: for every direction the samples with the largest and the
// smallest entries of v, and what measures the eigenpair.
type Scores struct {
	N     int         `json:"n"`
	High  [][]Entry   `json:"high"`  // for each direction: by falling score
	Low   [][]Entry   `json:"low"`   // by rising score
	Sum   []float64   `json:"sum"`   // Σ v_i
	Norm  []float64   `json:"norm"`  // Σ v_i²
	Image [][]float64 `json:"image"` // Φᵀ v, (D) each, of uncentred features

	All [][]float32 `json:"-"` // v itself, where it was asked for
}

// Entry is one entry of v.
type Entry struct {
	Index int     `json:"index"`
	Score float64 `json:"score"`
}

// Merge joins the scores of the rows that follow.
func (s *Scores) Merge(o *Scores, samples int) {
	s.N += o.N
	for k := range s.High {
		s.High[k] = best(append(s.High[k], o.High[k]...), samples, 1)
		s.Low[k] = best(append(s.Low[k], o.Low[k]...), samples, -1)
		s.Sum[k] += o.Sum[k]
		s.Norm[k] += o.Norm[k]
		for j, v := range o.Image[k] {
			s.Image[k][j] += v
		}
		if s.All != nil {
			s.All[k] = append(s.All[k], o.All[k]...)
		}
	}
}

// best keeps the first entries by falling sign times score, by index where they tie.
func best(entries []Entry, count int, sign float64) []Entry {
	slices.SortFunc(entries, func(a, b Entry) int {
		return cmp.Or(cmp.Compare(sign*b.Score, sign*a.Score), cmp.Compare(a.Index, b.Index))
	})
	return entries[:min(count, len(entries))]
}

// Scores computes v = (Φ - 1 meanᵀ) u / √n for the rows first .. end-1 and all directions.
func (w *Worker) Scores(ctx context.Context, d *Directions, first, end int, keep bool) (*Scores, error) {
	return w.scores(ctx, d, first, end, keep, w.plan.Options.Samples)
}

// scores lists that many samples.
func (w *Worker) scores(ctx context.Context, d *Directions, first, end int, keep bool, samples int) (*Scores, error) {
	k := len(d.Values)
	s := newScores(k, w.plan.dims(), keep)
	for at := first; at < end; at += BlockRows {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		count := min(BlockRows, end-at)
		phi, err := w.load(at, count)
		if err != nil {
			return nil, err
		}
		if k > 0 {
			v, err := w.project(d, phi)
			if err != nil {
				return nil, err
			}
			if err := w.addImage(s, phi, v); err != nil {
				return nil, err
			}
			s.add(v, at, samples)
		}
		s.N += count
		w.step(count)
	}
	return s, nil
}

func newScores(k int, dims [2]int, keep bool) *Scores {
	s := &Scores{High: make([][]Entry, k), Low: make([][]Entry, k), Sum: make([]float64, k), Norm: make([]float64, k), Image: make([][]float64, k)}
	for i := range k {
		s.Image[i] = make([]float64, dims[0]+dims[1])
	}
	if keep {
		s.All = make([][]float32, k)
	}
	return s
}

// project computes the entries of all v for a block, (k, count), in host memory.
func (w *Worker) project(d *Directions, phi [2]align.Matrix) (align.Matrix, error) {
	k, count := len(d.Values), phi[0].Rows
	v, err := w.onHost("scores", k, count)
	if err != nil {
		return v, err
	}
	dim := phi[0].Cols + phi[1].Cols
	scale := 1 / math.Sqrt(float64(d.N))
	var part [2]align.Matrix
	at := 0
	for side, p := range phi {
		u, err := w.onHost("directions"+sideName[side], p.Cols, k)
		if err != nil {
			return v, err
		}
		for i := range k {
			for j := range p.Cols {
				u.Data[j*u.Stride+i] = float32(d.Vectors[i*dim+at+j] * scale)
			}
		}
		if u, err = w.up("directions"+sideName[side], u); err != nil {
			return v, err
		}
		if part[side], err = w.memory.Get("projection"+sideName[side], count, k); err != nil {
			return v, err
		}
		if err := w.b.MatMul(part[side], p, u, 1); err != nil {
			return v, err
		}
		if part[side], err = w.down("projection"+sideName[side], part[side]); err != nil {
			return v, err
		}
		at += p.Cols
	}
	for i := range k {
		offset := dot(d.Mean, d.Vectors[i*dim:(i+1)*dim]) * scale
		r := row(v, i)
		for j := range r {
			r[j] = float32(float64(part[0].Data[j*part[0].Stride+i]) + float64(part[1].Data[j*part[1].Stride+i]) - offset)
		}
	}
	return v, nil
}

// addImage adds Φᵀ v of a block.
func (w *Worker) addImage(s *Scores, phi [2]align.Matrix, v align.Matrix) error {
	v, err := w.up("scores", v)
	if err != nil {
		return err
	}
	at := 0
	for side, p := range phi {
		t, err := w.memory.Get("image"+sideName[side], v.Rows, p.Cols)
		if err != nil {
			return err
		}
		if err := w.b.MatMul(t, v, p, 1); err != nil {
			return err
		}
		if t, err = w.down("image"+sideName[side], t); err != nil {
			return err
		}
		for i := range v.Rows {
			to := s.Image[i][at:]
			for j, x := range row(t, i) {
				to[j] += float64(x)
			}
		}
		at += p.Cols
	}
	return nil
}

// add takes the scores of a block whose first row is at.
func (s *Scores) add(v align.Matrix, at, samples int) {
	for k := range v.Rows {
		r := row(v, k)
		for i, x := range r {
			f := float64(x)
			s.Sum[k] += f
			s.Norm[k] += f * f
			s.High[k] = offer(s.High[k], Entry{at + i, f}, samples, 1)
			s.Low[k] = offer(s.Low[k], Entry{at + i, f}, samples, -1)
		}
		if s.All != nil {
			s.All[k] = append(s.All[k], r...)
		}
	}
}

// offer puts an entry where it belongs in a sorted list of at most count.
func offer(list []Entry, e Entry, count int, sign float64) []Entry {
	if count == 0 {
		return list
	}
	if len(list) == count && sign*e.Score <= sign*list[count-1].Score {
		return list
	}
	at, _ := slices.BinarySearchFunc(list, e, func(a, b Entry) int {
		return cmp.Or(cmp.Compare(sign*b.Score, sign*a.Score), cmp.Compare(a.Index, b.Index))
	})
	if len(list) == count {
		list = list[:count-1]
	}
	return slices.Insert(list, at, e)
}
