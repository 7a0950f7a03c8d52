"""The penalty in PyTorch on a GPU: the paper's algorithm as it is written, and the best that PyTorch can do with it.

::

    python python/bench/gpu_rivals.py                # rows, cosine, exact Gaussian and random features

Rows and gradients stay on the device. The fast rival captures everything in CUDA graphs: the kernel's part and a
Lanczos iteration of a fixed number of steps in one, the small eigenproblem on the CPU, the gradient in another.
`--compile` lets torch.compile make the graphs' parts. Times are medians of synchronised calls, in microseconds.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

D1, D2, R, STEPS = 512, 768, 1024, 20


def groups(n: int, d: int, merge: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(20, d, generator=generator)
    return (centres[(torch.arange(n) * 7 % 20) // merge] + torch.randn(n, d, generator=generator)).cuda()


def median(call: Callable[[], object], seconds: float = 0.4) -> float:
    for _ in range(3):
        call()
    torch.cuda.synchronize()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 5:
        begin = time.perf_counter()
        call()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - begin)
    return statistics.median(times) * 1e6


def features(kind: str, x: Tensor, w: Tensor | None) -> Tensor:
    if kind == "cosine":
        return torch.nn.functional.normalize(x, dim=1)
    assert w is not None
    phase = x @ w.T
    return torch.cat([phase.cos(), phase.sin()], 1) / math.sqrt(len(w))


def gaussian(x: Tensor, sigma: float) -> Tensor:
    sq = (x * x).sum(1)
    return torch.exp((2 * (x @ x.T) - sq[:, None] - sq[None, :]).clamp(max=0) / (2 * sigma * sigma))


def paper(kind: str, x: Tensor, y: Tensor, w1: Tensor | None, w2: Tensor | None, steps: int = 20) -> Tensor:
    """20 right and 20 left power steps on G (D, D) of eq. 4, or on L of the exact kernel; autograd back to the rows."""
    x = x.detach().requires_grad_()
    if kind == "gaussian":
        g = (gaussian(x, 45.0) - gaussian(y, 55.0)) / len(x)
    else:
        phi, psi = features(kind, x, w1), features(kind, y, w2)
        rows = torch.cat([phi, psi], 1)
        signs = torch.ones(rows.shape[1], 1, device="cuda")
        signs[phi.shape[1] :] = -1
        g = signs * (rows.T @ rows) / len(x)
    with torch.no_grad():
        u, w = torch.randn(len(g), device="cuda"), torch.randn(len(g), device="cuda")
        for _ in range(steps):
            u = g @ u
            u = u / u.norm()
            w = g.T @ w
            w = w / w.norm()
    value = (w @ (g @ u) / (w @ u)).abs()
    value.backward()
    assert x.grad is not None
    return x.grad


class Graphs:
    """Lanczos of STEPS steps with full re-orthogonalisation in a CUDA graph, and the gradient in a second one."""

    def __init__(self, kind: str, x: Tensor, y: Tensor, w1: Tensor | None, w2: Tensor | None, compiled: bool) -> None:
        n = len(x)
        self.start = torch.nn.functional.normalize(torch.randn(n, device="cuda"), dim=0)
        self.ritz, self.sign = torch.zeros(STEPS, device="cuda"), torch.ones((), device="cuda")

        def forward() -> tuple[Tensor, Tensor, Tensor, Tensor]:
            left = torch.empty(0, device="cuda")
            if kind == "gaussian":
                left = gaussian(x, 45.0)
                matrix = (left - gaussian(y, 55.0)) / n
            else:
                left, right = features(kind, x, w1), features(kind, y, w2)
                if n <= 1500:
                    matrix = (left @ left.T - right @ right.T) / n
            basis = torch.zeros(STEPS + 1, n, device="cuda")
            basis[0] = self.start
            alpha, beta = [], []
            for m in range(STEPS):
                v = basis[m]
                formed = kind == "gaussian" or n <= 1500
                w = matrix @ v if formed else (left @ (left.T @ v) - right @ (right.T @ v)) / n
                q = basis[: m + 1]
                h = q @ w
                w = w - h @ q
                w = w - (q @ w) @ q
                b = w.norm()
                alpha.append(h[m])
                beta.append(b)
                basis[m + 1] = w / b
            return torch.stack(alpha + beta), basis, left, self.start

        def backward(basis: Tensor, left: Tensor) -> Tensor:
            v = self.ritz @ basis[:STEPS]
            if kind == "gaussian":
                weight = self.sign * (2 / (n * 45.0**2)) * (v[:, None] * v[None, :]) * left
                return weight @ x - weight.sum(1, keepdim=True) * x
            g = (self.sign * 2 / n) * v[:, None] * (v @ left)[None, :]
            if kind == "cosine":
                inverse = x.norm(dim=1, keepdim=True).reciprocal()
                return (g - left * (left * g).sum(1, keepdim=True)) * inverse
            assert w1 is not None
            return (left[:, :R] * g[:, R:] - left[:, R:] * g[:, :R]) @ w1

        with torch.no_grad():
            run, back = forward, backward
            if compiled:
                run, back = (torch.compile(f, dynamic=False) for f in (forward, backward))
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(3):
                    _, basis, left, _ = run()
                    back(basis, left)
            torch.cuda.current_stream().wait_stream(stream)
            self.first, self.second = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.first):
                self.t, self.basis, self.left, _ = run()
            with torch.cuda.graph(self.second):
                self.grad = back(self.basis, self.left)

    def step(self) -> Tensor:
        """Compute one penalty and return its gradient (n, d1)."""
        self.first.replay()
        t = self.t.cpu().double()
        matrix = torch.diag(t[:STEPS]) + torch.diag(t[STEPS:-1], 1) + torch.diag(t[STEPS:-1], -1)
        values, vectors = torch.linalg.eigh(matrix)
        top = int(values.abs().argmax())
        self.ritz.copy_(vectors[:, top].float())
        self.sign.fill_(float(values[top].sign()))
        self.value = float(values[top].abs())
        self.second.replay()
        return self.grad


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[512, 4096, 8192])
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--tf32", action="store_true")
    o = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = o.tf32
    print(torch.cuda.get_device_name(), torch.__version__, "tf32:", o.tf32, "compiled:", o.compile)
    for n in o.rows:
        x, y = groups(n, D1, 4, 1), groups(n, D2, 1, 2)
        for kind in ("cosine", "gaussian", "rff"):
            w1, w2 = (torch.randn(R, d, device="cuda") / 60 for d in (D1, D2)) if kind == "rff" else (None, None)
            line = f"n {n:5d} {kind:8s} paper, eager {median(partial(paper, kind, x, y, w1, w2)):9.1f} us"
            try:
                graphs = Graphs(kind, x, y, w1, w2, o.compile)
                line += f", CUDA graphs {median(graphs.step):9.1f} us (value {graphs.value:.6g})"
                del graphs
            except Exception as e:
                line += f", CUDA graphs failed: {type(e).__name__}: {str(e).splitlines()[0][:80]}"
            print(line, flush=True)


if __name__ == "__main__":
    main()
