package aligntest_test

import (
	"testing"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/align/aligntest"
)

func threads(n int) func() align.Backend { return func() align.Backend { return align.NewGo(n) } }

func TestBackend(t *testing.T) { aligntest.Backend(t, threads(1)) }

func TestSession(t *testing.T) {
	aligntest.Session(t, threads(1))
}

func TestSameBits(t *testing.T) { aligntest.SameBits(t, threads(1), threads(2), threads(5)) }
