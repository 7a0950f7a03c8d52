"""Shows that the sidecar works while the text tower runs, as a time line of one training step.

::

    python examples/overlap.py

`submit` hands the image features over and returns; the text tower runs; `wait` takes the penalty, with its gradient,
into the loss. What is left of the sidecar's time on the critical path is the end of its bar behind the text tower's.
On a machine whose cores are all busy with the towers, overlapping moves work around rather than hiding it.
"""

from __future__ import annotations

import itertools
import statistics
import time

import torch
from torch import nn

import specalign.torch

WIDTH = 60


def main(rows: int = 1024, steps: int = 12) -> float:
    """Run some steps and draw the one of median length; return the overlapped share of the sidecar's time."""
    torch.manual_seed(0)
    torch.set_num_threads(1)  # leaves a core to the sidecar even on two
    image_tower = nn.Sequential(nn.Linear(512, 1024), nn.GELU(), nn.Linear(1024, 512))
    text_tower = nn.Sequential(*[nn.Sequential(nn.Linear(512, 512), nn.GELU()) for _ in range(8)])
    images, texts, reference = torch.randn(rows, 512), torch.randn(rows, 512), torch.randn(rows, 768)
    runs = []
    with specalign.Sidecar(device="cpu", threads=1) as sidecar:
        align = specalign.torch.SpecAlign(sidecar=sidecar, objective="ky_fan", k=8)
        for _ in range(steps):
            times = {}
            begin = times["image tower"] = time.perf_counter()
            z = nn.functional.normalize(image_tower(images), dim=-1)
            times["submit"] = time.perf_counter()
            handle = align.submit(z, reference)
            ready: list[float] = []
            handle.future.add_done_callback(lambda _, ready=ready: ready.append(time.perf_counter()))
            times["text tower"] = time.perf_counter()
            t = nn.functional.normalize(text_tower(texts), dim=-1)
            times["wait"] = time.perf_counter()
            penalty = align.wait(handle)
            times["backward"] = time.perf_counter()
            (nn.functional.cross_entropy(20 * z @ t.T, torch.arange(rows)) + penalty).backward()
            end = time.perf_counter()
            starts = [*times.values(), end]
            bars = dict(zip(times, itertools.pairwise(starts), strict=True))
            assert align.last is not None
            done = ready[0]
            bars["sidecar"] = (max(done - align.last.seconds, times["submit"]), done)
            runs.append((end - begin, begin, bars))
    runs.sort(key=lambda run: run[0])
    total, begin, bars = runs[len(runs) // 2]
    scale = WIDTH / total
    for name in ("image tower", "submit", "text tower", "wait", "backward", "sidecar"):
        start, stop = bars[name]
        first = int((start - begin) * scale)
        length = max(1, round((stop - start) * scale))
        line = (" " * first + "#" * length).ljust(WIDTH)[:WIDTH]
        print(f"{name:>12} |{line}| {(stop - start) * 1e3:7.2f} ms")

    def share(bars: dict[str, tuple[float, float]]) -> float:
        (a, b), (c, d) = bars["sidecar"], bars["text tower"]
        return max(0.0, min(b, d) - max(a, c)) / (b - a)

    overlapped = statistics.median(share(run[2]) for run in runs)
    print(f"overlapped with the text tower: {overlapped:.0%} of the sidecar's time (median of {steps} steps)")
    return overlapped


if __name__ == "__main__":
    main()
