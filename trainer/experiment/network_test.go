package experiment

import (
	"math"
	"math/rand/v2"
	"testing"
	"unsafe"

	G "gorgonia.org/gorgonia"

	"github.com/specalign/specalign/align"
)

// plain computes a network's features and its head's values of one row in float64.
func plain(n *network, x []float64) (features, head []float64) {
	in := x
	rectified := func(v []float64) []float64 {
		for i := range v {
			v[i] = max(v[i], 0)
		}
		return v
	}
	if len(n.convs) > 0 {
		channels, height, width := n.student.image()
		for _, l := range n.convs {
			x, channels, height, width = convolved(l, x, channels, height, width)
			x = rectified(x)
		}
	}
	for i, l := range n.layers {
		w, b := l.w.Data().([]float32), l.b.Data().([]float32)
		out := make([]float64, len(b))
		for j := range out {
			out[j] = float64(b[j])
			for k, v := range x {
				out[j] += v * float64(w[k*len(b)+j])
			}
		}
		switch hidden := len(n.student.Hidden); {
		case i < hidden:
			out = rectified(out)
		case i == hidden:
			if n.student.Residual {
				for j := range out {
					out[j] += in[j]
				}
			}
			features = out
		default:
			head = out
		}
		x = out
	}
	return features, head
}

func convolved(l layer, x []float64, channels, height, width int) (out []float64, outs, rows, cols int) {
	w, b := l.w.Data().([]float32), l.b.Data().([]float32)
	outs, rows, cols = len(b), (height+1)/2, (width+1)/2
	for o := range outs {
		for i := range rows {
			for j := range cols {
				sum := float64(b[o])
				for c := range channels {
					for di := range 3 {
						for dj := range 3 {
							if y, z := 2*i+di-1, 2*j+dj-1; y >= 0 && y < height && z >= 0 && z < width {
								sum += x[(c*height+y)*width+z] * float64(w[((o*channels+c)*3+di)*3+dj])
							}
						}
					}
				}
				out = append(out, sum)
			}
		}
	}
	return out, outs, rows, cols
}

var students = map[string]Student{
	"linear":   {Kind: "linear", Dim: 5},
	"mlp":      {Kind: "mlp", Hidden: []int{9, 7}, Dim: 5},
	"residual": {Kind: "mlp", Hidden: []int{9}, Dim: 60, Residual: true},
	"conv":     {Kind: "conv", Image: []int{2, 5, 6}, Channels: []int{3, 4}, Hidden: []int{7}, Dim: 5},
}

// drawn returns a network all of whose parameters are normal numbers, and rows for it.
func drawn(s Student, task ends, count int) (*network, *rows) {
	rng := rand.New(rand.NewPCG(8, 9))
	net := newNetwork(s, 60, task, 1)
	for _, p := range net.parameters() {
		data := p.Data().([]float32)
		for i := range data {
			data[i] += float32(0.1 * rng.NormFloat64())
		}
	}
	x := &rows{n: count, d: 60}
	for range count * 60 {
		x.data = append(x.data, float32(rng.NormFloat64()))
	}
	return net, x
}

// TestForward holds features against float64 loops.
func TestForward(t *testing.T) {
	for name, s := range students {
		net, x := drawn(s, ends{}, 30)
		got, err := net.forward(x)
		if err != nil {
			t.Fatal(err)
		}
		for i := range x.n {
			want, _ := plain(net, wide(x.row(i)))
			for j, v := range want {
				if math.Abs(float64(got.row(i)[j])-v) > 1e-5*(1+math.Abs(v)) {
					t.Errorf("%s: row %d column %d: %v, want %v", name, i, j, got.row(i)[j], v)
				}
			}
		}
	}
}

func wide(v []float32) []float64 {
	out := make([]float64, len(v))
	for i, x := range v {
		out[i] = float64(x)
	}
	return out
}

