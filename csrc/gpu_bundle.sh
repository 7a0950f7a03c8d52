#!/bin/sh
# Tests and times specalign on this machine, which takes an NVIDIA GPU, its driver and a Python with PyTorch, which PYTHON
# names; what else is here is used, too: compute-sanitizer, MPS, open_clip. Every part that does not run says why, and a
# summary ends it. Exit code 0: all that ran passed. 1: something failed. 2: there is no GPU here, so nothing was tested.
set -u
cd "$(dirname "$0")" || exit 1
work=$(mktemp -d) failed=0 python=${PYTHON:-python3}
export SPECALIGN_BINARY="$PWD/specalign-gpu"

finish() {
  stop_mps
  rm -rf "$work"
}
stop_mps() { [ ! -d "$work/mps" ] || { echo quit | nvidia-cuda-mps-control; rm -rf "$work/mps"; } > "$work/stopped" 2>&1; }
trap finish EXIT
trap 'exit 1' INT TERM HUP

verdict() { # WORD NAME REASON
  printf '%-8s%-44s%s\n' "$1" "$2" "$3" >> "$work/summary"
  [ "$1" = ok ] || printf '%s: %s: %s\n' "$1" "$2" "$3"
  [ "$1" != FAILED ] || failed=1
}

# part NAME COMMAND...: no part takes longer than half an hour, unless it hangs.
part() {
  name=$1 begin=$(date +%s)
  shift
  printf '\n== %s\n' "$name"
  timeout -k 10 1800 "$@"
  code=$?
  took="$(($(date +%s) - begin)) s"
  case $code in
    0) verdict ok "$name" "$took" ;;
    124 | 137) verdict FAILED "$name" "it hung, and was ended after $took" ;;
    *) verdict FAILED "$name" "exit code $code after $took" ;;
  esac
}

summary() {
  printf '\n== summary\n'
  cat "$work/summary"
  exit $failed
}

# A test that does not run where there is a GPU has failed, but for those of operations that devices do not have.
cat > "$work/suite" <<'END'
./cuda.test -test.v -test.timeout 30m -test.skip '^Test(Faults|Timings)$' > "$1/suite.log" 2>&1
code=$?
grep -v '^ *=== ' "$1/suite.log"
grep -e '--- SKIP' "$1/suite.log" | grep -vE 'TestBackend/(Eigen|EigenSingle|Combine) ' && { echo "these tests did not run" >&2; exit 1; }
exit $code
END

if ! ./specalign-gpu probe > "$work/probe" 2>&1; then
  reason=$(tr '\n' ' ' < "$work/probe")
  if [ -e /proc/driver/nvidia/version ]; then
    verdict FAILED GPU "a driver is loaded, but: $reason"
    summary
  fi
  echo "run.sh: there is no GPU here, so nothing was tested: $reason"
  exit 2
fi
uname -a
./specalign-gpu --version
if command -v nvidia-smi > "$work/found"; then
  nvidia-smi --query-gpu=name,driver_version,mig.mode.current,compute_mode --format=csv,noheader
fi

part "suite of the backends" sh "$work/suite" "$work"

sanitizer=$(command -v compute-sanitizer || ls ${CUDA_HOME:-/usr/local/cuda*}/bin/compute-sanitizer 2> "$work/found" | tail -n 1)
for tool in memcheck synccheck racecheck; do
  tests='^Test(Backend|OnDevice|PowerTie)$'
  [ $tool != racecheck ] || tests='^Test(Backend|OnDevice)$/^(Difference|Gram|Product|FactorProduct|RelationalKL)$' # it takes longest
  if [ -z "$sanitizer" ]; then
    verdict skipped "compute-sanitizer, $tool" "there is no compute-sanitizer on PATH or in CUDA's folder; it comes with the CUDA toolkit"
  else
    part "compute-sanitizer, $tool" "$sanitizer" --tool $tool --error-exitcode 9 ./cuda.test -test.short -test.timeout 30m -test.run "$tests"
  fi
done

part "a step's parts, timed" env SPECALIGN_TIMINGS=1 ./cuda.test -test.v -test.run '^TestTimings$'

if ! "$python" -c 'import torch; torch.zeros(1, device="cuda")' 2> "$work/found"; then
  verdict FAILED "all that takes PyTorch" "$python has none that sees the GPU: $(tail -n 1 "$work/found"); set PYTHON to one that has"
  summary
fi
part "PyTorch's way, timed (gpu_rivals.py)" "$python" gpu_rivals.py

# What the Python package imports comes with the bundle, for some versions of Python.
if ! "$python" -c 'import numpy, grpc' 2> "$work/found"; then
  export PYTHONPATH="$work/packages"
  if ! "$python" -m pip install --quiet --no-index --find-links wheels --target "$work/packages" numpy grpcio > "$work/found" 2>&1; then
    verdict FAILED "steps from Python" "there is no NumPy or grpcio, and the bundle's do not install: $(tail -n 1 "$work/found")"
    summary
  fi
fi
part "rows that stay on the GPU (gpu_share.py)" "$python" gpu_share.py
part "beside a ViT-B/32 in training" "$python" gpu_train.py
if ! command -v nvidia-cuda-mps-control > "$work/found"; then
  verdict skipped "the same under MPS" "there is no nvidia-cuda-mps-control on PATH"
else
  mkdir "$work/mps"
  export CUDA_MPS_PIPE_DIRECTORY="$work/mps" CUDA_MPS_LOG_DIRECTORY="$work/mps"
  if nvidia-cuda-mps-control -d > "$work/found" 2>&1; then
    part "the same under MPS" "$python" gpu_train.py
    stop_mps
  else
    rm -rf "$work/mps"
    verdict skipped "the same under MPS" "MPS did not start: $(tail -n 1 "$work/found")"
  fi
fi
summary
