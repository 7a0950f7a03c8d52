// Package aligntest is the test suite of package align: what every Backend must do, and what a Session must compute
// over it. A package with a backend runs it from its own tests:
//
//	func TestBackend(t *testing.T) {
//		aligntest.Backend(t, func() align.Backend { return mine(t) })
//	}
//
//	func TestSession(t *testing.T) {
//		aligntest.Session(t, func() align.Backend { return mine(t) })
//	}
//
// Nothing is compared with another backend: the operations are held against their formulas in float64, whole steps
// against package ref. A tolerance is never a chosen number where an error can be computed: an operation may err at
// most twice as much as a plain float32 implementation of the same formula, which the suite runs beside it.
//
// The suite touches the memory of a backend only through Widen and Download, so that it serves a device as well as the
// host.
package aligntest
