// Command capi is a C library, built with -buildmode=c-shared, for programs that have the rows in memory: the steps of
// compare over shards, whose interface is specalign_shards.h, and penalties in the caller's process,
// specalign_session.h.
//
// It reads no files, which keeps it small.
package main

// #include <stdlib.h>
// #include "specalign_shards.h"
import "C"

import (
	"context"
	"errors"
	"fmt"
	"unsafe"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/align/compare"
	"github.com/specalign/specalign/align/shards"
	"github.com/specalign/specalign/csrc"
)

func main() {}

//export specalign_shards_version
func specalign_shards_version() C.int32_t { return C.SPECALIGN_SHARDS_VERSION }

//export specalign_shards_partial
func specalign_shards_partial(plan C.specalign_file, rows *C.specalign_shard, count C.int64_t, threads C.int32_t, out *C.specalign_buffer) C.int32_t {
	return give(out, func() ([]byte, error) {
		return pass(plan, rows, count, threads, func(p *shards.Plan, pass shards.Pass) ([]byte, error) {
			return p.Partial(context.Background(), pass)
		})
	})
}

//export specalign_shards_merge
func specalign_shards_merge(files *C.specalign_file, count C.int64_t, out *C.specalign_buffer) C.int32_t {
	return give(out, func() ([]byte, error) {
		var all []shards.File
		for _, f := range unsafe.Slice(files, count) {
			all = append(all, file(f))
		}
		return shards.Merge(all...)
	})
}

//export specalign_shards_spectrum
func specalign_shards_spectrum(plan, moments C.specalign_file, out *C.specalign_buffer) C.int32_t {
	return give(out, func() ([]byte, error) {
		p, err := shards.ParsePlan(file(plan))
		if err != nil {
			return nil, err
		}
		return p.Spectrum(context.Background(), file(moments))
	})
}

//export specalign_shards_top
func specalign_shards_top(plan, directions C.specalign_file, rows *C.specalign_shard, count C.int64_t, threads C.int32_t, out *C.specalign_buffer) C.int32_t {
	return give(out, func() ([]byte, error) {
		return pass(plan, rows, count, threads, func(p *shards.Plan, pass shards.Pass) ([]byte, error) {
			return p.Top(context.Background(), file(directions), pass)
		})
	})
}

//export specalign_shards_free
func specalign_shards_free(out *C.specalign_buffer) {
	C.free(unsafe.Pointer(out.data))
	*out = C.specalign_buffer{}
}

// give runs a step and hands what it made, or what is wrong, to the caller.
func give(out *C.specalign_buffer, step func() ([]byte, error)) C.int32_t {
	data, err := caught(step)
	status := C.int32_t(C.SPECALIGN_OK)
	if err != nil {
		status, data = C.SPECALIGN_FAILED, []byte(err.Error())
		if input := new(align.InputError); errors.As(err, &input) {
			status = C.SPECALIGN_INPUT_ERROR
		}
	}
	out.data, out.size = (*C.uint8_t)(C.CBytes(data)), C.size_t(len(data))
	return status
}

// caught turns a panic into an error: the process is not ours to end.
func caught(step func() ([]byte, error)) (data []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("shards: internal error: %v", p)
		}
	}()
	return step()
}

// file views bytes of the caller.
func file(f C.specalign_file) shards.File {
	return shards.File{Name: C.GoString(f.name), Data: unsafe.Slice((*byte)(f.data), f.size)}
}

// pass prepares a pass over the caller's rows.
func pass(plan C.specalign_file, rows *C.specalign_shard, count C.int64_t, threads C.int32_t, step func(p *shards.Plan, pass shards.Pass) ([]byte, error)) (data []byte, err error) {
	p, err := shards.ParsePlan(file(plan))
	if err != nil {
		return nil, err
	}
	if threads < 0 || threads > align.MaxThreads {
		return nil, inputErrorf("shards: threads is %d; give 0 to %d", threads, align.MaxThreads)
	}
	given := unsafe.Slice(rows, count)
	var ids []int
	pairs := map[shards.Shard][2]memory{}
	for _, s := range given {
		if s.shard < 0 || int64(s.shard) >= int64(len(p.Shards)) {
			return nil, inputErrorf("shards: there is no shard %d; the plan has 0 to %d", s.shard, len(p.Shards)-1)
		}
		is := p.Shards[s.shard]
		var pair [2]memory
		for side, r := range []C.specalign_rows{s.student, s.reference} {
			if pair[side], err = view(r, [2]string{is.Student, is.Reference}[side]); err != nil {
				return nil, err
			}
		}
		ids, pairs[is] = append(ids, int(s.shard)), pair
	}
	environment()
	backend, err := csrc.OpenHosted(int(threads))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, backend.Close()) }()
	return step(p, shards.Pass{Shards: ids, Backend: backend, Open: func(s shards.Shard) (student, reference compare.Rows, closeRows func() error, err error) {
		pair := pairs[s]
		return &pair[0], &pair[1], func() error { return nil }, nil
	}})
}

func inputErrorf(format string, args ...any) error {
	return &align.InputError{Err: fmt.Errorf(format, args...)}
}
