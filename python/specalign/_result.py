"""What a step returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ._messages import StepReply


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """The penalty of one minibatch and its gradient.

    `eigenvalues`, `gap`, `residual` and `gradient_error` are None for an objective that needs no spectrum.
    """

    value: float
    """The penalty: the sum of the terms' values times their weights."""
    grad: Any
    """(n, d1), the gradient with respect to the student's rows as given, in the student's type and on its device;
    `out` where that was given, None where no gradient was wanted. It belongs to the caller."""
    parts: tuple[float, ...]
    """The terms' values, unweighted, in the order of the settings."""
    eigenvalues: np.ndarray | None
    """(m,) float64, signed, by falling magnitude: those that the objective used and the next one, if there is one."""
    gap: float | None
    """|lambda_k| - |lambda_(k+1)|: how well the eigenspace, and so the gradient, is determined."""
    residual: float | None
    """The largest |L v - lambda v| over the eigenpairs used."""
    gradient_error: float | None
    """The estimated relative error of the gradient, from residuals, gaps and rounding errors."""
    gradient_norm: float
    """Frobenius norm of the gradient."""
    products: int
    """Matrix-vector products spent."""
    converged: bool
    """Whether the wanted tolerance was reached."""
    zero_rows: int
    """All-zero rows of student and reference together, which cosine kernels leave out."""
    warnings: tuple[str, ...]
    """What the caller should know about this step."""
    approximation: str
    """The approximation used: `exact` or its name."""
    student_sigma: float | None
    """The bandwidth used for the student; None for a kernel without one."""
    reference_sigma: float | None
    """The bandwidth used for the reference; None for a kernel without one."""
    route: str
    """Which algorithm ran."""
    device: str
    """Where it ran: `cpu`, `cuda:0` and the like."""
    isa: str
    """The instruction set or compute capability that ran it."""
    seconds: float
    """The engine's own time, without the way there and back."""
    seq: int
    """The number of the step in its session, from 1."""
    memory: str
    """Through which memory the rows went: `host`, or `device` where rows on a GPU stayed there."""
    restarts: int
    """How often the sidecar had to be replaced before this step succeeded."""

    @property
    def sigma(self) -> tuple[float | None, float | None]:
        """The bandwidths of student and reference."""
        return self.student_sigma, self.reference_sigma

    @classmethod
    def of(cls, reply: StepReply, grad: Any, restarts: int, memory: str = "host") -> Result:
        """Make a result of the sidecar's reply."""
        spectral = reply.spectral
        return cls(
            value=reply.value,
            grad=grad,
            parts=tuple(reply.parts),
            eigenvalues=np.array(reply.eigenvalues, dtype=np.float64) if spectral else None,
            gap=reply.gap if spectral else None,
            residual=reply.residual if spectral else None,
            gradient_error=reply.gradient_error if spectral else None,
            gradient_norm=reply.gradient_norm,
            products=reply.products,
            converged=reply.converged,
            zero_rows=reply.zero_rows,
            warnings=tuple(reply.warnings),
            approximation=reply.approximation,
            student_sigma=reply.student_sigma or None,
            reference_sigma=reply.reference_sigma or None,
            route=reply.route,
            device=reply.device,
            isa=reply.isa,
            seconds=reply.seconds,
            seq=reply.seq,
            memory=memory,
            restarts=restarts,
        )

    def __repr__(self) -> str:
        """Show the figures, and of the arrays only their shapes."""
        parts = [f"value={self.value:.6g}"]
        if self.eigenvalues is not None:
            shown = ", ".join(f"{v:.4g}" for v in self.eigenvalues[:3])
            dots = ", ..." if len(self.eigenvalues) > 3 else ""
            parts.append(f"eigenvalues=[{shown}{dots}] ({len(self.eigenvalues)})")
            parts.append(f"gap={self.gap:.3g}, residual={self.residual:.2g}, gradient_error={self.gradient_error:.2g}")
        if self.grad is not None:
            kind = str(self.grad.dtype).removeprefix("torch.")
            parts.append(f"grad={tuple(self.grad.shape)} {kind}, norm {self.gradient_norm:.4g}")
        parts.append(f"{'converged' if self.converged else 'NOT CONVERGED'} in {self.products} products")
        if self.zero_rows:
            parts.append(f"zero_rows={self.zero_rows}")
        parts.append(f"{self.route} on {self.device} ({self.isa}) in {self.seconds * 1e3:.3g} ms")
        parts += [f"warning: {w}" for w in self.warnings]
        return f"Result({'; '.join(parts)})"
