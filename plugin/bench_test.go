package plugin

import (
	"testing"

	"github.com/specalign/specalign/align"
)

// BenchmarkStep measures what a step costs beside the engine's own work: messages, checks and the saved state. The
// shapes are small, so that copies and the engine hardly count.
func BenchmarkStep(b *testing.B) {
	_, socket := serve(b, goDevices())
	cfg := align.DefaultConfig()
	cfg.Objective = align.ObjectiveFrobenius
	s := open(b, dial(b, socket), cfg)
	x, y, grad := features(8, 16, 1), features(8, 16, 2), make([]float32, 8*16)
	engine := 0.0
	for b.Loop() {
		r, err := s.Step(b.Context(), x, y, grad)
		if err != nil {
			b.Fatal(err)
		}
		engine += r.GetSeconds()
	}
	overhead := b.Elapsed().Seconds() - engine
	b.ReportMetric(overhead/float64(b.N)*1e6, "overhead-µs/op")
	b.ReportMetric(overhead/engine, "overhead/engine")
}
