"""The weight that holds the penalty's gradient at a ratio of the task's.

The norms are of the gradients with respect to the features, after the mean that DistributedDataParallel takes::

    weight = ratio * ||task|| / ||penalty||

That of the task loss comes from a backward pass through the loss alone, from its value to the features it was given:
the graph of the towers is not entered.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ._config import Ratio


class Balance:
    """Finds each step's weight.

    Attributes:
        state: what has to be kept for a run to go on: the smoothed norms, and the last weight for ratio 1.
    """

    def __init__(self, settings: Ratio) -> None:
        """`settings.ratio` is not used here: the schedule's ratio comes with each call."""
        self._settings = settings
        self.state: dict[str, float] = {}

    def weight(self, ratio: float, task: float, penalty: float) -> float:
        """Return the weight.

        Args:
            ratio: wanted at this step.
            task: norm of the task loss's gradient on the features; not finite in a step that a GradScaler will
                leave out.
            penalty: norm of the unweighted penalty's. Where one of the two cannot be used, the last weight stays.
        """
        if math.isfinite(task) and math.isfinite(penalty) and task > 0 and penalty > 0:
            keep = self._settings.smoothing
            # Of the logarithms, so that one outlier does not outweigh what came before it.
            logs = {"task": math.log(task), "penalty": math.log(penalty)}
            self.state |= {k: keep * self.state.get(k, v) + (1 - keep) * v for k, v in logs.items()}
            self.state["unit"] = math.exp(self.state["task"] - self.state["penalty"])
        return min(self._settings.max, ratio * self.state.get("unit", 0.0))


def measure(
    losses: dict[str, Tensor],
    counts: Callable[[str], bool],
    students: dict[str, Tensor],
    amplify: float,
    scale: float = 1.0,
) -> Callable[[dict[str, Tensor]], tuple[float, float]]:
    """Return a function from the penalty's gradients to both norms, on this rank.

    Args:
        losses: the task's, before anything is added.
        counts: which of them OpenCLIP adds up.
        students: by side, the features that the losses were computed from.
        amplify: the GradScaler's factor, without which a gradient in half precision underflows; 1 without one.
        scale: of the penalty's gradient; see `Loss`.
    """

    def norms(gradients: dict[str, Tensor]) -> tuple[float, float]:
        total: Any = sum(v for k, v in losses.items() if counts(k))
        inputs = [f for f in students.values() if f.requires_grad]
        if not isinstance(total, Tensor) or not total.requires_grad or not inputs:
            return 0.0, 0.0
        with torch.autocast(total.device.type, enabled=False):
            task = torch.autograd.grad(total * amplify, inputs, retain_graph=True, allow_unused=True)
        return _norm([g for g in task if g is not None]) / amplify, scale * _norm(list(gradients.values()))

    return norms


def _norm(parts: list[Tensor]) -> float:
    return math.sqrt(sum(float(p.detach().float().square().sum(dtype=torch.float64)) for p in parts))
