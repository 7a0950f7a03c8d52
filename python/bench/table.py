"""Steps of every kind against the best PyTorch in process, in one run, alternating, as ratios: a row an objective.

::

    python python/bench/table.py --threads 2 --seconds 5
    python python/bench/table.py --only schatten --seconds 20

Three contestants a row: the engine's own time, the whole step through Python, gRPC and the arena, and each way that we
know to write it in PyTorch, of which the fastest counts. All give value and gradient; the gradients' errors against
float64 are printed, so that nobody wins by stopping early.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import Any

import rivals
import torch
from step import contest, cpu, features
from torch import Tensor

import specalign

Call = Callable[[Tensor, Tensor], tuple[float, Tensor]]

SIGMAS = (220.0, 270.0)  # of the Gaussian kernels, near the median distance of these rows


def ky_fan(k: int, **paper: Call) -> dict[str, Call]:
    """Return the ways to a sum of k eigenvalues."""
    return {
        "eigh": lambda s, r: rivals.dense(s, r, k),
        "formed Lanczos": lambda s, r: rivals.lanczos_formed(s, r, k),
        "matrix-free Lanczos": lambda s, r: rivals.lanczos_free(s, r, k),
        **paper,
    }


def relational(inner: Call) -> Call:
    """Return a penalty with relational_kl beside it."""
    return lambda s, r: rivals.with_relational_kl(inner, s, r)


def gaussian(dense: bool) -> Call:
    """Return exact Gaussian kernels with one eigenvalue."""
    return lambda s, r: rivals.gaussian(s, r, SIGMAS, dense)


KY_FAN_30 = {"objective": "ky_fan", "k": 30}
# name: rows, settings, rivals, the exact one first
ROWS: dict[str, tuple[int, dict[str, Any], dict[str, Call]]] = {
    **{
        f"ky_fan 1, n = {n}": (n, {"k": 1}, ky_fan(1, paper=lambda s, r: rivals.paper(s, r, 1)))
        for n in (128, 512, 2048)
    },
    **{
        f"Gaussian, n = {n}": (
            n,
            {
                "kernel": "gaussian",
                "student_sigma": SIGMAS[0],
                "reference_sigma": SIGMAS[1],
                "approximation": "exact",
                "k": 1,
            },
            {"eigh": gaussian(True), "Lanczos": gaussian(False)},
        )
        for n in (512, 2048)
    },
    "ky_fan 30, n = 512": (512, KY_FAN_30, ky_fan(30)),
    "schatten 1.5, n = 512": (
        512,
        {"objective": "schatten", "p": 1.5},
        {"eigh": lambda s, r: rivals.schatten(s, r, 1.5)},
    ),
    "ky_fan 30 + relational_kl, n = 512": (
        512,
        {"terms": [KY_FAN_30, {"objective": "relational_kl"}]},
        {name: relational(call) for name, call in ky_fan(30).items()},
    ),
}


def row(sidecar: specalign.Sidecar, name: str, seconds: float) -> None:
    """Measure and print one row."""
    n, settings, calls = ROWS[name]
    student, reference = features(n, 512, 768, True)
    exact = calls["eigh"](student.double(), reference.double())
    session = sidecar.session(**settings)
    out = torch.empty_like(student)
    engine: list[float] = []
    route: list[str] = []

    def step() -> tuple[float, Tensor]:
        r = session.step(student, reference, out=out)
        engine.append(r.seconds)
        route[:] = [r.route]
        return r.value, out

    contestants: dict[str, Callable[[], tuple[float, Tensor]]] = {"specalign": step}
    for label, call in calls.items():
        contestants[label] = lambda call=call: call(student, reference)
    for _ in range(5):
        step()
    engine.clear()
    best = {label: min(t) * 1e3 for label, t in contest(contestants, 10_000, seconds).items()}
    errors = {}
    for label, call in contestants.items():
        value, grad = call()
        assert abs(value - exact[0]) < 1e-3 * abs(exact[0]) or label == "paper", (label, value, exact[0])
        errors[label] = ((grad.double() - exact[1]).norm() / exact[1].norm()).item()
    inside, through = min(engine) * 1e3, best.pop("specalign")
    print(f"{name}: {route[0]}; engine {inside:.2f} ms, through Python {through:.2f} ms,", end=" ")
    print(f"gradient error {errors['specalign']:.1e}")
    for label, ms in sorted(best.items(), key=lambda item: item[1]):
        print(
            f"    {label:22} {ms:8.2f} ms  {ms / inside:6.2f} x  {ms / through:6.2f} x  {errors[label]:8.1e}",
            flush=True,
        )
    session.close()


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description="Steps of every kind against the best PyTorch in process, as ratios.")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of PyTorch and of the sidecar")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each row")
    parser.add_argument("--only", default="", help="rows with this in their name")
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    with specalign.Sidecar(device="cpu", threads=a.threads) as sidecar:
        print(
            f"{cpu()}, {os.cpu_count()} CPUs, {a.threads} threads each, load average {os.getloadavg()[0]:.2f}; ", end=""
        )
        print(f"sidecar {sidecar.hello.version}, torch {torch.__version__} ({torch.backends.cpu.get_cpu_capability()})")
        print(
            "d = 512 and 768, minima; how many times as fast the engine is, and the step through Python; gradient error"
        )
        for name in ROWS:
            if a.only in name:
                row(sidecar, name, a.seconds)
        print(f"load average {os.getloadavg()[0]:.2f} after")


if __name__ == "__main__":
    main()
