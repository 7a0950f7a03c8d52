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

from .._errors import Error, InputError, ProcessError
from .._result import Result
from ..torch import Handle, SpecAlign
from ._loader import Window

KEY = "specalign_loss"
_log = logging.getLogger("specalign.openclip")


class RunStoppedError(Error):
    """The run cannot go on; the message says why."""


@dataclass
class Step:
    """How a window went.

    Attributes:
        handle: of the penalty; None where it failed.
        weight: by the schedule.
        result: what the sidecar returned; None where it failed.
        failure: why there is none.
        milliseconds: from the features to the gradient.
    """

    handle: Handle | None
    weight: float
    result: Result | None
    failure: str | None
    milliseconds: float


class Penalty:
    """Computes each window's penalty once, and decides what a failure means."""

    def __init__(self, penalty: SpecAlign, max_failures: int) -> None:
        """`max_failures` failed windows in a row stop the run."""
        self.function = penalty
        self._max_failures = max_failures
        self._failures = 0

    def take(self, student: Tensor, reference: Callable[[], Any], weight: float) -> Step:
        """Take the step of one window.

        Args:
            student: (n, d1) image features as the loss got them.
            reference: returns the (n, d2) rows of the same samples.
            weight: by the schedule; 0 asks for the value only.

        Raises:
            RunStoppedError: too many steps in a row have failed.
        """
        start = time.perf_counter()
        handle, result, failure = None, None, None
        try:
            rows = reference()
            if len(rows) != len(student):
                raise InputError(f"the loss got {len(student)} image features, and the loader gave {len(rows)} samples")
            with torch.set_grad_enabled(weight != 0 and torch.is_grad_enabled()):
                handle = self.function.submit(student, rows)
            result = handle.future.result()
            if not (math.isfinite(result.value) and math.isfinite(result.gradient_norm)):
                raise Error(f"the penalty came back as {result.value}")
        except ProcessError:
            raise
        except Error as e:
            handle, result = None, None
            failure = str(e).splitlines()[0].removeprefix("specalign: ")
            self._failed(failure)
        else:
            self._failures = 0
        return Step(handle, weight, result, failure, (time.perf_counter() - start) * 1e3)

    def _failed(self, why: str) -> None:
        self._failures += 1
        if self._failures >= self._max_failures:
            raise RunStoppedError(
                f"specalign: the penalty failed {self._failures} times in a row, so the run stops "
                f"(max_failures: {self._max_failures}); the last time: {why}"
            )
        _log.warning(
            "specalign: no penalty for this step, its value and gradient count as zero (%d of %d in a row): %s",
            self._failures, self._max_failures, why,
        )  # fmt: skip


class Loss(nn.Module):
    """OpenCLIP's loss with ``specalign_loss`` added to what it returns."""

    def __init__(
        self,
        inner: Any,
        penalty: Penalty,
        window: Window,
        reference: Callable[[Window, Tensor], Any],
        weight: Callable[[int], float],
        told: Callable[[Window, Step], None],
    ) -> None:
        """Wrap `inner`.

        Args:
            inner: OpenCLIP's loss.
            penalty: computes.
            window: filled by the loader.
            reference: returns the reference's rows of the window.
            weight: by the number of the window in this epoch.
            told: called once a window.
        """
        super().__init__()
        # Kept out of nn.Module's registry: what OpenCLIP does to its loss it does to `inner`, not to us.
        self.__dict__["_inner"] = inner
        self._penalty = penalty
        self._window = window
        self._reference = reference
        self._weight = weight
        self._told = told

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
            window.value = self._penalty.take(
                student, lambda: self._reference(window, student), self._weight(window.number)
            )
            self._told(window, window.value)
        return {**losses, KEY: self._value(window.value, student)}

    def _value(self, step: Step, student: Tensor) -> Tensor:
        if step.handle is None or step.weight == 0:
            return torch.zeros((), dtype=torch.float32, device=student.device)
        # Under accumulation the loss is asked once a batch for the same features, of which one batch carries the
        # graph each time: the one value and gradient are hung behind each.
        function = self._penalty.function
        function.weight = step.weight
        value: Tensor = function.wait(Handle(step.handle.future, student))
        return value
