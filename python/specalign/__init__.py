"""specalign: a penalty that makes one embedding see the groups that another one sees, while it trains.

A sidecar process computes the SPEC-align penalty of each minibatch and its gradient with respect to the student's
features::

    import specalign

    with specalign.Sidecar() as sidecar:
        session = sidecar.session(objective="ky_fan", k=30)
        result = session.step(student, reference)  # (n, d1) and (n, d2)
        result.value, result.grad

    loss_fn = specalign.torch.SpecAlign(weight=2.0)  # the same as a loss for PyTorch
"""

from __future__ import annotations

import importlib
import os
import platform
import sys
import warnings
from typing import TYPE_CHECKING, Any

from ._version import __version__

if sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"):
    raise ImportError(
        f"specalign runs on Linux on x86-64 and arm64; this is {sys.platform} on {platform.machine()}. "
        "Its sidecar shares memory with the training process through memfd, and watches it through a pidfd"
    )

# Read when grpc is loaded. Its own fork handlers wait, with Python's lock held, for calls that need that lock: a fork
# during a step would never return. Without them a fork leaves the parent's connection alone, and _fork.py sees to it
# that no child touches it.
if "grpc" in sys.modules and os.environ.get("GRPC_ENABLE_FORK_SUPPORT", "0").lower() in ("1", "yes", "true"):
    warnings.warn(
        "specalign: grpc was loaded with GRPC_ENABLE_FORK_SUPPORT on: a fork during a step, as of a DataLoader's "
        "workers, may hang; import specalign first, or leave that variable out",
        RuntimeWarning,
        stacklevel=2,
    )
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

from ._errors import (
    ClosedError,
    Error,
    InputError,
    ProcessError,
    ProtocolError,
    SidecarError,
    StepTimeoutError,
)
from ._result import Result
from ._session import Session
from ._shared import penalty
from ._sidecar import Sidecar

if TYPE_CHECKING:
    from . import torch as torch

__all__ = [
    "ClosedError",
    "Error",
    "InputError",
    "ProcessError",
    "ProtocolError",
    "Result",
    "Session",
    "Sidecar",
    "SidecarError",
    "StepTimeoutError",
    "__version__",
    "penalty",
]


def __getattr__(name: str) -> Any:
    # These load torch, which the rest of the package does without.
    if name in ("torch", "openclip"):
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
