// Package csrc runs the operations of package align on the CPU, by kernels written in C.
//
// The C files lie in this folder, because cgo compiles no others. specalign.h is the interface: every operation of
// align.Backend, one to one. An instruction-set level (portable, avx2, avx512) is the template level.h compiled over
// that level's vector primitives; Open takes the best that the CPU has, or the one it is told to.
//
//	specalign.h        the interface
//	context.c          contexts, memory, scratch, errors
//	cpu.c              which levels this CPU has
//	pool.c             the parked thread pool
//	gemm.c             the one blocking scheme for products of matrices
//	difference.c       kernel matrices, their difference, the gradient through exact kernels
//	cross.c            kernel matrices between the rows of two matrices
//	dense.c            the other products of matrices; Fourier features
//	structured.c       Fourier features by fast Walsh-Hadamard transforms
//	matvec.c           products with a few vectors; orthogonalisation
//	rows.c             what goes row by row
//	level*.h level_*.c kernels, and the levels
//	amx*.[ch]          AMX's products, written once for its instructions and for plain C
//	streams.c          whether standard output was closed, which Go cannot find out
//
// # Memory
//
// Alloc gives memory of the C heap. Wrap views host memory, of Go or of a mapping, as it is: pointers go to C as
// arguments of one call each, which keeps Go memory in place meanwhile, and C remembers none of them.
//
// # Determinism
//
// Work is split into fixed blocks and reduced in a fixed order, so the number of threads does not change a bit of any
// result. Levels differ from each other in rounding.
//
// # Speed
//
// One thread of a Zen 5 core, n = 512, d = 512 and 768, share of the level's own multiply-add peak (262, 131 and 60
// GFLOP/s), from go test -bench . ./csrc on a quiet machine; beside other load the shares fall by about a tenth. Two
// threads on two cores do Difference 1.5 times as fast at n = 256, 1.9 times at n = 512.
//
//	                          avx512   avx2   portable
//	Difference, linear           74 %   77 %       48 %
//	Difference, gaussian         64 %   74 %       47 %
//	MatMul (512, 512, 512)       85 %   86 %       53 %
//	Fourier, r = 1024            80 %   85 %       49 %
//
// # Checks
//
//	go test -race ./csrc
//	go test -asan ./csrc
//	CGO_CFLAGS="-O1 -g -fsanitize=undefined -fno-sanitize-recover=all" CGO_LDFLAGS="-fsanitize=undefined" go test ./csrc
//
// The static analyser of gcc (one of its checks misreads shifts of vectors), and clang and arm64 through the ziglang
// package of PyPI, where the third line's binary runs under qemu-aarch64-static:
//
//	gcc -std=c11 -O1 -fanalyzer -Wno-analyzer-shift-count-overflow -Wall -Wextra -Werror -c FILE.c -o /dev/null
//	CC="python -m ziglang cc -target x86_64-linux-gnu.2.28" go vet ./csrc
//	CC="python -m ziglang cc -target aarch64-linux-musl" GOARCH=arm64 CGO_ENABLED=1 \
//	  go test -c -ldflags "-linkmode external -extldflags -static" -o arm64.test ./csrc
package csrc
