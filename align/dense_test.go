package align

import (
	"context"
	"errors"
	"math"
	"testing"
	"time"
)

// TestCancelDense ends a solve under way: it returns at once, leaving its memory to what still runs.
func TestCancelDense(t *testing.T) {
	const n = 700
	var eig symmetric
	a := eig.matrix(n)
	for i := range a {
		a[i] = float64(i*i%1009) / 1009
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if err := eig.solve(ctx, n); !errors.Is(err, context.DeadlineExceeded) || eig.a != nil {
		t.Fatalf("a solve that was called off: %v", err)
	}
	b := eig.matrix(2)
	copy(b, []float64{0, 1, 1, 0})
	if err := eig.solve(context.Background(), 2); err != nil || math.Abs(eig.values[1]-1) > 1e-12 {
		t.Errorf("the solve after: %v, eigenvalues %v", err, eig.values)
	}
}

// TestCancelledSolvesDoNotPileUp: while those that were called off have the memory of all solves, another one waits, at
// most as long as its context.
func TestCancelledSolvesDoNotPileUp(t *testing.T) {
	const n = quickDense + 1
	var eig symmetric
	clear(eig.matrix(n))
	if err := solving.Acquire(t.Context(), solveMemory); err != nil { // as if they had it
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	err := eig.solve(ctx, n)
	solving.Release(solveMemory)
	if !errors.Is(err, context.DeadlineExceeded) || eig.values != nil {
		t.Errorf("there was no room: %v", err)
	}
	if err := eig.solve(t.Context(), n); err != nil {
		t.Error(err)
	}
}
