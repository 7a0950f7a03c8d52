"""One step through the sidecar against the same penalty in process, in one run, alternating, as ratios.

::

    python python/bench/step.py                      # n = 512, d = 512 and 768, cosine, gradient back
    python python/bench/step.py --rows 1024 --k 30 --json

Also the transport's overhead: a step's time through Python, socket and arena, copies included, less the engine's own
time, in turns with the least that two processes need for that on this machine (floor.py) and with the same beside the
engine in this process (`isolation="none"`). Every contestant's gradient
error is measured against float64, so that nobody wins by stopping early. The machine's load is printed because on a
busy one medians say little; then compare the minima.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import rivals
import torch
from floor import Floor

import specalign

PAUSE = 0.02  # seconds
TURN = 3  # calls
STEPS = 400  # one behind the other, for the transport's overhead
BURST = 50  # of them, in turns with the floor


def features(rows: int, d1: int, d2: int, trained: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Return student and reference rows: 20 groups, which a trained student has come to see as the reference does."""
    rng = np.random.default_rng(1)
    group = rng.integers(0, 20, rows)
    hidden = rng.standard_normal((20, 32))[group] + 0.6 * rng.standard_normal((rows, 32))
    other = hidden if trained else rng.standard_normal((20, 32))[group // 4] + 0.6 * rng.standard_normal((rows, 32))
    student = other @ rng.standard_normal((32, d1)) + 2 * rng.standard_normal((rows, d1))
    reference = hidden @ rng.standard_normal((32, d2)) + 2 * rng.standard_normal((rows, d2))
    return torch.from_numpy(student.astype(np.float32)), torch.from_numpy(reference.astype(np.float32))


class Route:
    """Takes steps in a session; remembers what they cost."""

    def __init__(self, session: specalign.Session, student: torch.Tensor, reference: torch.Tensor) -> None:
        """Every step is of these rows."""
        self.session, self.rows = session, (student, reference)
        self.out = torch.empty_like(student)
        self.overhead: list[float] = []
        self.engine: list[float] = []
        self.last: specalign.Result

    def __call__(self) -> tuple[float, torch.Tensor]:
        """Take one; return value and gradient."""
        begin = time.perf_counter()
        self.last = r = self.session.step(*self.rows, out=self.out)
        self.overhead.append(time.perf_counter() - begin - r.seconds)
        self.engine.append(r.seconds)
        return r.value, self.out


def cpu() -> str:
    """Return the CPU's name."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def exact(student: torch.Tensor, reference: torch.Tensor, k: int) -> tuple[float, torch.Tensor]:
    """Return value and gradient in float64."""
    return rivals.dense(student.double(), reference.double(), k)


def contest(
    calls: dict[str, Callable[[], tuple[float, torch.Tensor]]], rounds: int, seconds: float
) -> dict[str, list[float]]:
    """Let everybody make a few calls in turn, for so many rounds or so long; return the seconds of every call.

    Before a turn there is a pause, and its first call is not counted: the threads of the one before, which spin for a
    while before they sleep, and what it left in the caches, would count against the next.
    """
    for call in calls.values():
        for _ in range(3):
            call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    end = time.perf_counter() + seconds
    for _ in range(rounds):
        for name, call in calls.items():
            time.sleep(PAUSE)
            call()
            for _ in range(TURN):
                begin = time.perf_counter()
                call()
                times[name].append(time.perf_counter() - begin)
        if time.perf_counter() > end:
            break
    return times


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description="A step through the sidecar against PyTorch in process, as ratios.")
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--dims", type=int, nargs=2, default=(512, 768), metavar=("D1", "D2"))
    parser.add_argument("--k", type=int, default=1, help="1 is the paper's objective (default)")
    parser.add_argument("--untrained", action="store_true", help="a student that sees other groups: wide gaps")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of PyTorch and of the sidecar")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=20.0, help="stop after this long")
    parser.add_argument("--compile", action="store_true", help="torch.compile the matrix-free and the formed code, too")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    student, reference = features(a.rows, *a.dims, not a.untrained)
    value, grad = exact(student, reference, a.k)

    floor = Floor(a.rows, *a.dims)
    here = specalign.Sidecar(device="cpu", threads=a.threads, isolation="none")
    with here, specalign.Sidecar(device="cpu", threads=a.threads) as sidecar:
        step, inside = (Route(s.session(k=a.k), student, reference) for s in (sidecar, here))
        load = os.getloadavg()[0]
        calls: dict[str, Callable[[], tuple[float, torch.Tensor]]] = {
            "sidecar": step,
            "in process": inside,
            "torch, formed, eigh": lambda: rivals.dense(student, reference, a.k),
            "torch, formed, Lanczos": lambda: rivals.lanczos_formed(student, reference, a.k),
            "torch, matrix-free, Lanczos": lambda: rivals.lanczos_free(student, reference, a.k),
        }
        if a.compile:
            formed, free = torch.compile(rivals.lanczos_formed), torch.compile(rivals.lanczos_free)
            calls["torch, formed, Lanczos, compiled"] = lambda: formed(student, reference, a.k)
            calls["torch, matrix-free, Lanczos, compiled"] = lambda: free(student, reference, a.k)
        if a.k == 1:
            calls["paper: 20 + 20 power steps"] = lambda: rivals.paper(student, reference, a.k)
        for route in (step, inside):
            for _ in range(STEPS):
                route()
        work = statistics.median(step.engine)
        for route in (step, inside):
            route.overhead.clear()
            route.engine.clear()
        least: list[float] = []
        for _ in range(0, STEPS, BURST):
            for route in (step, inside):
                for _ in range(BURST):
                    route()
            least += [floor.step(work) for _ in range(BURST)]
        floor.close()
        alone, beside = (step.overhead[:], step.engine[:]), inside.overhead[:]
        times = contest(calls, a.rounds, a.seconds)
        errors = {}
        for name, call in calls.items():
            v, g = call()
            errors[name] = (abs(v - value) / value, ((g.double() - grad).norm() / grad.norm()).item())
        r = step.last

    best = min(times["sidecar"]), statistics.median(times["sidecar"])
    rows: list[dict[str, Any]] = [
        {
            "contestant": name,
            "min_ms": min(t) * 1e3,
            "median_ms": statistics.median(t) * 1e3,
            "min_ratio": min(t) / best[0],
            "median_ratio": statistics.median(t) / best[1],
            "value_error": errors[name][0],
            "gradient_error": errors[name][1],
        }
        for name, t in times.items()
    ]
    report = {
        "n": a.rows,
        "student_dim": a.dims[0],
        "reference_dim": a.dims[1],
        "k": a.k,
        "trained": not a.untrained,
        "calls": len(times["sidecar"]),
        "load": [load, os.getloadavg()[0]],
        "threads": a.threads,
        "cpu": cpu(),
        "isa": r.isa,
        "route": r.route,
        "products": r.products,
        "versions": {
            "specalign": specalign.__version__,
            "sidecar": sidecar.hello.version,
            "torch": torch.__version__,
            "torch_cpu": torch.backends.cpu.get_cpu_capability(),
            "torch_blas": "mkl" if torch.backends.mkl.is_available() else "openblas",
            "numpy": np.__version__,
            "grpc": grpc.__version__,
            "python": platform.python_version(),
        },
        "overhead_ms": {"min": min(alone[0]) * 1e3, "median": statistics.median(alone[0]) * 1e3},
        "in_process_overhead_ms": {"min": min(beside) * 1e3, "median": statistics.median(beside) * 1e3},
        "floor_ms": {"min": min(least) * 1e3, "median": statistics.median(least) * 1e3},
        "engine_ms": {"min": min(alone[1]) * 1e3, "median": statistics.median(alone[1]) * 1e3},
        "contestants": rows,
    }
    if a.json:
        json.dump(report, sys.stdout, indent=1)
        print()
        return
    v = report["versions"]
    print(f"n = {a.rows}, d = {a.dims[0]} and {a.dims[1]}, ky_fan {a.k}, cosine, gradient back; ", end="")
    print(f"{report['calls']} calls of each, alternating")
    print(f"{report['cpu']}, {os.cpu_count()} cores, load average {load:.1f} before and {report['load'][1]:.1f} after")
    print(f"{a.threads} threads each; sidecar {v['sidecar']}: {r.isa}, {r.route}, {r.products} products")
    print(f"torch {v['torch']} ({v['torch_cpu']}, {v['torch_blas']}), numpy {v['numpy']}, grpc {v['grpc']}")
    print(f"{'':38} {'min ms':>8} {'median':>8} {'ratio of min':>13} {'of median':>10} {'gradient error':>15}")
    for row in rows:
        print(
            f"{row['contestant']:38} {row['min_ms']:8.2f} {row['median_ms']:8.2f} {row['min_ratio']:13.2f} "
            f"{row['median_ratio']:10.2f} {row['gradient_error']:15.1e}"
        )
    o, e, f, i = (report[name] for name in ("overhead_ms", "engine_ms", "floor_ms", "in_process_overhead_ms"))
    fastest = min((row for row in rows if row["contestant"].startswith("torch")), key=lambda row: row["min_ms"])
    for rival in (fastest, *(row for row in rows if row["contestant"].startswith("paper"))):
        kind = "the fastest of PyTorch, " if rival is fastest else ""
        print(f"sidecar against {kind}{rival['contestant'].removeprefix('torch, ')}:", end=" ")
        print(f"{rival['min_ratio']:.2f} times as fast by the minima, {rival['median_ratio']:.2f} by the medians")
    print(f"{STEPS} steps one behind the other: engine min {e['min']:.3f}, median {e['median']:.3f} ms;", end=" ")
    print(f"transport beside it min {o['min']:.3f}, median {o['median']:.3f} ms,", end=" ")
    print(f"where copies and two wake-ups alone take min {f['min']:.3f}, median {f['median']:.3f};", end=" ")
    print(f"in process min {i['min']:.3f}, median {i['median']:.3f}")


if __name__ == "__main__":
    main()
