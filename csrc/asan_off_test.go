//go:build !asan

package csrc

const asan = false
