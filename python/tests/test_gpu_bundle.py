"""The script that tests a machine with a GPU, `csrc/gpu_bundle.sh`, with stand-ins for all that it calls."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "csrc" / "gpu_bundle.sh"
TOOLS = ("cat", "date", "dirname", "env", "grep", "ls", "mkdir", "mktemp", "rm", "sh", "tail", "timeout", "tr", "uname")
PASSES = "echo '    --- SKIP: TestBackend/Eigen (0.00s)'; echo PASS"


@pytest.fixture
def bundle(tmp_path):
    """Return what runs the script, after stand-ins are written: `name=shell code`, "" for none."""

    def run(**programs):
        folder, path = tmp_path / "bundle", tmp_path / "path"
        for made in (folder, path):
            shutil.rmtree(made, ignore_errors=True)
            made.mkdir()
        shutil.copy(SCRIPT, folder / "run.sh")
        for name in TOOLS:
            (path / name).symlink_to(shutil.which(name))
        here = {"specalign-gpu": "echo specalign-gpu 1", "cuda.test": PASSES}
        around = {
            "python3": "echo python $*",
            "compute-sanitizer": "echo sanitizer $*",
            "nvidia-cuda-mps-control": f'read word; echo "mps $* $word" >> {tmp_path}/mps',
        }
        for where, stand_ins in ((folder, here), (path, around)):
            for name, code in stand_ins.items():
                code = programs.get(name.replace("-", "_").replace(".", "_"), code)
                if code:
                    (where / name).write_text(f"#!/bin/sh\n{code}\n")
                    (where / name).chmod(0o755)
        (tmp_path / "mps").unlink(missing_ok=True)
        done = subprocess.run(
            ["/bin/sh", folder / "run.sh"], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL,
            env={"PATH": str(path), "CUDA_HOME": str(tmp_path), "TMPDIR": str(tmp_path)}, check=False,
        )  # fmt: skip
        mps = (tmp_path / "mps").read_text().split("\n")[:-1] if (tmp_path / "mps").exists() else []
        assert not [p for p in tmp_path.iterdir() if p.name.startswith("tmp.")]
        return done.returncode, done.stdout + done.stderr, done.stdout.partition("== summary\n")[2].splitlines(), mps

    return run


def test_all_there(bundle):
    code, text, summary, mps = bundle()
    assert code == 0, text
    assert [line.split()[0] for line in summary] == ["ok"] * 9, text
    assert mps == ["mps -d ", "mps  quit"]
    for said in ("--tool racecheck", "python gpu_rivals.py", "python gpu_share.py", "python gpu_train.py"):
        assert said in text


def test_what_is_not_there_is_said(bundle):
    code, text, summary, _ = bundle(compute_sanitizer="", nvidia_cuda_mps_control="")
    assert code == 0
    assert [line.split()[0] for line in summary] == ["ok", *["skipped"] * 3, *["ok"] * 4, "skipped"]
    assert text.count("there is no compute-sanitizer on PATH") == 6
    assert "there is no nvidia-cuda-mps-control on PATH" in summary[-1]
    code, _, summary, mps = bundle(nvidia_cuda_mps_control='[ "$1" = -d ] && { echo not here; exit 1; }')
    assert (code, mps) == (0, [])
    assert "MPS did not start: not here" in summary[-1]


@pytest.mark.skipif(os.path.exists("/proc/driver/nvidia/version"), reason="an NVIDIA driver is loaded here")
def test_no_gpu(bundle):
    code, text, summary, _ = bundle(specalign_gpu="echo 'no libcuda.so.1' >&2; exit 127")
    assert (code, summary) == (2, [])
    assert text == "run.sh: there is no GPU here, so nothing was tested: no libcuda.so.1 \n"


@pytest.mark.parametrize(
    ("programs", "says"),
    [
        ({"cuda_test": "echo '--- FAIL: TestSession'; exit 1"}, "suite of the backends: exit code 1"),
        ({"cuda_test": "echo '    --- SKIP: TestBackend/Gram (0.00s)'"}, "suite of the backends: exit code 1"),
        ({"compute_sanitizer": "exit 9"}, "compute-sanitizer, memcheck: exit code 9"),
        ({"python3": "echo 'no module torch' >&2; exit 1"}, "has none that sees the GPU: no module torch"),
        ({"python3": 'case "$2" in *grpc*) exit 1;; esac; [ "$2" != pip ]'}, "there is no NumPy or grpcio"),
        ({"python3": "case $1 in gpu_train.py) exit 1;; esac"}, "the same under MPS: exit code 1"),
    ],
)
def test_what_fails(bundle, programs, says):
    code, text, summary, mps = bundle(**programs)
    assert code == 1
    assert says in text
    assert any(line.startswith("FAILED") for line in summary)
    assert mps in ([], ["mps -d ", "mps  quit"])
