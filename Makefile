# The targets that people use are documented behind ##; `make` prints them.
.DEFAULT_GOAL := help
SHELL := /bin/bash

PYTHON     ?= python3
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
PYSPARK     = pyspark==4.3.0
VENV        = .venv
PY          = $(VENV)/bin/python
COMMIT     := $(shell git describe --always --dirty --exclude '*' 2>/dev/null)
LDFLAGS     = -s -w -X main.commit=$(COMMIT)
# The library's Go interrupts its goroutines by no signals: their handler would run on the alternate signal stack of the
# caller's thread, where it has set one up, and Python's faulthandler sets up one that is too small for it.
NO_PREEMPTION = -X runtime.godebugDefault=asyncpreemptoff=1
PROGRAM    ?= bin/specalign
LIBRARY    ?= bin/libspecalign.so

# The demonstration's options.
SEEDS   ?= 1
CONTROL ?=
PENALTY ?=

# Which of the studies runs.
STUDY ?= crosscheck

# How long each fuzz target and the soak run.
FUZZTIME ?= 30s
FUZZ     ?= .
KEEP     ?= 0
SOAKTIME ?= 10m

.PHONY: help build library venv demo test bench wheel lint clean proto fmt fuzz study soak soak-steps asan ubsan arm64 test-go test-python test-ray test-spark test-report bundle FORCE

help: ## print this
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  \033[1m%-12s\033[0m %s\n", $$1, $$2 }' $(MAKEFILE_LIST) | \
	  if [ -t 1 ]; then cat; else sed 's/\x1b\[[0-9;]*m//g'; fi

build: $(PROGRAM) ## bin/specalign, the command and the sidecar

# The program of compare's page: bundled by Node.js, embedded by Go.
bundle: report/web/dist/report.js

report/web/dist/report.js: report/web/build.sh report/web/build.mjs report/web/package-lock.json $(wildcard report/web/src/*.js)
	@report/web/build.sh

# The go tool knows best what has changed.
$(PROGRAM): bundle FORCE
	@CGO_ENABLED=1 go build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)' -o $@ ./cmd/specalign

library: $(LIBRARY) ## bin/libspecalign.so, the steps of compare over shards for C and Python (docs/shards.md)

$(LIBRARY): FORCE
	@CGO_ENABLED=1 go build -trimpath -buildvcs=false -buildmode=c-shared -ldflags '-s -w $(NO_PREEMPTION)' -o $@ ./capi
	@rm -f $(@:.so=.h) # capi/specalign_shards.h is the one to read

venv: $(VENV)/.stamp ## .venv, the Python environment of tests and demonstration

# Kept until the pinned list changes; the package itself is installed in place.
$(VENV)/.stamp: python/requirements-dev.txt python/pyproject.toml python/hatch_build.py
	@echo "venv: installing into $(VENV) (the first time this fetches about 3 GB, PyTorch mostly)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "venv: $(PYTHON) is older than 3.10; call make with PYTHON=/path/to/a/newer/python3" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	  { echo "venv: $(PYTHON) has no venv module; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@$(PY) -m pip install --quiet --disable-pip-version-check uv==0.13.9
	@$(VENV)/bin/uv pip install --quiet --python $(PY) -r python/requirements-dev.txt
	@$(VENV)/bin/uv pip install --quiet --python $(PY) --no-deps -e python
	@touch $@

demo: build venv ## fine-tune a small CLIP without and with the penalty, and show the difference (SEEDS=3 CONTROL=1 PENALTY=FILE.yaml)
	@SPECALIGN_BINARY=$(CURDIR)/bin/specalign $(PY) -m demo --seeds $(SEEDS) $(if $(CONTROL),--control) $(foreach f,$(PENALTY),--penalty $(f))

test: build library venv ## everything: linters, Go and C under sanitizers, arm64, Python; with a summary
	@STATICCHECK=$(STATICCHECK) .ci/checks

lint: venv ## the linters only
	@STATICCHECK=$(STATICCHECK) .ci/checks lint

test-go: ## Go tests under the race detector
	@.ci/checks go

test-python: build library venv ## Python tests
	@.ci/checks python

test-ray: build library venv ## Ray: comparing while workers and nodes die, and a store of features made there
	@SPECALIGN_BINARY=$(CURDIR)/bin/specalign $(PY) -m pytest -q --rootdir python -c python/pyproject.toml \
	  -m '' python/tests/test_ray.py python/tests/openclip/test_ray_store.py

test-spark: build library venv ## the recipe for Spark on a local one; takes Java, fetches PySpark (0.4 GB)
	@command -v java > /dev/null || { echo "test-spark: there is no java; install a Java runtime, 17 or later" >&2; exit 1; }
	@$(VENV)/bin/uv pip install --quiet --python $(PY) $(PYSPARK)
	@SPECALIGN_BINARY=$(CURDIR)/bin/specalign $(PY) -m pytest -q --rootdir python -c python/pyproject.toml python/tests/test_spark.py

asan: ## C kernels under AddressSanitizer
	@.ci/checks asan

ubsan: ## C kernels under UndefinedBehaviorSanitizer
	@.ci/checks ubsan

test-report: build ## the report's page in a browser
	@.ci/checks report

arm64: venv ## compile for arm64
	@.ci/checks arm64

fuzz: ## every fuzz target for FUZZTIME (30s each), or those that match FUZZ; KEEP=20 keeps that many inputs of each
	@KEEP=$(KEEP) .ci/fuzz $(FUZZTIME) '$(FUZZ)'

study: build venv ## a study of real data (STUDY=fashion, sentences, overlay, analogies, verdict, weak_student, second_reference, overlay_align, text_align, text_groups, gloss_task, tails or crosscheck), see docs/studies.md
	@$(PY) -m studies.$(STUDY)

soak: ## the sidecar's and the engine's tests over and over under the race detector, for SOAKTIME (10m)
	@end=$$(( $$(date +%s) + $$(echo $(SOAKTIME) | sed 's/m$$/*60/; s/h$$/*3600/; s/s$$//') )); round=0; \
	while [ $$(date +%s) -lt $$end ]; do \
	  round=$$((round + 1)); \
	  go test -race -count 1 ./plugin ./align ./csrc > .soak.log 2>&1 || { cat .soak.log; echo "soak: failed in round $$round"; exit 1; }; \
	done; rm -f .soak.log; echo "soak: $$round rounds without a failure"

soak-steps: build venv ## a million small steps and 10,000 of n = 512 over eight sessions: build/soak.csv, build/soak.png
	@SPECALIGN_BINARY=$(CURDIR)/bin/specalign $(PY) python/bench/soak.py --record build/soak.csv --plot build/soak.png

bench: build venv ## this machine's figures, as ratios within one run
	@go test -run '^$$' -bench . -benchtime 300ms ./csrc ./plugin
	@SPECALIGN_BINARY=$(CURDIR)/bin/specalign $(PY) python/bench/step.py

wheel: venv ## dist/specalign-*.whl, the Python package with the sidecar in it, for glibc 2.28 or later
	@$(PY) python/build_wheel.py --out dist

proto: venv ## generate the Go code of the protocol again
	@PYTHON=$(CURDIR)/$(PY) sh plugin/proto/generate.sh

fmt: venv ## format Go and Python
	@gofmt -w $$(git ls-files '*.go')
	@$(VENV)/bin/ruff format --quiet python demo studies

include csrc/gpu.mk

clean: ## remove what was built; .venv and the demonstration's cached data stay
	@rm -rf bin build dist cuda/*.syso demo-out .soak.log report/web/node_modules report/web/dist/report.js
