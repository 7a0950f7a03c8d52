"""The loss that OpenCLIP's loop is given: its own, and one entry more."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .._errors import Error, InputError
from .._result import Result
from .._session import Session
from ..torch import with_gradient
from ._loader import Window
from ._ranks import Alone, Ranks
from ._source import Source

KEY = "specalign_loss"
_log = logging.getLogger("specalign.openclip")


class RunStoppedError(Error):
    """The run cannot go on; the message says why."""


@dataclass
class Step:
    """How a window went, on one rank.

    Attributes:
        weight: by the schedule.
        value: of the penalty, unweighted; 0 where it failed.
        gradient: (n, d1) float32, unweighted, of this rank's rows; None where it failed or nobody wants it.
        result: what the sidecar returned, on the rank that asked it.
        failure: why there is nothing.
        milliseconds: from the features to the gradient.
    """

    weight: float
    value: float
    gradient: Tensor | None
    result: Result | None
    failure: str | None
    milliseconds: float


class Penalty:
    """Computes each window's penalty once, and decides what a failure means.

    Over several ranks it is one penalty, of all their rows: the first rank asks its sidecar and hands out what comes
    back. Whatever fails, and on whichever rank, counts as zero on all of them. Ranks with a penalty each (``scope:
    local``) count a failure as zero where it happened, and towards `max_failures` on all.
    """

    def __init__(self, session: Session | None, source: Source, max_failures: int, ranks: Ranks | None = None) -> None:
        """Hold what it takes.

        Args:
            session: with the sidecar; None on a rank that does not compute.
            source: of the reference's rows.
            max_failures: failed windows in a row that stop the run.
            ranks: those that the penalty is of; None is this process alone.
        """
        self._session = session
        self._source = source
        self._max_failures = max_failures
        self._ranks: Ranks = Alone() if ranks is None else ranks
        self._failures = 0

    def take(self, student: Tensor, window: Window, weight: float) -> Step:
        """Take the step of one window.

        Args:
            student: (n, d1) image features as the loss got them.
            window: of the same samples.
            weight: by the schedule; 0 asks for the value only.

        Raises:
            RunStoppedError: too many steps in a row have failed.
        """
        start = time.perf_counter()
        result = None
        keys, failure = self._keys(student, window)
        failure = self._ranks.agree(failure, len(student))
        value, gradient = 0.0, None
        if failure is None:
            assert keys is not None
            students, keys = self._ranks.gather(student), self._ranks.gather(keys)
            if self._ranks.first:
                result, failure = self._ask(students, keys, weight != 0)
            if result is not None:
                value, gradient = result.value, result.grad
            shared = self._ranks.share(failure, value, gradient, student)
            value, gradient, failure = shared.value, shared.gradient, shared.failure
        everybodys = self._ranks.settle(failure)  # ranks that compute each for itself stop together, too
        if everybodys is None:
            self._failures = 0
        else:
            self._failed(everybodys, here=failure is not None)
        return Step(weight, value, gradient, result, failure, (time.perf_counter() - start) * 1e3)

    def _keys(self, student: Tensor, window: Window) -> tuple[Tensor | None, str | None]:
        try:
            keys = self._source.keys(window, student)
            if len(keys) != len(student):
                raise InputError(f"the loss got {len(student)} image features, and the loader gave {len(keys)} samples")
        except Exception as e:  # whatever it is, the other ranks must not wait for this one
            return None, _line(e)
        return keys, None

    def _ask(self, student: Tensor, keys: Tensor, grad: bool) -> tuple[Result | None, str | None]:
        assert self._session is not None
        try:
            out = torch.empty(student.shape, dtype=torch.float32, device=student.device) if grad else None
            result = self._session.step(student, self._source.rows(keys), out, grad=grad)
            if not (math.isfinite(result.value) and math.isfinite(result.gradient_norm)):
                raise Error(f"the penalty came back as {result.value}")
        except Exception as e:  # as above
            return None, _line(e)
        return result, None

    def _failed(self, why: str, *, here: bool) -> None:
        self._failures += 1
        if self._failures >= self._max_failures:
            raise RunStoppedError(
                f"specalign: the penalty failed {self._failures} times in a row, so the run stops "
                f"(max_failures: {self._max_failures}); the last time: {why}"
            )
        _log.warning(
            "specalign: no penalty for this step, its value and gradient count as zero%s (%d of %d in a row): %s",
            "" if here else " there", self._failures, self._max_failures, why,
        )  # fmt: skip


class Loss(nn.Module):
    """OpenCLIP's loss with ``specalign_loss`` added to what it returns."""

    def __init__(
        self,
        inner: Any,
        penalty: Penalty,
        window: Window,
        weight: Callable[[int], float],
        told: Callable[[Window, Step], None],
        scale: float = 1.0,
    ) -> None:
        """Wrap `inner`.

        Args:
            inner: OpenCLIP's loss.
            penalty: computes.
            window: filled by the loader.
            weight: by the number of the window in this epoch.
            told: called once a window.
            scale: of the gradient beside the value's: DDP divides gradients by the number of ranks.
        """
        super().__init__()
        # Kept out of nn.Module's registry: what OpenCLIP does to its loss it does to `inner`, not to us.
        self.__dict__["_inner"] = inner
        self._penalty = penalty
        self._window = window
        self._weight = weight
        self._told = told
        self._scale = scale

    @torch.compiler.disable
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Forward to the inner loss; every argument is its own."""
        losses = self.__dict__["_inner"](*args, **kwargs)
        student = kwargs.get("image_features")
        if not isinstance(student, Tensor) or not isinstance(losses, dict):
            raise RunStoppedError(
                "specalign: this model's loss gets no image features, so there is nothing to align: "
                f"{type(self.__dict__['_inner']).__name__} was called with {', '.join(kwargs) or 'positional values'}"
            )
        window = self._window
        if window.value is None:
            window.value = self._penalty.take(student, window, self._weight(window.number))
            self._told(window, window.value)
        return {**losses, KEY: self._value(window.value, student)}

    def _value(self, step: Step, student: Tensor) -> Tensor:
        # Under accumulation the loss is asked once a batch for the same features, of which one batch carries the
        # graph each time: the one value and gradient are hung behind each.
        gradient = None if step.gradient is None else (step.weight * self._scale) * step.gradient
        return with_gradient(student, step.weight * step.value, gradient)


def _line(error: Exception) -> str:
    """Say what went wrong in a line; where it is nothing that this package raises on purpose, the log gets it all."""
    line = (str(error).splitlines() or [""])[0].removeprefix("specalign: ")
    if isinstance(error, Error):
        return line
    _log.error("specalign: a step failed unexpectedly", exc_info=error)
    return f"{type(error).__name__}: {line}"
