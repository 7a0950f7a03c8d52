"""A step of `specalign train` against the same model, loss and optimiser in PyTorch, in one run, alternating: a ratio.

::

    python python/bench/train.py                     # linear, mlp and convolutional students, batch 512, ky_fan 30
    python python/bench/train.py --student conv --batch 256 --json

PyTorch's penalty is ours, through the sidecar; both sides use all cores. The rows are images of 28 x 28 in 20 groups,
with noise. Medians over all rounds; the penalty's share is of the steps in Go. The students begin with other weights,
which changes no time. On a busy machine PyTorch's threads wait for each other: look at the load.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from step import cpu
from torch import nn

from specalign.torch import SpecAlign

SIZE, DIM, REFERENCE, WARM = 28, 64, 64, 10
STUDENTS = {
    "linear": "{kind: linear, hidden: [], dim: 64}",
    "mlp": "{kind: mlp, hidden: [128, 128], dim: 64}",
    "conv": "{kind: conv, image: [28, 28], channels: [16, 32], dim: 64}",
}


def model(kind: str) -> nn.Module:
    """Return the student of that kind."""
    if kind == "linear":
        return nn.Linear(SIZE * SIZE, DIM)
    if kind == "mlp":
        return nn.Sequential(
            nn.Linear(SIZE * SIZE, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, DIM)
        )
    return nn.Sequential(
        nn.Unflatten(1, (1, SIZE, SIZE)), nn.Conv2d(1, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(),
        nn.Flatten(), nn.Linear(32 * 7 * 7, DIM),
    )  # fmt: skip


def in_go(folder: Path, kind: str, a: argparse.Namespace, out: str) -> tuple[list[float], float]:
    """Return the seconds of each step of one run but the first, and the penalty's share of them all."""
    path = folder / "experiment.yaml"
    path.write_text(
        "# How long does a step take?\n"
        "data: {inputs: inputs.npy, reference: reference.npy}\n"
        f"student: {STUDENTS[kind]}\n"
        f"penalty: {{objective: ky_fan, k: {a.k}}}\n"
        f"steps: {a.steps + WARM}\nbatch: {a.batch}\ncheckpoint: 1000000\n"
    )
    command = [os.environ["SPECALIGN_BINARY"], "train", path, "--out", folder / out]
    subprocess.run(command, check=True, capture_output=True, timeout=600)
    with (folder / out / "seed-0" / "steps.csv").open() as f:
        seconds = [float(row["seconds"]) for row in csv.DictReader(f)]
    share = json.loads((folder / out / "seed-0" / "result.json").read_text())["share"]
    return seconds[WARM:], share


def in_torch(
    student: nn.Module, loss_fn: SpecAlign, rows: tuple[torch.Tensor, torch.Tensor], a: argparse.Namespace
) -> list[float]:
    """Return the seconds of each step but the first."""
    optimizer = torch.optim.Adam(student.parameters(), lr=1e-3)
    seconds = []
    for step in range(a.steps + WARM):
        part = torch.randperm(len(rows[0]))[: a.batch]
        begin = time.perf_counter()
        loss = loss_fn(student(rows[0][part]), rows[1][part])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step >= WARM:
            seconds.append(time.perf_counter() - begin)
    return seconds


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description="A step of specalign train against PyTorch, as a ratio.")
    parser.add_argument("--student", choices=STUDENTS, action="append", help="repeatable; all by default")
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--k", type=int, default=30, help="of ky_fan")
    parser.add_argument("--steps", type=int, default=40, help="a round, behind the first ten")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    a = parser.parse_args()
    rng = np.random.default_rng(1)
    group = rng.integers(0, 20, 4 * a.batch)
    inputs = rng.random((20, SIZE * SIZE))[group] + 0.3 * rng.random((len(group), SIZE * SIZE))
    reference = rng.standard_normal((20, REFERENCE))[group] + rng.standard_normal((len(group), REFERENCE))
    results = []
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        rows = []
        for name, x in (("inputs", inputs), ("reference", reference)):
            np.save(folder / f"{name}.npy", x.astype(np.float32))
            rows.append(torch.from_numpy(x.astype(np.float32)))
        for kind in a.student or STUDENTS:
            torch.manual_seed(0)
            student, loss_fn = model(kind), SpecAlign(1.0, objective="ky_fan", k=a.k)
            go: list[float] = []
            other: list[float] = []
            shares = []
            for turn in range(a.rounds):
                seconds, share = in_go(folder, kind, a, f"{kind}{turn}")
                go += seconds
                shares.append(share)
                other += in_torch(student, loss_fn, (rows[0], rows[1]), a)
            loss_fn.close()
            mine, theirs = statistics.median(go), statistics.median(other)
            results.append(
                {"student": kind, "train_ms": 1e3 * mine, "torch_ms": 1e3 * theirs, "ratio": mine / theirs,
                 "penalty_share": statistics.median(shares)}
            )  # fmt: skip
    head = {
        "cpu": cpu(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "batch": a.batch,
        "k": a.k,
        "load": os.getloadavg()[0],
    }
    if a.json:
        print(json.dumps({**head, "students": results}))
        return
    print(", ".join(f"{k} {v:.2f}" if isinstance(v, float) else f"{k} {v}" for k, v in head.items()))
    print(f"{'student':8}  {'train, ms':>10}  {'torch, ms':>10}  {'ratio':>6}  in the penalty")
    for r in results:
        cells = f"{r['train_ms']:10.1f}  {r['torch_ms']:10.1f}  {r['ratio']:6.2f}"
        print(f"{r['student']:8}  {cells}  {100 * r['penalty_share']:.0f} %")


if __name__ == "__main__":
    main()
