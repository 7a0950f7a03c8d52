//go:build gpu

package cuda

// #define SA_PREFIX sacuda_
// #include "specalign_cuda.h"
import "C"

import (
	"runtime"

	"github.com/specalign/specalign/align"
)

// recording is a graph of operations of its backend.
type recording struct {
	b *backend
	g *C.sa_graph
}

// Record captures what enqueue enqueues, without running it. CUDA wants a capture ended by the thread that began it.
func (b *backend) Record(enqueue func() error) (align.Recording, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := b.run(func() C.sa_status { return C.sacuda_record_begin(b.c) }); err != nil {
		return nil, err
	}
	err := enqueue()
	r := &recording{b: b}
	if e := b.run(func() C.sa_status { return C.sacuda_record_end(b.c, &r.g) }); err == nil {
		err = e
	}
	if err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// Silently runs enqueue while operations do nothing, but for those of memory.
func (b *backend) Silently(enqueue func() error) error {
	b.silent = true
	defer func() { b.silent = false }()
	return enqueue()
}

func (r *recording) Replay() error {
	return r.b.run(func() C.sa_status { return C.sacuda_replay(r.b.c, r.g) })
}

func (r *recording) Close() {
	C.sacuda_graph_free(r.g)
	r.g = nil
}
