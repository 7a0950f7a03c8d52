"""The loss that OpenCLIP's loop is given: its own, and one entry more, or two."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..torch import with_gradient
from ._anchor import Anchored
from ._balance import measure
from ._loader import Window
from ._penalty import Penalty, RunStoppedError, Step

KEY = "specalign_loss"
ANCHOR_KEY = "specalign_anchor_loss"


class Loss(nn.Module):
    """OpenCLIP's loss with ``specalign_loss`` added to what it returns, and ``specalign_anchor_loss`` with an anchor.

    One lasts for the whole run, because compiled graphs know it; `begin` tells it of each epoch.
    """

    def __init__(
        self,
        inner: Any,
        penalty: Penalty,
        scale: float = 1.0,
        *,
        counts: Callable[[str], bool] = lambda _: True,
        amplify: Callable[[], float] = lambda: 1.0,
        anchor: Anchored | None = None,
    ) -> None:
        """Wrap `inner`.

        Args:
            inner: OpenCLIP's loss.
            penalty: computes.
            scale: of the gradient beside the value's: DDP divides gradients by the number of ranks.
            counts: which entries of the losses OpenCLIP adds up.
            amplify: the GradScaler's factor.
            anchor: the anchor term.
        """
        super().__init__()
        # Kept out of nn.Module's registry: what OpenCLIP does to its loss it does to `inner`, not to us.
        self.__dict__["_inner"] = inner
        self._penalty = penalty
        self._scale = scale
        self._counts = counts
        self._amplify = amplify
        self._anchor = anchor
        self._sides = tuple(dict.fromkeys(a.target.features for a in penalty.aligned))

    def begin(
        self, window: Window, weight: Callable[[int], float], told: Callable[[Window, Step], None],
        keep_rows: Callable[[int], bool] = lambda _: False,
    ) -> None:  # fmt: skip
        """Begin an epoch.

        Args:
            window: filled by the loader.
            weight: by the number of the window in this epoch.
            told: called once a window.
            keep_rows: whether the rows of a window are to be kept until `told` is called.
        """
        self._window = window
        self._weight = weight
        self._told = told
        self._keep_rows = keep_rows

    @torch.compiler.disable
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Forward to the inner loss; every argument is its own."""
        losses = self.__dict__["_inner"](*args, **kwargs)
        students = {side: kwargs.get(f"{side}_features") for side in self._sides}
        if not all(isinstance(s, Tensor) for s in students.values()) or not isinstance(losses, dict):
            raise RunStoppedError(
                f"specalign: this model's loss gets no {' and '.join(self._sides)} features, so there is nothing to "
                f"align: {type(self.__dict__['_inner']).__name__} was called with "
                f"{', '.join(kwargs) or 'positional values'}"
            )
        window = self._window
        if window.value is None:
            window.inputs = kwargs
            norms = measure(losses, self._counts, students, self._amplify(), self._scale)  # type: ignore[arg-type]
            number = window.number
            window.value = self._penalty.take(
                students, window, self._weight(number), norms, self._keep_rows(number)  # type: ignore[arg-type]
            )  # fmt: skip
            self._told(window, window.value)
            window.inputs = {}
        added = {KEY: self._value(window.value, students)}  # type: ignore[arg-type]
        if self._anchor is not None:
            added[ANCHOR_KEY] = self._anchor.loss(kwargs, window)
        return {**losses, **added}

    def _value(self, step: Step, students: dict[str, Tensor]) -> Tensor:
        # Under accumulation the loss is asked once a batch for the same features, of which one batch carries the
        # graph each time: the one value and gradient are hung behind each. The value hangs behind the first side.
        value = step.weight * step.value
        total: Tensor | None = None
        for side, student in students.items():
            gradient = step.gradients.get(side)
            if gradient is not None:
                gradient = (step.weight * self._scale) * gradient
            part = with_gradient(student, value if total is None else 0.0, gradient)
            total = part if total is None else total + part
        assert total is not None
        return total
