//go:build asan

package csrc

// asan tells that AddressSanitizer watches this run. It makes the suites' arithmetic in Go twenty times slower.
const asan = true
