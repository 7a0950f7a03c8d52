"""The penalty as a loss for PyTorch.

::

    loss_fn = specalign.torch.SpecAlign(weight=2.0, objective="ky_fan", k=30)
    loss = task_loss + loss_fn(image_features, reference_features)
    loss.backward()

Or, so that the sidecar works while something else runs here::

    handle = loss_fn.submit(image_features, reference_features)
    text_features = text_tower(texts)
    loss = clip_loss(image_features, text_features) + loss_fn.wait(handle)
"""

from __future__ import annotations

import logging
import math
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from . import _checks, _shared
from ._errors import ClosedError, Error, InputError, ProcessError
from ._result import Result
from ._session import Session
from ._sidecar import Sidecar

_log = logging.getLogger("specalign.torch")

__all__ = ["Handle", "SpecAlign", "penalty", "with_gradient"]


@dataclass(frozen=True, slots=True, eq=False)
class Handle:
    """A penalty on its way: what `SpecAlign.submit` returns and `SpecAlign.wait` takes."""

    future: Future[Result]
    """Of the step; its result's `grad` is the float32 gradient of the unweighted value."""
    student: Tensor
    """The features that the penalty belongs to."""
    grad: bool
    """Whether a gradient was asked for."""


class _Penalty(torch.autograd.Function):
    """Puts a value and its gradient, both known, into the graph behind the student's features.

    Of the features only their place in the graph is used: they may be overwritten before the backward pass.
    """

    @staticmethod
    def forward(ctx: Any, student: Tensor, value: Tensor, gradient: Tensor | None) -> Tensor:
        # value: () float32, already weighted; gradient: (n, d) float32 of the same, or None where nobody wants it
        ctx.gradient = gradient
        ctx.student = student
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        if ctx.gradient is None:
            return None, None, None
        # In float32, then in the features' type: a GradScaler's factor comes before the rounding.
        grad = (grad_outputs[0].float() * ctx.gradient).to(ctx.student.dtype)
        if torch.is_grad_enabled():  # somebody asked for create_graph
            grad = _Once.apply(grad, ctx.student)
        return grad, None, None


