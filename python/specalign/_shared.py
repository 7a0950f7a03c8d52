"""The sidecar that a process shares among those who do not want to hold one."""

from __future__ import annotations

import threading
from typing import Any

from . import _checks
from ._result import Result
from ._sidecar import Sidecar

_lock = threading.Lock()
_sidecars: dict[str, Sidecar] = {}  # by isolation


def sidecar(isolation: str = "process") -> Sidecar:
    """Return the process's shared sidecar, launched when it is first asked for; it ends with the process."""
    with _lock:
        shared = _sidecars.get(isolation)
        if shared is None or shared.closed:
            shared = _sidecars[isolation] = Sidecar(isolation=isolation)
        return shared


def penalty(student: Any, reference: Any, *, isolation: str = "process", **settings: Any) -> Result:
    """Compute one penalty and its gradient in a sidecar that the process shares.

    Every call stands for itself: bandwidths are found on these rows. For training use a `Session` or
    `specalign.torch.SpecAlign`, which also cost less per step.

    Args:
        student: (n, d1) array or tensor; see `Session.step`.
        reference: (n, d2) array or tensor of the same samples.
        isolation: `process` or `none`; see `Sidecar`.
        **settings: see `Sidecar.session`.

    Raises:
        InputError: shapes, types, values or settings that cannot be.
        SidecarError: the sidecar could not be started, or failed.
    """
    with sidecar(_checks.isolation(isolation)).session(**settings) as session:
        return session.step(student, reference)
