//go:build !cgo || !linux || !(amd64 || arm64)

package csrc

import (
	"errors"

	"github.com/specalign/specalign/align"
)

// Open returns an error: this build has no C kernels.
func Open(Options) (align.Backend, error) {
	return nil, errors.New("csrc: this program was built without the C kernels; they need cgo and Linux on x86-64 or arm64")
}

// StdoutClosed says no: this build cannot know.
func StdoutClosed() bool { return false }

// Levels returns nothing: this build has no C kernels.
func Levels() []string { return nil }

// AMXMissing says nothing: this build has no C kernels.
func AMXMissing() string { return "" }

// HasOnRequest says no: this build has no C kernels.
func HasOnRequest(string) bool { return false }