// TestGradients holds the gradients of each task and the penalty with respect to every layer against central differences
// in random directions.
func TestGradients(t *testing.T) {
	for name, s := range students {
		gradients(t, name, s, func(*Experiment) {})
	}
	gradients(t, "contrastive", students["mlp"], func(e *Experiment) { e.Task = "contrastive" })
	gradients(t, "anchor", students["mlp"], func(e *Experiment) { e.Anchor = 2 })
	gradients(t, "ratio", students["linear"], func(e *Experiment) { e.Task, e.Ratio = "contrastive", 0.5 })
	for name := range rivals {
		gradients(t, name, students["linear"], func(e *Experiment) { e.Task, e.Weight, e.Rival = "none", 1, name })
	}
}

func gradients(t *testing.T, name string, s Student, set func(*Experiment)) {
	t.Run(name, func(t *testing.T) {
		const count, classes, pairs = 40, 3, 5
		e := defaults()
		e.Student, e.Batch, e.Task, e.Weight = s, count, "cross_entropy", 3
		set(e)
		var behind ends
		switch {
		case e.Task == "cross_entropy":
			behind = ends{Classes: classes}
		case e.Task == "contrastive":
			behind = ends{Pairs: pairs}
		case e.Rival == "regression":
			behind = ends{Regressed: 4}
		}
		net, x := drawn(s, behind, count)
		e.Settings = align.DefaultConfig()
		e.Settings.Objective = align.ObjectiveFrobenius
		rng := rand.New(rand.NewPCG(3, 4))
		d := &dataset{inputs: *x, reference: rows{n: count, d: 4}, classes: classes, pairs: rows{n: count, d: pairs}}
		batch := make([]int, count)
		for i := range count {
			batch[i] = i
			d.labels = append(d.labels, rng.IntN(classes))
			for range 4 {
				d.reference.data = append(d.reference.data, float32(rng.NormFloat64()))
			}
			for range pairs {
				d.pairs.data = append(d.pairs.data, float32(rng.NormFloat64()))
			}
		}
		m, err := newMachine(e, net, d)
		if err != nil {
			t.Fatal(err)
		}
		defer m.close()
		loss := func() float64 {
			if err := m.step(d, batch, e.Weight); err != nil {
				t.Fatal(err)
			}
			return scalar(m.loss)
		}
		if loss(); e.Anchor > 0 { // the features are those at the beginning, where the anchor has no gradient
			for i := range m.first.data {
				m.first.data[i] *= float32(1 - 2*(i%2))
			}
			loss()
		}
		var grads [][]float32
		for _, g := range m.grads {
			grads = append(grads, append([]float32(nil), g.Data().([]float32)...))
		}
		for i, p := range net.parameters() {
			data := p.Data().([]float32)
			was := append([]float32(nil), data...)
			size := 0.0
			for _, g := range grads[i] {
				size += float64(g) * float64(g)
			}
			size = math.Sqrt(size)
			direction := make([]float64, len(data)) // half the gradient's own, half random
			var slope, length float64
			for j := range direction {
				g := float64(grads[i][j])
				direction[j] = g/size + rng.NormFloat64()/math.Sqrt(float64(len(data)))
				slope += direction[j] * g
				length += direction[j] * direction[j]
			}
			at := func(step float64) float64 {
				for j := range data {
					data[j] = was[j] + float32(step*direction[j]/math.Sqrt(length))
				}
				return loss()
			}
			const h = 2e-3 // losses are known to 1e-7: differences to 1e-4; kinks of the ReLUs add as much
			want := (at(h) - at(-h)) / (2 * h)
			copy(data, was)
			if got := slope / math.Sqrt(length); math.Abs(got-want) > 1e-2*size+2e-4 {
				t.Errorf("parameter %d: slope %v, differences %v, gradient's norm %v", i, got, want, size)
			}
		}
	})
}

// TestAligned: whatever its size, an array of ones lies where gonum's sums begin alike.
func TestAligned(t *testing.T) {
	g := G.NewGraph()
	for n := range 40 {
		data := ones(g, 1, n%10+1).Value().Data().([]float32)
		if at := uintptr(unsafe.Pointer(unsafe.SliceData(data))); at%16 != 0 {
			t.Errorf("%d ones lie at %#x", len(data), at)
		}
	}
}
