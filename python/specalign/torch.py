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

from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from . import _shared
from ._errors import Error, InputError
from ._result import Result
from ._session import Session
from ._sidecar import Sidecar

__all__ = ["Handle", "SpecAlign", "penalty", "with_gradient"]


@dataclass(frozen=True, slots=True, eq=False)
class Handle:
    """A penalty on its way: what `SpecAlign.submit` returns and `SpecAlign.wait` takes."""

    future: Future[Result]
    """Of the step; its result's `grad` is the float32 gradient of the unweighted value."""
    student: Tensor
    """The features that the penalty belongs to."""


class _Penalty(torch.autograd.Function):
    """Puts a value and its gradient, both known, into the graph behind the student's features."""

    @staticmethod
    def forward(ctx: Any, student: Tensor, value: Tensor, gradient: Tensor | None) -> Tensor:
        # value: () float32, already weighted; gradient: (n, d) float32 of the same, or None where nobody wants it
        ctx.gradient = gradient
        ctx.save_for_backward(student)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        if ctx.gradient is None:
            return None, None, None
        (student,) = ctx.saved_tensors
        return _Scaled.apply(grad_outputs[0], ctx.gradient, student), None, None


class _Scaled(torch.autograd.Function):
    """grad_out * G in float32, then in the features' type: a GradScaler's factor comes before the rounding."""

    @staticmethod
    def forward(ctx: Any, grad_out: Tensor, gradient: Tensor, student: Tensor) -> Tensor:
        return (grad_out.float() * gradient).to(student.dtype)

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

    Attributes:
        weight: the factor; may be changed between steps.
        last: the `Result` of the last step that `forward` or `wait` returned, with the unweighted value; its `grad`
            is the float32 gradient, (n, d1), on the features' device. None before the first.
    """

    def __init__(self, weight: float = 1.0, *, sidecar: Sidecar | None = None, **settings: Any) -> None:
        """Remember the settings; the session opens with the first step.

        Args:
            weight: the factor of the penalty in the loss.
            sidecar: the sidecar to use; by default one that the process shares.
            **settings: see `Sidecar.session`.
        """
        super().__init__()
        self.weight = float(weight)
        self.last: Result | None = None
        self._settings = settings
        self._sidecar = sidecar
        self._session: Session | None = None

    @property
    def session(self) -> Session:
        """The session, opened when it is first asked for. Raises what `Sidecar.session` raises."""
        if self._session is None:
            self._session = (self._sidecar or _shared.sidecar()).session(**self._settings)
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
            InputError: shapes, types or values that cannot be, such as a NaN; the message names the row.
            SidecarError: the sidecar failed, or died and could not be replaced.
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
        result = handle.future.result()
        self.last = result
        student = handle.student
        gradient = None if result.grad is None else self.weight * result.grad
        return with_gradient(student, self.weight * result.value, gradient)

    def _submit(self, student: Tensor, reference: Any, now: bool) -> Handle:
        if not isinstance(student, Tensor):
            raise InputError(f"specalign: student is a {type(student).__name__}; give a tensor")
        out = None
        if torch.is_grad_enabled() and student.requires_grad and student.ndim == 2:
            out = torch.empty(student.shape, dtype=torch.float32, device=student.device)
        session = self.session
        if not now:
            return Handle(session.submit(student, reference, out, grad=out is not None), student)
        future: Future[Result] = Future()
        future.set_result(session.step(student, reference, out, grad=out is not None))
        return Handle(future, student)

    def close(self) -> None:
        """Close the session; the next step opens another one."""
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def extra_repr(self) -> str:
        """Show weight and settings."""
        return ", ".join(f"{k}={v!r}" for k, v in {"weight": self.weight, **self._settings}.items())

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
    loss_fn = SpecAlign(weight, **settings)
    if session is None:
        try:
            return loss_fn(student, reference)  # type: ignore[no-any-return]
        finally:
            loss_fn.close()
    if settings:
        raise InputError(f"specalign: {', '.join(settings)} given beside a session, which has its settings")
    loss_fn._session = session
    return loss_fn(student, reference)  # type: ignore[no-any-return]
