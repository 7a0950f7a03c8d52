"""The penalties of a step, computed once for each window of batches, over one rank or many."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._errors import Error, InputError
from .._result import Result
from .._session import Session
from ._balance import Balance
from ._config import Target
from ._loader import Window
from ._ranks import Alone, Failure, Ranks
from ._source import MissingError, Source

_log = logging.getLogger("specalign.openclip")

Norms = Callable[[dict[str, Tensor]], tuple[float, float]]


class RunStoppedError(Error):
    """The run cannot go on; the message says why."""


@dataclass
class Aligned:
    """A target, with what computes its penalty.

    Attributes:
        target: what is aligned with what.
        source: of the reference's rows.
        session: with the sidecar; None on a rank that does not compute.
        result: of the last step, on the rank that computed it.
        seen: the rows that step was of, student and reference, where somebody asked to keep them.
    """

    target: Target
    source: Source
    session: Session | None
    result: Result | None = None
    seen: tuple[Tensor, Any, np.ndarray | None] | None = None


@dataclass
class Step:
    """How a window went, on one rank.

    Attributes:
        weight: of the penalty.
        value: of the penalty, unweighted; 0 where it failed.
        gradients: by side, (n, d1) float32, unweighted, of this rank's rows; empty where it failed or nobody asked.
        results: what the sidecar returned for each target, on the rank that asked it; empty elsewhere.
        failure: why there is nothing.
        milliseconds: from the features to the gradient.
        skipped: rows left out because a store does not have them, over all targets; on the rank that computes.
        norms: of the gradients of task loss and penalty on the features, where the weight is found from them.
        keep: what else the loss remembers of the window.
    """

    weight: float
    value: float
    gradients: dict[str, Tensor]
    results: list[Result]
    failure: str | None
    milliseconds: float
    skipped: int = 0
    norms: tuple[float, float] | None = None
    keep: dict[str, Any] = field(default_factory=dict)


class Penalty:
    """Computes each window's penalties once, and decides what a failure means.

    Over several ranks it is of all their rows: the first rank asks its sidecar and hands out what comes back. Whatever
    fails, and on whichever rank, counts as zero on all of them. Ranks with a penalty each (``scope: local``) count a
    failure as zero where it happened, and towards `max_failures` on all.
    """

    def __init__(
        self, aligned: list[Aligned], max_failures: int, ranks: Ranks | None = None, balance: Balance | None = None
    ) -> None:
        """Hold what it takes.

        Args:
            aligned: the penalties; the value is the sum of theirs, by their weights.
            max_failures: failed windows in a row that stop the run.
            ranks: those that the penalty is of; None is this process alone.
            balance: finds the weight of each step; None where it is given.
        """
        self.aligned = aligned
        self.ranks: Ranks = Alone() if ranks is None else ranks
        self.balance = balance
        self.failures = 0
        self._max_failures = max_failures

    def take(
        self, students: dict[str, Tensor], window: Window, weight: float, norms: Norms | None = None,
        keep_rows: bool = False,
    ) -> Step:  # fmt: skip
        """Take the step of one window.

        Args:
            students: by side, (n, d1) features as the loss got them.
            window: of the same samples.
            weight: by the schedule, or the ratio if there is a `balance`; 0 asks for the value only.
            norms: measures this rank's gradients of task loss and penalty, for `balance`.
            keep_rows: keep the rows of this step in each `Aligned`.

        Raises:
            RunStoppedError: too many steps in a row have failed, or one that must not.
        """
        start = time.perf_counter()
        keys, failure = self._keys(students, window)
        n = len(next(iter(students.values())))
        failure = self.ranks.agree(failure, n)
        step = Step(weight, 0.0, {}, [], None, 0.0)
        if failure is None:
            everybody = {side: self.ranks.gather(rows) for side, rows in students.items()}
            gathered = {at: self.ranks.gather(k) for at, k in {id(k): k for k in keys}.items()}
            value = 0.0
            gradients: dict[str, Tensor] = {}
            if self.ranks.first:
                asked = [gathered[id(k)] for k in keys]
                value, gradients, failure = self._ask(everybody, asked, weight != 0, keep_rows, step)
            shared = self.ranks.share(failure, value, gradients, students)
            failure, step.value, step.gradients = shared.failure, shared.value, shared.gradients
        if failure is None and self.balance is not None and norms is not None:
            step.norms, failure = self._norms(norms, step.gradients)
            if failure is None:
                step.weight = self.balance.weight(weight, *step.norms)
        if failure is not None:
            step.weight, step.failure = 0.0 if self.balance else weight, failure.why
            step.value, step.gradients, step.results, step.norms = 0.0, {}, [], None
        everybodys = self.ranks.settle(failure)  # ranks that compute each for itself stop together, too
        if everybodys is None:
            self.failures = 0
        else:
            self._failed(everybodys, here=failure is not None)
        step.milliseconds = (time.perf_counter() - start) * 1e3
        return step

    def _keys(self, students: dict[str, Tensor], window: Window) -> tuple[list[Tensor], Failure | None]:
        keys = []
        for aligned in self.aligned:
            student = students[aligned.target.features]
            try:
                found = aligned.source.keys(window, student)
                if len(found) != len(student):
                    raise InputError(
                        f"the loss got {len(student)} {aligned.target.features} features, and the loader gave "
                        f"{len(found)} samples"
                    )
            except Exception as e:  # whatever it is, the other ranks must not wait for this one
                return [], Failure(self._line(e, aligned), isinstance(e, MissingError))
            keys.append(found)
        return keys, None

    def _ask(
        self, students: dict[str, Tensor], keys: list[Tensor], grad: bool, keep_rows: bool, step: Step
    ) -> tuple[float, dict[str, Tensor], Failure | None]:
        """Ask the sidecar for each penalty, and add them up."""
        value = 0.0
        gradients: dict[str, Tensor] = {}
        for aligned, key in zip(self.aligned, keys, strict=True):
            side, share = aligned.target.features, aligned.target.weight
            try:
                result, gradient, known = self._one(aligned, students[side], key, grad, keep_rows)
            except Exception as e:  # as above
                return 0.0, {}, Failure(self._line(e, aligned))
            aligned.result = result
            step.results.append(result)
            step.skipped += 0 if known is None else int((~known).sum())
            value += share * result.value
            if gradient is not None:
                gradient = gradient if share == 1 else share * gradient
                gradients[side] = gradients[side] + gradient if side in gradients else gradient
        return value, gradients, None

    @staticmethod
    def _one(
        aligned: Aligned, student: Tensor, key: Tensor, grad: bool, keep_rows: bool
    ) -> tuple[Result, Tensor | None, np.ndarray | None]:
        assert aligned.session is not None
        reference, known = aligned.source.rows(key)
        there = student
        if known is not None:
            if known.sum() < 2:
                raise InputError(f"the store has {int(known.sum())} of this step's {len(known)} samples")
            there = student[torch.from_numpy(known).to(student.device)]
        out = torch.empty(there.shape, dtype=torch.float32, device=student.device) if grad else None
        result = aligned.session.step(there, reference, out, grad=grad)
        if not (math.isfinite(result.value) and math.isfinite(result.gradient_norm)):
            raise Error(f"the penalty came back as {result.value}")
        if out is not None and known is not None:
            out = torch.zeros(student.shape, dtype=torch.float32, device=student.device)
            out[torch.from_numpy(known).to(student.device)] = result.grad
        aligned.seen = (there.detach().clone(), reference, known) if keep_rows else None
        return result, out, known

    def _norms(self, measure: Norms, gradients: dict[str, Tensor]) -> tuple[tuple[float, float], Failure | None]:
        """Return the norms over all ranks, after the mean that is taken over them; and why some rank has none."""
        squares, failure = [0.0, 0.0], None
        try:
            squares = [norm * norm for norm in measure(gradients)]
        except Exception as e:  # whatever it is, the other ranks must not wait for this one
            failure = Failure(f"the gradients' norms cannot be measured: {self._line(e)}")
        (task, penalty), failure = self.ranks.sum(squares, failure)
        return (math.sqrt(task) / self.ranks.size, math.sqrt(penalty) / self.ranks.size), failure

    def _failed(self, failure: Failure, *, here: bool) -> None:
        if failure.fatal:
            raise RunStoppedError(f"specalign: {failure.why}")
        self.failures += 1
        if self.failures >= self._max_failures:
            raise RunStoppedError(
                f"specalign: the penalty failed {self.failures} times in a row, so the run stops "
                f"(max_failures: {self._max_failures}); the last time: {failure.why}"
            )
        _log.warning(
            "specalign: no penalty for this step, its value and gradient count as zero%s (%d of %d in a row): %s",
            "" if here else " there", self.failures, self._max_failures, failure.why,
        )  # fmt: skip

    def _line(self, error: Exception, aligned: Aligned | None = None) -> str:
        """Say what went wrong in a line; what is nothing that this package raises on purpose, the log gets whole."""
        line = (str(error).splitlines() or [""])[0].removeprefix("specalign: ")
        if not isinstance(error, Error):
            _log.error("specalign: a step failed unexpectedly", exc_info=error)
            line = f"{type(error).__name__}: {line}"
        return line if aligned is None or len(self.aligned) == 1 else f"{aligned.target}: {line}"
