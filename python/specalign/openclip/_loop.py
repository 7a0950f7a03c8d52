"""Which of OpenCLIP's training loops is here."""

from __future__ import annotations

import inspect
from types import ModuleType

from .._errors import InputError

WORKING = "open_clip_torch 3.3.0"
_KNOWN = (
    "model", "data", "loss", "epoch", "optimizer", "scaler", "scheduler", "dist_model", "args", "tb_writer",
)  # fmt: skip


def trainer() -> ModuleType:
    """Import OpenCLIP's training program and look at its loop.

    Returns:
        The module ``open_clip_train.main``.

    Raises:
        InputError: it is not installed, or its loop is not one that is known here.
    """
    try:
        from open_clip_train import main as module
    except ImportError as e:
        raise InputError(
            f"specalign: OpenCLIP's training program cannot be imported ({e}); pip install 'open_clip_torch[training]'"
        ) from None
    loop = getattr(module, "train_one_epoch", None)
    names = tuple(inspect.signature(loop).parameters) if callable(loop) else ()
    if names != _KNOWN:
        found = f"train_one_epoch({', '.join(names)})" if names else "no train_one_epoch"
        raise InputError(
            f"specalign: the training loop of OpenCLIP {version()} is not one that is known here: it has {found}. "
            f"Known to work: {WORKING}"
        )
    return module  # type: ignore[no-any-return]


def version() -> str:
    """Return OpenCLIP's version, or ``unknown``."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as of

    try:
        return of("open_clip_torch")
    except PackageNotFoundError:
        return "unknown"
