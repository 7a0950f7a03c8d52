"""Which of OpenCLIP's training loops is here, and what its arguments mean."""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from .._errors import InputError

WORKING = "open_clip_torch 3.3.0, and the loop with tasks of the 4.x development line (4.2.0.dev0 of 2026-06-27)"
_RELEASED = (
    "model", "data", "loss", "epoch", "optimizer", "scaler", "scheduler", "dist_model", "args", "tb_writer",
)  # fmt: skip
_TASKS = ("state", "data", "args", "tb_writer")


def absent(e: ModuleNotFoundError) -> str:
    """Return what to do about a module that comes with OpenCLIP and is not here."""
    return f"specalign: there is no {e.name} in {sys.prefix}; pip install 'open_clip_torch[training]'"


@dataclass(frozen=True)
class Epoch:
    """One call of ``train_one_epoch``, of whichever loop.

    Attributes:
        model: OpenCLIP's, in its wrappers.
        loss: its loss.
        data: its data, by split.
        number: of the epoch, from 0.
        scaler: its GradScaler, or None.
        args: its arguments.
        writer: its TensorBoard writer, or None.
        counts: which entries of the losses the loop adds up.
        run: the loop itself, with another loss and other data in place of its own.
    """

    model: Any
    loss: Any
    data: dict[str, Any]
    number: int
    scaler: Any
    args: Any
    writer: Any
    counts: Callable[[str], bool]
    run: Callable[[Any, dict[str, Any]], Any]


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
    reader(getattr(module, "train_one_epoch", None))
    return module  # type: ignore[no-any-return]


def reader(loop: Any) -> Callable[..., Epoch]:
    """Return what understands the arguments of `loop`, found by its signature; raises `InputError` if nothing does."""
    names = tuple(inspect.signature(loop).parameters) if callable(loop) else ()
    if names == _RELEASED:
        return lambda *args, **kwargs: _released(loop, *args, **kwargs)
    if names == _TASKS:
        return lambda *args, **kwargs: _tasks(loop, *args, **kwargs)
    found = f"train_one_epoch({', '.join(names)})" if names else "no train_one_epoch"
    raise InputError(
        f"specalign: the training loop of OpenCLIP {version()} is not one that is known here: it has {found}. "
        f"Known to work: {WORKING}"
    )


def _released(loop: Any, model: Any, data: Any, loss: Any, epoch: int, optimizer: Any, scaler: Any, scheduler: Any,
              dist_model: Any, args: Any, tb_writer: Any = None) -> Epoch:  # fmt: skip
    def run(ours: Any, data: dict[str, Any]) -> Any:
        return loop(model, data, ours, epoch, optimizer, scaler, scheduler, dist_model, args, tb_writer=tb_writer)

    return Epoch(model, loss, data, epoch, scaler, args, tb_writer, lambda _: True, run)


def _tasks(loop: Any, state: Any, data: Any, args: Any, tb_writer: Any = None) -> Epoch:
    task = state.task
    loss = getattr(task, "loss", None)
    keys = tuple(getattr(task, "data_keys", ()))
    if loss is None or keys != ("image", "text"):
        raise InputError(
            f"specalign: OpenCLIP's {type(task).__name__} is not supported: the penalty needs a task of images and "
            "texts with a contrastive loss (CLIP, SigLIP, CoCa, distillation)"
        )

    def run(ours: Any, data: dict[str, Any]) -> Any:
        with _replaced(task, ours):
            return loop(state, data, args, tb_writer=tb_writer)

    return Epoch(
        task.trainable_module, loss, data, state.epoch, state.scaler, args, tb_writer,
        lambda name: name.endswith("_loss"), run,
    )  # fmt: skip


@contextlib.contextmanager
def _replaced(task: Any, loss: Any) -> Iterator[None]:
    own = task.loss
    task.loss = loss
    try:
        yield
    finally:
        task.loss = own


def unwrapped(model: Any) -> Any:
    """Return the model within DistributedDataParallel and torch.compile."""
    while True:
        inner = getattr(model, "_orig_mod", None) or getattr(model, "module", None)
        if inner is None:
            return model
        model = inner


def version() -> str:
    """Return OpenCLIP's version, or ``unknown``."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as of

    try:
        return of("open_clip_torch")
    except PackageNotFoundError:
        return "unknown"
