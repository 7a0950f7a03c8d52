# The GPU's part of the Makefile: kernels by nvcc for a device, or by g++ for the emulator, and the Go programs over them.
#
# CUDA_HOME says where the toolkit is: by default the environment .cuda, else /usr/local/cuda, else /usr.
CUDA_VENV  = .cuda
CUDA_HOME ?= $(abspath $(firstword $(wildcard $(CUDA_VENV)/lib/python3*/site-packages/nvidia/cu13 /usr/local/cuda) $(if $(wildcard /usr/bin/nvcc),/usr)))
CUDA_LIB   = $(dir $(firstword $(wildcard $(CUDA_HOME)/lib64/libcudart_static.a $(CUDA_HOME)/lib/libcudart_static.a $(CUDA_HOME)/lib/x86_64-linux-gnu/libcudart_static.a)))
NVCC       = $(CUDA_HOME)/bin/nvcc
GPU_BUILD  = build/gpu
EMU_BUILD  = build/emulator
GPU_ARCHES = -gencode arch=compute_80,code=sm_80 -gencode arch=compute_90,code=[sm_90,compute_90]
NVCC_FLAGS = -std=c++17 -O3 -lineinfo -Xcompiler -fPIC,-fno-exceptions,-Wall $(GPU_ARCHES) -Xptxas -v
EMU_FLAGS  = -std=c++20 -O2 -g -Wall -Wextra -Werror -Wno-unknown-pragmas -Wno-tsan -fPIC -Icsrc
KERNELS    = $(basename $(notdir $(wildcard csrc/*.cu)))
GPU_HEADERS = $(wildcard csrc/*.h)
EMU_HEADERS = $(GPU_HEADERS) $(wildcard csrc/emulator/*.h)

# The go tool hashes a .syso in a package, so that no program is linked with kernels of yesterday.
SYSO   = cuda/kernels_linux_amd64.syso
PLACE  = cmp -s $< $(SYSO) || cp $< $(SYSO)
GO_GPU = CGO_ENABLED=1 CGO_CFLAGS="-O2 -g -I$(CURDIR)/csrc/compat -I$(CUDA_HOME)/include" CGO_LDFLAGS="-L$(CURDIR)/$(GPU_BUILD) -L$(CUDA_LIB) -Wl,-Bstatic -lstdc++ -Wl,-Bdynamic -static-libgcc"
GO_EMU = CGO_ENABLED=1 CGO_CFLAGS="-O2 -g $(1) -I$(CURDIR)/csrc/compat -I$(CUDA_HOME)/include" CGO_LDFLAGS="$(1) -L$(CURDIR)/$(EMU_BUILD) -Wl,-rpath,\$$ORIGIN:\$$ORIGIN/.. -lstdc++"

.PHONY: gpu gpu-test gpu-test-bundle gpu-check cuda-toolkit emu-gpu emu-test emu-tsan emu-asan emu-go emu-python emu-go-thread emu-go-address emu-suite

cuda-toolkit: $(CUDA_VENV)/.stamp
$(CUDA_VENV)/.stamp: csrc/requirements-cuda.txt
	@echo "cuda: installing the compiler into $(CUDA_VENV) (about 100 MB)"
	@$(PYTHON) -m venv $(CUDA_VENV)
	@$(CUDA_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r csrc/requirements-cuda.txt
	@touch $@

$(GPU_BUILD)/%.o: csrc/%.cu $(GPU_HEADERS)
	@mkdir -p $(@D)
	@$(NVCC) $(NVCC_FLAGS) -c $< -o $@ 2> $(GPU_BUILD)/$*.ptxas || { cat $(GPU_BUILD)/$*.ptxas >&2; exit 1; }
$(GPU_BUILD)/kernels.syso: $(KERNELS:%=$(GPU_BUILD)/%.o)
	@ld -r -o $@ $^

# What libcuda.so.1 exports, made from the header: the library itself comes with the driver.
$(GPU_BUILD)/libcuda.so: csrc/compat/cuda.h
	@mkdir -p $(@D)
	@echo '#include <cuda.h>' | gcc -E -Icsrc/compat -I$(CUDA_HOME)/include - | grep -oE '\bcu[A-Z][A-Za-z0-9_]* *\(' | tr -d ' (' | sort -u | \
	  awk '{print "__attribute__((weak)) int " $$1 "(void) { return 801; }"}' > $(GPU_BUILD)/libcuda.c
	@gcc -shared -fPIC -w -Wl,-soname,libcuda.so.1 -o $@ $(GPU_BUILD)/libcuda.c

gpu: $(GPU_BUILD)/kernels.syso $(GPU_BUILD)/libcuda.so ## bin/specalign-gpu and bin/libspecalign-gpu.so, the sidecar and the library with CUDA kernels (needs CUDA_HOME, or `make cuda-toolkit`)
	@$(PLACE)
	@$(GO_GPU) go build -trimpath -buildvcs=false -tags gpu -ldflags '$(LDFLAGS)' -o bin/specalign-gpu ./cmd/specalign
	@$(GO_GPU) go build -trimpath -buildvcs=false -buildmode=c-shared -tags gpu -ldflags '-s -w $(NO_PREEMPTION)' -o bin/libspecalign-gpu.so ./capi
	@rm -f bin/libspecalign-gpu.h

gpu-test: $(GPU_BUILD)/kernels.syso $(GPU_BUILD)/libcuda.so
	@$(PLACE)
	@$(GO_GPU) go test -c -trimpath -tags gpu -o $(GPU_BUILD)/cuda.test ./cuda

# Linked but for libc and the driver's library; with what the Python package imports, for a machine that has PyTorch alone.
GPU_BUNDLE     = build/gpu-test-bundle
BUNDLE_PYTHONS = 3.10 3.11 3.12 3.13
gpu-test-bundle: gpu gpu-test venv ## build/gpu-test-bundle, tests and figures to copy to a machine with a GPU: run.sh there runs them
	@rm -rf $(GPU_BUNDLE) && mkdir -p $(GPU_BUNDLE)
	@cp bin/specalign-gpu bin/libspecalign-gpu.so $(GPU_BUILD)/cuda.test python/bench/gpu_*.py $(GPU_BUNDLE)
	@cp -r python/specalign $(GPU_BUNDLE) && find $(GPU_BUNDLE) -name __pycache__ -exec rm -r {} +
	@for version in $(BUNDLE_PYTHONS); do \
	  $(PY) -m pip download --quiet --disable-pip-version-check --only-binary :all: --python-version $$version --dest $(GPU_BUNDLE)/wheels numpy grpcio || exit 1; \
	done
	@install -m 755 csrc/gpu_bundle.sh $(GPU_BUNDLE)/run.sh
	@echo $(GPU_BUNDLE)

# No kernel spills, and tensor cores are used where they are meant to be.
gpu-check: $(GPU_BUILD)/kernels.syso
	@awk -f csrc/ptxas.awk $(GPU_BUILD)/*.ptxas
	@for check in gemm:HMMA.1688.F32.TF32 difference:HMMA.1688.F32.TF32 jacobi:DMMA.8; do \
	  $(CUDA_HOME)/bin/cuobjdump -sass $(GPU_BUILD)/$${check%%:*}.o | awk -v object=$${check%%:*} -v want=$${check##*:} -f csrc/sass.awk || exit 1; \
	done

$(EMU_BUILD)/%.o: csrc/%.cu $(EMU_HEADERS)
	@mkdir -p $(@D)
	@g++ $(EMU_FLAGS) -x c++ -c $< -o $@
$(EMU_BUILD)/kernels.syso: $(KERNELS:%=$(EMU_BUILD)/%.o)
	@ld -r -o $@ $^
# The driver of the emulator: a library beside the programs, as a real one is somewhere on the machine. The runtime is
# part of the kernels.
$(EMU_BUILD)/libcuda.so.1: csrc/emulator/driver.cc $(GPU_BUILD)/libcuda.so $(EMU_HEADERS)
	@mkdir -p $(@D)
	@g++ $(EMU_FLAGS) -Icsrc/compat -I$(CUDA_HOME)/include -c $< -o $(EMU_BUILD)/driver.o
	@gcc -fPIC -w -c $(GPU_BUILD)/libcuda.c -o $(EMU_BUILD)/stubs.o
	@g++ -shared -Wl,-soname,libcuda.so.1 -o $@ $(EMU_BUILD)/driver.o $(EMU_BUILD)/stubs.o
	@ln -sf libcuda.so.1 $(EMU_BUILD)/libcuda.so
	@rm -f $(EMU_BUILD)/libcudart_static.a && ar rc $(EMU_BUILD)/libcudart_static.a

emu-go: $(EMU_BUILD)/kernels.syso $(EMU_BUILD)/libcuda.so.1
	@$(PLACE)
	@$(call GO_EMU) go test -c -tags gpu -o $(EMU_BUILD)/cuda.test ./cuda

emu-gpu: $(EMU_BUILD)/kernels.syso $(EMU_BUILD)/libcuda.so.1 bundle ## build/emulator: specalign and a specalign-gpu whose GPU is the emulator, for tests
	@$(PLACE)
	@$(call GO_EMU) go build -trimpath -buildvcs=false -tags gpu -ldflags '$(LDFLAGS)' -o $(EMU_BUILD)/specalign-gpu ./cmd/specalign
	@$(call GO_EMU) go build -trimpath -buildvcs=false -buildmode=c-shared -tags gpu -ldflags '$(NO_PREEMPTION)' -o $(EMU_BUILD)/libspecalign-gpu.so ./capi
	@CGO_ENABLED=1 go build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)' -o $(EMU_BUILD)/specalign ./cmd/specalign
	@CGO_ENABLED=1 go build -trimpath -buildvcs=false -buildmode=c-shared -ldflags '$(NO_PREEMPTION)' -o $(EMU_BUILD)/libspecalign.so ./capi
	@rm -f $(EMU_BUILD)/libspecalign*.h

# Python on the emulator: rows that stay on a GPU, between it and the sidecar, and the library in its own process.
emu-python: emu-gpu
	@SPECALIGN_EMULATOR=1 SPECALIGN_BINARY=$(CURDIR)/$(EMU_BUILD)/specalign LD_LIBRARY_PATH=$(CURDIR)/$(EMU_BUILD) \
	  $(PY) -m pytest -q --no-header -p no:cacheprovider --rootdir python -c python/pyproject.toml python/tests/test_gpu.py python/tests/test_gpu_faults.py python/tests/test_inprocess_gpu.py

# Every operation in three orders of the threads, plainly and under both sanitizers, and that planted faults are found.
$(EMU_BUILD)/ops: csrc/emulator/ops_test.cc $(KERNELS:%=$(EMU_BUILD)/%.o)
	@g++ $(EMU_FLAGS) -o $@ $^
define sanitized
$(EMU_BUILD)/$(1)/%.o: csrc/%.cu $(EMU_HEADERS)
	@mkdir -p $$(@D)
	@g++ $(EMU_FLAGS) -fsanitize=$(1) -x c++ -c $$< -o $$@
$(EMU_BUILD)/ops-$(1): csrc/emulator/ops_test.cc $(KERNELS:%=$(EMU_BUILD)/$(1)/%.o)
	@g++ $(EMU_FLAGS) -fsanitize=$(1) -o $$@ $$^
$(EMU_BUILD)/$(1)/kernels.syso: $(KERNELS:%=$(EMU_BUILD)/$(1)/%.o)
	@ld -r -o $$@ $$^
emu-go-$(1): $(EMU_BUILD)/$(1)/kernels.syso $(EMU_BUILD)/libcuda.so.1
	@$$(PLACE)
	@$$(call GO_EMU,-fsanitize=$(1)) go test -c -tags gpu -o $(EMU_BUILD)/$(1)/cuda.test ./cuda
endef
$(eval $(call sanitized,thread))
$(eval $(call sanitized,address))

emu-test: emu-go emu-python $(EMU_BUILD)/ops ## the CUDA kernels on the emulator: the suite of the backends, races, bounds
	@$(EMU_BUILD)/ops
	@if $(EMU_BUILD)/ops divergence 2> $(EMU_BUILD)/divergence; then echo "a planted divergence was not found" >&2; exit 1; fi; grep -q "different places" $(EMU_BUILD)/divergence
	@cd cuda && ../$(EMU_BUILD)/cuda.test -test.short -test.run '^Test(Backend|OnDevice|PowerTie|Compare)$$'
	@cd cuda && ../$(EMU_BUILD)/cuda.test -test.short -test.run '^TestSession$$/^(Accuracy|UnseenGroups|Ties|ZeroRows|EqualInputs|FewSamples|RankBelowK|Scaling|Underflow|BadRows|DeviceRows)$$'
	@rm -f $(EMU_BUILD)/fault && cd cuda && SIMT_LOST=../$(EMU_BUILD)/fault ../$(EMU_BUILD)/cuda.test -test.run '^TestFaults$$'

emu-tsan: $(EMU_BUILD)/ops-thread
	@TSAN_OPTIONS=halt_on_error=1 $(EMU_BUILD)/ops-thread
	@for fault in race "race of blocks"; do \
	  if $(EMU_BUILD)/ops-thread "$$fault" > $(EMU_BUILD)/race 2>&1; then echo "a planted $$fault was not found" >&2; exit 1; fi; \
	  grep -q 'data race csrc/emulator/ops_test.cc' $(EMU_BUILD)/race || exit 1; \
	done

emu-asan: $(EMU_BUILD)/ops-address
	@ASAN_OPTIONS=detect_leaks=0 $(EMU_BUILD)/ops-address
	@if $(EMU_BUILD)/ops-address bounds > $(EMU_BUILD)/bounds 2>&1; then echo "a planted access out of bounds was not found" >&2; exit 1; fi; grep -q 'heap-buffer-overflow' $(EMU_BUILD)/bounds

# The suite of the backends, all of it: plainly and under both sanitizers, each in the orders of the threads. A barrier of
# many threads takes ThreadSanitizer the square of their number, so that its machine is smaller.
SIMT_ORDERS     ?= 0 1 2
SANITIZERS      ?= none address thread
suite_none       = $(EMU_BUILD)/cuda.test
suite_address    = ASAN_OPTIONS=detect_leaks=0 $(EMU_BUILD)/address/cuda.test
suite_thread     = TSAN_OPTIONS=halt_on_error=1 SIMT_CAPABILITY=80 SIMT_MULTIPROCESSORS=2 $(EMU_BUILD)/thread/cuda.test
build_none       = emu-go
build_address    = emu-go-address
build_thread     = emu-go-thread
emu-suite: ## the whole suite of the backends on the emulator, in three orders, plainly and under both sanitizers: hours
	@set -e; $(foreach s,$(SANITIZERS),$(MAKE) -s $(build_$(s)); for order in $(SIMT_ORDERS); do \
	  echo "emulator: sanitizer $(s), order $$order"; env SIMT_ORDER=$$order $(suite_$(s)) -test.timeout 24h -test.run '^Test(Backend|Session)$$'; done;)
