"""The wheel, built and unpacked: all that it needs is inside."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.timeout(900)  # the first time Zig compiles its C library
def test_a_wheel_is_all_that_it_takes(tmp_path):
    built = subprocess.run(
        [sys.executable, ROOT / "python/build_wheel.py", "--out", tmp_path / "dist"], capture_output=True, text=True
    )
    assert built.returncode == 0, built.stderr
    (wheel,) = (tmp_path / "dist").iterdir()
    assert str(wheel) == built.stdout.strip()
    assert "-py3-none-manylinux_2_28_" in wheel.name
    site = tmp_path / "site"
    installer = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--no-deps", "--target", site, wheel]
    subprocess.run(installer, check=True, timeout=60)
    assert not (ROOT / "python/specalign/bin").exists()  # the source tree stays as it is
    said = subprocess.run([site / "specalign/bin/specalign", "--version"], capture_output=True, text=True, check=True)
    commit = subprocess.run(["git", "describe", "--always", "--exclude", "*"], cwd=ROOT, capture_output=True, text=True)
    assert commit.stdout.strip() in said.stdout  # built as `make build` does
    program = """
        import numpy as np, specalign
        x = np.random.default_rng(0).standard_normal((64, 16)).astype("f4")
        np.save("a.npy", x)
        np.save("b.npy", x[:, :8])
        print(specalign.__file__)
        print(specalign.penalty(x, x[:, :8], k=2).converged)
        print(specalign.penalty(x, x[:, :8], k=2, isolation="none").converged)
        import specalign.shards
        try:
            specalign.shards.merge([b"nothing"])
        except specalign.InputError as e:
            print(e)
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SPECALIGN_")}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env={**environment, "PYTHONPATH": str(site), "PATH": "/nonexistent"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{site}/specalign/__init__.py\nTrue\nTrue\nshards: file 0 is no file of specalign shards\n"
    assert done.stderr == ""
    command = [site / "specalign/bin/specalign", "compare", "a.npy", "b.npy", "--report", "page.html"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    bundle = ROOT / "report/web/dist/report.js"
    if bundle.is_file():
        assert done.returncode == 0, done.stderr
        assert len((tmp_path / "page.html").read_bytes()) > bundle.stat().st_size
    else:
        assert "Node.js" in built.stderr  # who builds without it is told
        assert done.returncode == 2
