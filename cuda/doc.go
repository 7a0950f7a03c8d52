// Package cuda runs the operations of a step on a GPU, by the hand-written kernels of csrc/*.cu behind the interface of
// csrc/specalign.h. Without the build tag gpu it is empty: it links the NVIDIA driver's library, which is not
// everywhere.
//
// A Backend's matrices are in the device's memory, and operations only enqueue: results hold after Sync or a download.
package cuda
