package experiment

import "github.com/specalign/specalign/align"

// affordable refuses a student or a step that may take more memory than there is: the kernel would end it halfway.
func (e *Experiment) affordable(d *dataset, available uint64) error {
	// Parameters, their gradients on the way and as a whole, and two moments; of each layer what it computes, the gradient of
	// that, and a copy. In float64, which cannot overflow.
	parameters, cells := e.Student.sizes(d.inputs.d)
	need := 4 * (5*parameters + 3*float64(e.Batch)*cells)
	if e.Rival == "" && (e.Weight > 0 || e.Ratio > 0) {
		need += float64(align.Memory(&e.Settings, e.Batch, [2]int{e.Student.Dim, d.reference.d}))
	}
	if need > float64(available) {
		const gib = 1 << 30
		return inputErrorf("a step of this student with batch %d may take %.1f GiB, and there are %.1f GiB; give a smaller student or batch", e.Batch, need/gib, float64(available)/gib)
	}
	return nil
}

// sizes returns how many parameters a student of rows of so many columns has, and how many numbers its layers compute for a
// row, convolutions with what they are unfolded into.
func (s *Student) sizes(columns int) (parameters, cells float64) {
	width := float64(columns)
	if s.Kind == "conv" {
		channels, height, across := s.image()
		for _, out := range s.Channels {
			height, across = halved(height), halved(across)
			unfolded := float64(channels * edge * edge)
			parameters += unfolded*float64(out) + float64(out)
			width = float64(out) * float64(height*across)
			cells += width + unfolded*float64(height*across)
			channels = out
		}
	}
	for _, h := range append(append([]int(nil), s.Hidden...), s.Dim) {
		parameters += (width + 1) * float64(h)
		width = float64(h)
		cells += width
	}
	return parameters, cells
}
