"""How a step grows with the rows and the columns: time and memory beside PyTorch in process, with a plot.

::

    python python/bench/growth.py --threads 2 --k 1 --plot docs/growth.png

ky_fan, cosine, gradient back; d1 and d2 as 512 to 768. Each contestant in turn, minima; memory is what
a contestant's process held at most less what it held before, features and gradient included (of the sidecar: its arena,
too). Ways that take seconds a call, or gigabytes, are left out.
"""

from __future__ import annotations

import argparse
import gc
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import rivals
import torch
from step import contest, cpu, features
from torch import Tensor

import specalign

SHAPES = {
    "rows": [(n, 512, 768) for n in (128, 256, 512, 1024, 2048, 4096, 8192, 16384)],
    "columns": [(1024, d, d * 3 // 2) for d in (64, 128, 256, 512, 1024, 2048)],
}
RIVALS: dict[str, Callable[[Tensor, Tensor, int], tuple[float, Tensor]]] = {
    "eigh": rivals.dense,
    "formed, Lanczos": rivals.lanczos_formed,
    "matrix-free, Lanczos": rivals.lanczos_free,
    "feature space, eigh": rivals.feature_space,
}
OURS = "through the sidecar"


class Point(NamedTuple):
    """What one shape took: the size that grows, each contestant's milliseconds and MiB, the sidecar's route."""

    size: int
    times: dict[str, float]
    memory: dict[str, float]
    route: str


def affordable(name: str, n: int, d: int) -> bool:
    """Say whether a contestant is let in: n rows, d columns of both together."""
    if name == "eigh":
        return n <= 2048
    if name == "formed, Lanczos":
        return n <= 4096
    return name != "feature space, eigh" or (d < n and d <= 4096)


def resident(pid: int, entry: str) -> float:
    """Return an entry of a process's status in MiB: VmRSS, or VmHWM, the most since `forget`."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(entry + ":"):
            return int(line.split()[1]) / 1024
    raise OSError(f"/proc/{pid}/status has no {entry}")


def peak(pid: int, call: Callable[[], object]) -> float:
    """Return by how many MiB a process grows at most while something is called."""
    gc.collect()
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    before = resident(pid, "VmRSS")
    call()
    return resident(pid, "VmHWM") - before


def measure(shape: tuple[int, int, int], size: int, k: int, seconds: float, threads: int) -> Point:
    """Measure one shape: rows, student's and reference's columns."""
    n, d1, d2 = shape
    student, reference = features(n, d1, d2, True)
    # A sidecar of its own, so that its memory is that of this shape.
    with specalign.Sidecar(device="cpu", threads=threads) as sidecar:
        session = sidecar.session(objective="ky_fan", k=k)
        out = torch.empty_like(student)
        result: list[specalign.Result] = []

        def step() -> None:
            result[:] = [session.step(student, reference, out=out)]

        calls: dict[str, Callable[[], object]] = {OURS: step}
        for name, call in RIVALS.items():
            if affordable(name, n, d1 + d2):
                calls[name] = lambda call=call: call(student, reference, k)
        memory = {OURS: peak(sidecar.pid, step)}
        for name, call in calls.items():
            if name != OURS:
                memory[name] = peak(os.getpid(), call) + (student.nbytes + reference.nbytes) / 2**20
        times = contest(calls, 10_000, seconds)  # type: ignore[arg-type]
        route = result[0].route
    return Point(size, {name: min(t) * 1e3 for name, t in times.items()}, memory, route)


def plot(path: Path, k: int, found: dict[str, list[Point]]) -> None:
    """Draw time and memory against rows and columns."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(11, 8), sharex="col")
    for column, (kind, rows) in enumerate(found.items()):
        for row, unit in enumerate(("milliseconds a step", "MiB")):
            ax = axes[row, column]
            for name in [OURS, *RIVALS]:
                points = [(p.size, (p.memory if row else p.times)[name]) for p in rows if name in p.times]
                if points:
                    style = {"lw": 2.5, "color": "black"} if name == OURS else {"lw": 1.2}
                    ax.plot(*zip(*points, strict=True), marker="o", ms=3, label=name, **style)
            ax.set_xscale("log", base=2)
            ax.set_yscale("log")
            ax.grid(alpha=0.3)
            ax.set_ylabel(unit)
        axes[1, column].set_xlabel(
            {"rows": "rows; 512 and 768 columns", "columns": "student's columns; 1,024 rows"}[kind]
        )
    axes[0, 0].legend(fontsize=8)
    figure.suptitle(f"ky_fan {k}, cosine, gradient back", fontsize=11)
    figure.tight_layout()
    figure.savefig(path, dpi=75)


def main() -> None:
    """Measure, print and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of PyTorch and of the sidecar")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each shape")
    parser.add_argument("--k", type=int, default=1, help="eigenvalues of ky_fan (1)")
    parser.add_argument("--plot", type=Path, help="the picture to write")
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    print(f"{cpu()}, {os.cpu_count()} CPUs, {a.threads} threads each, torch {torch.__version__}, ky_fan {a.k}")
    found: dict[str, list[Point]] = {}
    for kind, shapes in SHAPES.items():
        found[kind] = []
        for shape in shapes:
            point = measure(shape, shape[0] if kind == "rows" else shape[1], a.k, a.seconds, a.threads)
            found[kind].append(point)
            times = point.times
            best = min((name for name in times if name != OURS), key=times.__getitem__)
            print(
                f"n = {shape[0]}, d = {shape[1]} and {shape[2]}: {point.route}, load average {os.getloadavg()[0]:.1f}"
            )
            for name in times:
                print(f"    {name:22} {times[name]:9.2f} ms  {point.memory[name]:8.1f} MiB", flush=True)
            print(f"    {times[best] / times[OURS]:.2f} times as fast as {best}")
    if a.plot:
        plot(a.plot, a.k, found)


if __name__ == "__main__":
    main()
