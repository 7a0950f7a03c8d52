package aligntest_test

import (
	"testing"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/align/aligntest"
)

func TestBackend(t *testing.T) { aligntest.Backend(t, func() align.Backend { return align.NewGo(1) }) }

func TestSession(t *testing.T) { aligntest.Session(t, func() align.Backend { return align.NewGo(1) }) }