class _Once(torch.autograd.Function):
    """A gradient that depends on the features and cannot be differentiated again."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, student: Tensor) -> Tensor:
        return gradient.clone()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        raise Error(
            "specalign: the penalty cannot be differentiated twice: its gradient is computed outside autograd; "
            "leave it out of losses whose gradient is differentiated again"
        )


class SpecAlign(nn.Module):
    """weight * penalty, differentiable with respect to the student's features.

    It has no parameters and nothing in its state dict. Autocast is off inside: features of any float type are taken
    as they are, widened to float32 by the sidecar, and the gradient is rounded to their type only after it was scaled.
    `torch.compile` leaves the call out of its graphs. Copies and pickles take the settings along and start sessions
    of their own, without what was remembered between steps.

    A step that fails (a NaN in the features, a time-out, a sidecar that dies again and again) has the value 0 and a
    gradient of zeros, and the logger `specalign.torch` says why; `max_failures` of them in a row raise an error. What
    would fail every time is raised at once: settings, shapes and types that cannot be.

    Attributes:
        weight: the factor; may be changed between steps.
        failure: why the last step failed; None where it did not.
        last: the `Result` of the last step that `forward` or `wait` returned, with the unweighted value; its `grad`
            is the float32 gradient, (n, d1), on the features' device. None before the first, and after a
            step that failed.
    """

    def __init__(
        self,
        weight: float = 1.0,
        *,
        sidecar: Sidecar | None = None,
        isolation: str = "process",
        max_failures: int = 10,
        **settings: Any,
    ) -> None:
        """Remember the settings; the session opens with the first step.

        Args:
            weight: the factor of the penalty in the loss.
            sidecar: the sidecar to use; by default one that the process shares.
            isolation: of the shared one, `process` or `none`; see `Sidecar`.
            max_failures: failed steps in a row after which `forward` and `wait` raise; 1 raises each failure itself.
            **settings: see `Sidecar.session`.
        """
        super().__init__()
        self.weight = _checks.weight(weight)
        self.max_failures = _checks.whole(max_failures, "max_failures", 1)
        if sidecar is not None and not isinstance(sidecar, Sidecar):
            raise InputError(f"specalign: sidecar is {_checks.brief(sidecar)}; give a specalign.Sidecar")
        self._isolation = _checks.isolation(isolation)
        if sidecar is not None and isolation != "process":
            raise InputError("specalign: isolation is given beside a sidecar, which has its own")
        self.failure: str | None = None
        self._failures = 0
        self.last: Result | None = None
        self._settings = settings
        self._sidecar = sidecar
        self._session: Session | None = None

    @property
    def session(self) -> Session:
        """The session, opened when it is first asked for. Raises what `Sidecar.session` raises."""
        if self._session is None:
            self._session = (self._sidecar or _shared.sidecar(self._isolation)).session(**self._settings)
        return self._session

    @torch.compiler.disable
    def forward(self, student: Tensor, reference: Any) -> Tensor:
        """Compute weight * penalty.

        Args:
            student: (n, d1) features, on any device, of any float type.
            reference: (n, d2) features of the same samples, tensor or array; no gradient flows there.

        Returns:
            A float32 scalar on the student's device. Where no gradient is wanted (`torch.no_grad`, features that
            do not require one) only the value is computed.

        Raises:
            InputError: shapes, types, settings or a weight that cannot be.
            Error: `max_failures` steps in a row have failed; the message says why, and names the row of a bad value.
        """
        return self.wait(self._submit(student, reference, now=True))

    @torch.compiler.disable
    def submit(self, student: Tensor, reference: Any) -> Handle:
        """Start the computation and return at once; arguments and errors as for `forward`.

        The features are copied before it returns (from a GPU: once they are computed there).
        """
        return self._submit(student, reference, now=False)

    @torch.compiler.disable
    def wait(self, handle: Handle) -> Tensor:
        """Return what `forward` would have, once the computation that `submit` started is done."""
        if not isinstance(handle, Handle):
            raise InputError(f"specalign: handle is {_checks.brief(handle)}; give what submit returned")
        try:
            result = handle.future.result()
            if not (math.isfinite(result.value) and math.isfinite(result.gradient_norm)):
                raise Error(f"specalign: the penalty came back as {result.value}")
        except (ClosedError, ProcessError):
            raise
        except Error as e:
            return self._failed(e, handle)
        self.last, self.failure, self._failures = result, None, 0
        gradient = None if result.grad is None else self.weight * result.grad
        return with_gradient(handle.student, self.weight * result.value, gradient)

    def _failed(self, error: Error, handle: Handle) -> Tensor:
        self._failures += 1
        self.last, self.failure = None, str(error).splitlines()[0].removeprefix("specalign: ")
        if self.max_failures == 1:
            raise error
        if self._failures >= self.max_failures:
            raise Error(
                f"specalign: the penalty failed {self._failures} times in a row (max_failures={self.max_failures}); "
                f"the last time: {self.failure}"
            ) from error
        _log.warning(
            "specalign: no penalty for this step, its value and gradient count as zero (%d of %d in a row): %s",
            self._failures, self.max_failures, self.failure,
        )  # fmt: skip
        student = handle.student
        zeros = torch.zeros(student.shape, dtype=torch.float32, device=student.device) if handle.grad else None
        return with_gradient(student, 0.0, zeros)

    def _submit(self, student: Tensor, reference: Any, now: bool) -> Handle:
        if not isinstance(student, Tensor):
            raise InputError(f"specalign: student is a {type(student).__name__}; give a tensor")
        if forward_ad.unpack_dual(student).tangent is not None:  # type: ignore[no-untyped-call]
            raise InputError("specalign: the penalty has no forward-mode derivative; use backward()")
        self.weight = _checks.weight(self.weight)
        grad = torch.is_grad_enabled() and student.requires_grad
        session = self.session
        job = session.job(student, reference, None, grad)  # raises what would fail every time
        if grad:
            job.out = torch.empty(student.shape, dtype=torch.float32, device=student.device)
        if not now:
            return Handle(session.start(job), student, grad)
        future: Future[Result] = Future()
        try:
            future.set_result(session.take(job))
        except Error as e:
            future.set_exception(e)
        return Handle(future, student, grad)

    def close(self) -> None:
        """Close the session; the next step opens another one."""
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def extra_repr(self) -> str:
        """Show weight and settings."""
        isolation = {} if self._isolation == "process" else {"isolation": self._isolation}
        return ", ".join(f"{k}={v!r}" for k, v in {"weight": self.weight, **isolation, **self._settings}.items())

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy takes along: not the session, the sidecar or the last result."""
        return {**self.__dict__, "_session": None, "_sidecar": None, "last": None}


def with_gradient(student: Tensor, value: float, gradient: Tensor | None) -> Tensor:
    """Return a loss whose value and gradient are known already.

    Args:
        student: (n, d1) features of any float type.
        value: of the loss.
        gradient: (n, d1) float32, of the loss with respect to `student`, on its device; None for a constant.

    Returns:
        A float32 scalar on the student's device; its backward pass hands grad_out * gradient, rounded to the
        features' type at the end, to `student`.
    """
    with torch.autocast(student.device.type, enabled=False):
        scalar = torch.tensor(value, dtype=torch.float32, device=student.device)
        if gradient is None:
            return scalar
        return _Penalty.apply(student, scalar, gradient)  # type: ignore[no-any-return]


def penalty(
    student: Tensor, reference: Any, *, weight: float = 1.0, session: Session | None = None, **settings: Any
) -> Tensor:
    """Compute weight * penalty, differentiable with respect to `student`: the function beside `SpecAlign`.

    Args:
        student: (n, d1) features, on any device, of any float type.
        reference: (n, d2) features of the same samples, tensor or array.
        weight: the factor of the penalty.
        session: the session to take the step in; without one the call stands for itself.
        **settings: of a call that stands for itself; see `Sidecar.session`.

    Returns:
        A float32 scalar on the student's device.

    Raises:
        InputError: shapes, types, values or settings that cannot be.
        SidecarError: the sidecar failed, or died and could not be replaced.
    """
    if session is not None and not isinstance(session, Session):
        raise InputError(f"specalign: session is {_checks.brief(session)}; give a specalign.Session")
    loss_fn = SpecAlign(weight, max_failures=1, **settings)
    if session is None:
        try:
            return loss_fn(student, reference)  # type: ignore[no-any-return]
        finally:
            loss_fn.close()
    if settings:
        raise InputError(f"specalign: {', '.join(settings)} given beside a session, which has its settings")
    loss_fn._session = session
    return loss_fn(student, reference)  # type: ignore[no-any-return]
