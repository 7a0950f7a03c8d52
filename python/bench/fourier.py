"""Random Fourier features of 512 rows, 768 columns and 4,096 frequencies against PyTorch: alternating, minima, a ratio.

::

    python python/bench/fourier.py

One thread each. The engine's time is that of `csrc`'s own benchmark of the operation at the best level of this CPU; it
writes cosines and sines, 512 by 8,192.
PyTorch's is one product into an array that is there, then cosine and sine into another.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import tempfile
import time
from pathlib import Path

import torch
from step import cpu

ROWS, COLUMNS, FREQUENCIES = 512, 768, 4096
ROOT = Path(__file__).resolve().parents[2]


def engine(program: str) -> tuple[str, float]:
    """Return the best level and the milliseconds of one operation, the mean of a third of a second."""
    command = [program, "-test.run=^$", "-test.bench=^BenchmarkFourier$/^avx512$|^avx2$", "-test.benchtime=300ms"]
    out = subprocess.run(command, cwd=ROOT / "csrc", capture_output=True, text=True, check=True).stdout
    found = re.search(r"BenchmarkFourier/(\w+)\S*\s+\d+\s+([\d.]+) ns/op", out)  # the first is the best
    if not found:
        raise SystemExit(f"fourier: no time in what the benchmark printed:\n{out}")
    return found.group(1), float(found.group(2)) / 1e6


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    x, w = torch.randn(ROWS, COLUMNS), torch.randn(FREQUENCIES, COLUMNS)
    s, phi, scale = torch.empty(ROWS, FREQUENCIES), torch.empty(2, ROWS, FREQUENCIES), FREQUENCIES**-0.5

    def theirs() -> None:
        torch.mm(x, w.T, out=s)
        torch.cos(s, out=phi[0])
        torch.sin(s, out=phi[1])
        phi.mul_(scale)

    with tempfile.TemporaryDirectory() as folder:
        program = f"{folder}/csrc.test"
        subprocess.run(["go", "test", "-c", "-o", program, "./csrc"], cwd=ROOT, check=True)
        ours: list[float] = []
        others: list[float] = []
        for _ in range(rounds):
            level, ms = engine(program)
            ours.append(ms)
            for _ in range(12):
                begin = time.perf_counter()
                theirs()
                others.append((time.perf_counter() - begin) * 1e3)
    print(f"{cpu()}, {os.cpu_count()} CPUs, one thread each, {level}, load average {os.getloadavg()[0]:.1f}")
    print(f"features: engine {min(ours):.2f} ms, torch {torch.__version__} {min(others):.2f} ms; ", end="")
    print(f"{min(others) / min(ours):.2f} times as fast")


if __name__ == "__main__":
    main()
