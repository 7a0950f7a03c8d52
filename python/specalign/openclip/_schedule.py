"""How the penalty's weight goes over the run."""

from __future__ import annotations

import math
from dataclasses import dataclass

KINDS = ("constant", "warmup", "cosine")


@dataclass(frozen=True)
class Schedule:
    """The factor of the weight at each optimizer step.

    Attributes:
        kind: ``constant``; ``warmup``, a linear rise and then constant; ``cosine``, the same rise and then half a
            cosine down to `final`.
        warmup: steps of the rise; step s of them has the factor (s + 1) / warmup, as OpenCLIP's learning rate.
        steps: where the cosine ends; None is the end of the run.
        final: the factor where the cosine ends.
    """

    kind: str = "constant"
    warmup: int = 0
    steps: int | None = None
    final: float = 0.0

    def factor(self, step: int, run_steps: int) -> float:
        """Return the factor at `step` (from 0) of a run of `run_steps`."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        if self.kind != "cosine":
            return 1.0
        end = run_steps if self.steps is None else self.steps
        done = min(1.0, (step - self.warmup) / max(1, end - self.warmup))
        return self.final + (1.0 - self.final) * 0.5 * (1.0 + math.cos(math.pi * done))

    def __str__(self) -> str:
        """Say it as a log line would."""
        if self.kind == "constant":
            return "constant"
        rise = f"warm-up over {self.warmup} steps" if self.warmup else "no warm-up"
        if self.kind == "warmup":
            return rise
        end = "the end of the run" if self.steps is None else f"step {self.steps}"
        return f"{rise}, then a cosine to {self.final:g} at {end}"
