"""Rows that stay on the GPU on their way to the sidecar, against the way through host memory: same bits, and how long.

::

    SPECALIGN_BINARY=./specalign-gpu python gpu_share.py     # on a machine with a GPU, PyTorch, NumPy and grpcio

Exits 1 where the memory is not shared, and says why, or where the two differ in a bit.
"""

from __future__ import annotations

import statistics
import sys
import time

import torch

import specalign

STEPS = 50


def features(rows: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Return student and reference rows of 20 groups, on the GPU."""
    generator = torch.Generator("cuda").manual_seed(1)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, device="cuda")

    group = torch.randint(0, 20, (rows,), generator=generator, device="cuda")
    hidden = normal(20, 32)[group] + 0.6 * normal(rows, 32)
    student = hidden @ normal(32, 512) + 2 * normal(rows, 512)
    return student.to(dtype), (hidden @ normal(32, 768) + 2 * normal(rows, 768)).to(dtype)


def microseconds(session: specalign.Session, student: torch.Tensor, reference: torch.Tensor) -> float:
    """Return the median of a step's time, the gradient on the GPU included."""
    out, took = torch.empty(student.shape, device="cuda"), []
    for _ in range(STEPS):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        session.step(student, reference, out)
        torch.cuda.synchronize()
        took.append(time.perf_counter() - begin)
    return statistics.median(took[5:]) * 1e6


def main() -> int:
    """Compare, and print a line for each batch."""
    failed = False
    with specalign.Sidecar(device="cuda") as sidecar:
        print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}, sidecar on {sidecar.hello.device}")
        for rows in (40, 512, 4096):  # the first of them is left to the CPU
            for dtype in (torch.float32, torch.bfloat16, torch.float16):
                student, reference = features(rows, dtype)
                with (
                    sidecar.session(objective="ky_fan", k=5) as shared,
                    sidecar.session(objective="ky_fan", k=5) as host,
                ):
                    host._stepper._refused[torch.cuda.current_device()] = "not wanted"
                    for name, s, r in (("dense", student, reference), ("apart", student[:, :500], reference[:, ::2])):
                        a, b = shared.step(s, r), host.step(s, r)
                        same = a.value == b.value and torch.equal(a.grad, b.grad)
                        if a.memory != "device" or b.memory != "host" or not same:
                            print(f"{rows} {dtype} {name}: {a.memory} and {b.memory}, same bits: {same}")
                            print(shared.memory_note)
                            failed = True
                    stream = torch.cuda.Stream()
                    with torch.cuda.stream(stream):  # where the rows are not there yet when the step begins
                        torch.cuda._sleep(200_000_000)
                        late = student.clone()
                        c = shared.step(late, reference)
                    if c.value != shared.step(student, reference).value:
                        print(f"{rows} {dtype}: a step read rows before they were there")
                        failed = True
                    if dtype == torch.float32:
                        took = microseconds(shared, student, reference), microseconds(host, student, reference)
                        print(f"{rows} rows: {took[0]:.0f} us on the GPU, {took[1]:.0f} us through host memory")
    print("FAILED" if failed else "the same bits by both ways")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
