"""Rows that stay on the GPU, on their way to the sidecar and in process, against the way through host memory.

::

    SPECALIGN_BINARY=./specalign-gpu python gpu_share.py     # on a machine with a GPU, PyTorch, NumPy and grpcio

The same bits, and how long each takes. Exits 1 where rows do not stay there, and says why, where two ways differ in a
bit, or where a step read rows before they were there.
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
    with specalign.Sidecar(device="cuda") as sidecar, specalign.Sidecar(device="cuda", isolation="none") as here:
        print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}, sidecar on {sidecar.hello.device}")
        for rows in (40, 512, 4096):  # the first of them is left to the CPU
            for dtype in (torch.float32, torch.bfloat16, torch.float16):
                student, reference = features(rows, dtype)
                sessions = {
                    name: owner.session(objective="ky_fan", k=5)
                    for name, owner in (("through host memory", sidecar), ("shared", sidecar), ("in process", here))
                }
                host = sessions["through host memory"]
                host._stepper._refused[torch.cuda.current_device()] = "not wanted"
                for layout, s, r in (("dense", student, reference), ("apart", student[:, :500], reference[:, ::2])):
                    want = host.step(s, r)
                    for name, session in list(sessions.items())[1:]:
                        got = session.step(s, r)
                        same = got.value == want.value and torch.equal(got.grad, want.grad)
                        if got.memory != "device" or not same:
                            print(f"{rows} {dtype} {layout}, {name}: memory {got.memory}, same bits: {same}")
                            print(session.memory_note)
                            failed = True
                want = host.step(student, reference)
                for name, session in sessions.items():
                    with torch.cuda.stream(torch.cuda.Stream()):  # where rows are not there yet when the step begins
                        torch.cuda._sleep(200_000_000)
                        late = student.clone()
                        got = session.step(late, reference)
                        same = got.value == want.value and torch.equal(got.grad, want.grad)
                    if not same:
                        print(f"{rows} {dtype}, {name}: rows were read, or the gradient came, at the wrong time")
                        failed = True
                if dtype == torch.float32:
                    times = [
                        f"{name} {microseconds(session, student, reference):.0f} us"
                        for name, session in sessions.items()
                    ]
                    print(f"{rows} rows: {', '.join(times)}")
                for session in sessions.values():
                    session.close()
    print("FAILED" if failed else "the same bits by all ways")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
