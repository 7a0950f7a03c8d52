#!/bin/sh
# Tests and times the CUDA kernels on this machine, which takes a GPU and its driver; PyTorch for the figures to compare
# with; and NumPy and grpcio for steps from Python. PYTHON says which Python has them.
set -eu
cd "$(dirname "$0")"
./specalign-gpu --version
./cuda.test
SPECALIGN_TIMINGS=1 ./cuda.test -test.v -test.run '^TestTimings$'
python=${PYTHON:-python3}
"$python" gpu_rivals.py
if "$python" -c 'import numpy, grpc'; then
  SPECALIGN_BINARY=$PWD/specalign-gpu "$python" gpu_share.py
else
  echo "skipped: gpu_share.py, steps from Python, which need NumPy and grpcio" >&2
fi
