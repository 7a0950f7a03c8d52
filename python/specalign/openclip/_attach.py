"""Puts the penalty into OpenCLIP's training loop, and takes it out again."""

from __future__ import annotations

import contextlib
import copy
import logging
import time
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import torch

from .._errors import InputError
from .._session import Session
from ._config import Config
from ._loader import Loader, Window, WithIds
from ._loss import Loss, Penalty, Step
from ._metrics import Metrics
from ._ranks import Apart, Group, Ranks
from ._source import Source

FROZEN = (
    "specalign: nothing in the image tower is trainable (--lock-image), so the penalty would change nothing; "
    "unlock some of it, for example with --lock-image-unlocked-groups 1"
)
_OF_TERMS = ("objective", "k", "p", "temperature")
_log = logging.getLogger("specalign.openclip")


class Attachment:
    """A training loop with the penalty in it.

    ``train_one_epoch`` of `module` is replaced by `epoch`, which calls the loop it replaced with two things changed:
    the loss, which returns one entry more, and the training data's loader, which remembers what the reference needs.
    Nothing else of OpenCLIP is touched, and no random number is drawn.
    """

    def __init__(self, config: Config, session: Session | None, source: Source) -> None:
        """`session` is with the sidecar; None on a rank that does not compute."""
        self._config = config
        self._session = session
        self._source = source
        self._penalty: Penalty | None = None  # what follows is known when the first epoch begins
        self._metrics: Metrics | None = None
        self._ids: Any = None
        self._scale = 1.0
        self._loop: Any = None

    @contextlib.contextmanager
    def installed(self, module: ModuleType) -> Iterator[None]:
        """Replace the loop of `module`, ``open_clip_train.main``, while the block lasts."""
        self._loop = module.train_one_epoch
        module.train_one_epoch = self.epoch  # type: ignore[attr-defined]
        try:
            yield
        finally:
            module.train_one_epoch = self._loop  # type: ignore[attr-defined]
            if self._metrics is not None:
                self._metrics.close()

    def epoch(self, model: Any, data: Any, loss: Any, epoch: int, optimizer: Any, scaler: Any, scheduler: Any,
              dist_model: Any, args: Any, tb_writer: Any = None) -> Any:  # fmt: skip
        """Train one epoch; arguments and result are the loop's own."""
        train = data["train"]
        if self._penalty is None:
            self._begin(model, train, args)
        assert self._penalty is not None
        metrics = self._metrics
        window = Window(args.accum_freq, self._source.keeps_images)
        windows = train.dataloader.num_batches // args.accum_freq
        schedule, weight = self._config.schedule, self._config.weight

        def number(of: int) -> int:
            return int(epoch * windows + of)

        def told(window: Window, step: Step) -> None:
            if metrics is None:
                return
            last = window.number + 1 == windows
            metrics.step(
                step=number(window.number), epoch=epoch, writer=tb_writer,
                log=window.number % args.log_every_n_steps == 0 or last,
                weight=step.weight, milliseconds=step.milliseconds, result=step.result, failure=step.failure,
            )  # fmt: skip

        ours = Loss(
            loss, self._penalty, window,
            lambda of: weight * schedule.factor(number(of), args.epochs * windows), told, self._scale,
        )  # fmt: skip
        info = copy.copy(train)  # shares sampler and epoch counter; only its loader is another
        info.dataloader = Loader(train.dataloader, window)
        started = time.monotonic()
        with contextlib.nullcontext() if self._ids is None else WithIds(train.dataloader, self._ids):
            result = self._loop(
                model, {**data, "train": info}, ours, epoch, optimizer, scaler, scheduler, dist_model, args,
                tb_writer=tb_writer,
            )  # fmt: skip
        if metrics is not None:
            metrics.epoch(epoch, time.monotonic() - started)
        return result

    def _begin(self, model: Any, train: Any, args: Any) -> None:
        """Look at model and data, and say what will be done, before the first step."""
        inner = getattr(model, "module", model)
        visual = getattr(inner, "visual", None)
        if visual is not None and not any(p.requires_grad for p in visual.parameters()):
            raise InputError(FROZEN)
        self._ids = self._source.prepare(model, train, args)
        config = self._config
        ranks: Ranks | None = None
        if args.distributed:
            ranks = (Group if config.scope == "global" else Apart)(torch.device(args.device))
        self._penalty = Penalty(self._session, self._source, config.max_failures, ranks)
        self._scale = scale(config, args)
        if args.rank != 0:  # one of them tells
            return
        self._metrics = Metrics(args)
        assert self._session is not None
        _log.info(
            "specalign: %s, weight %g, %s", describe(self._session.settings), config.weight, config.schedule
        )  # fmt: skip
        _log.info("specalign: reference: %s", self._source.describe())
        if args.distributed:
            _log.info(
                "specalign: %d ranks, scope %s, grad_scale %s: each rank's gradient of the penalty is multiplied by %g "
                "before the ranks' mean is taken", args.world_size, config.scope, config.grad_scale, self._scale,
            )  # fmt: skip
        if config.weight == 0:
            _log.info("specalign: the weight is 0: the penalty is watched and changes nothing")


def scale(config: Config, args: Any) -> float:
    """Return the factor of each rank's gradient, so that what remains after the mean over ranks is as asked for.

    ``exact`` is the gradient of the penalty as it is logged: of the whole batch, which each rank has some rows of, or
    (``scope: local``) of the mean of the ranks' own. OpenCLIP's contrastive gradient is exact in this sense only with
    ``--local-loss --gather-with-grad`` or ``--siglip``, and one over the number of ranks otherwise; ``match`` shrinks
    the penalty's with it, so that the two stay in the ratio of a run of one process.
    """
    ranks = args.world_size
    factor = ranks if config.scope == "global" else 1
    exact = (args.local_loss and args.gather_with_grad) or getattr(args, "siglip", False)
    return float(factor if config.grad_scale == "exact" or exact else factor / ranks)


def describe(settings: dict[str, Any]) -> str:
    """Say the penalty's settings in a line, its terms as a sum."""
    terms = settings.get("terms") or [{k: v for k, v in settings.items() if k in _OF_TERMS}]

    def said(term: dict[str, Any]) -> str:
        weight = f"{term['weight']:g} " if "weight" in term else ""
        rest = ", ".join(f"{k} {v}" for k, v in term.items() if k not in ("objective", "weight"))
        return f"{weight}{term['objective']}" + (f" ({rest})" if rest else "")

    others = ", ".join(f"{k} {v}" for k, v in settings.items() if k != "terms" and k not in _OF_TERMS)
    return f"penalty {' + '.join(map(said, terms))}, {others}"
