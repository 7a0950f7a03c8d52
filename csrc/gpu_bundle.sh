#!/bin/sh
# Tests and times the CUDA kernels on this machine, which takes a GPU and its driver; PyTorch for the figures to compare
# with. PYTHON says which Python has it.
set -eu
cd "$(dirname "$0")"
./specalign-gpu --version
./cuda.test
SPECALIGN_TIMINGS=1 ./cuda.test -test.v -test.run '^TestTimings$'
"${PYTHON:-python3}" gpu_rivals.py
