"""Puts the penalty into OpenCLIP's training loop, and takes it out again."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import logging
import time
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import torch
import torch.distributed as dist

from .._errors import InputError
from . import _loop, _resume, _wds
from ._anchor import Anchored
from ._balance import Balance
from ._config import Config
from ._loader import Loader, Window, WithRows
from ._loss import Loss
from ._metrics import Metrics
from ._penalty import Aligned, Penalty, Step
from ._ranks import Alone, Apart, Group, Ranks
from ._samples import Groups

FROZEN = {
    "image": "specalign: nothing in the image tower is trainable (--lock-image), so the penalty would change nothing; "
    "unlock some of it, for example with --lock-image-unlocked-groups 1, or align text features",
    "text": "specalign: nothing in the text tower is trainable (--lock-text), so a penalty on text features would "
    "change nothing; unlock some of it, for example with --lock-text-unlocked-layers 1, or align image features",
}
_OF_TERMS = ("objective", "k", "p", "temperature")
_log = logging.getLogger("specalign.openclip")


class Attachment:
    """A training loop with the penalty in it.

    ``train_one_epoch`` of `module` is replaced by `epoch`, which calls the loop it replaced with two things changed:
    the loss, which returns one entry more, and the training data's loader, which remembers what the reference needs.
    Nothing else of OpenCLIP is touched, and no random number is drawn.
    """

    def __init__(self, config: Config, aligned: list[Aligned]) -> None:
        """`aligned` are the penalties of `config`, with sessions where this rank computes."""
        self._config = config
        self._aligned = aligned
        self._penalty: Penalty | None = None  # what follows is known when the first epoch begins
        self._loss: Loss | None = None
        self._metrics: Metrics | None = None
        self._groups: Groups | None = None
        self._rows = False  # whether the loader has to say which rows of a CSV a batch holds
        self._keep = any(a.source.keeps_images for a in aligned) or config.anchor is not None
        self._scaler: Any = None
        self._read: Any = None

    @contextlib.contextmanager
    def installed(self, module: ModuleType) -> Iterator[None]:
        """Replace the loop of `module`, ``open_clip_train.main``, while the block lasts."""
        loop = module.train_one_epoch
        self._read = _loop.reader(loop)
        module.train_one_epoch = self.epoch  # type: ignore[attr-defined]
        try:
            yield
        finally:
            module.train_one_epoch = loop  # type: ignore[attr-defined]
            if self._metrics is not None:
                self._metrics.close()

    def epoch(self, *given: Any, **named: Any) -> Any:
        """Train one epoch; arguments and result are the loop's own."""
        epoch: _loop.Epoch = self._read(*given, **named)
        args, train = epoch.args, epoch.data["train"]
        self._scaler = epoch.scaler
        if self._penalty is None:
            self._begin(epoch, train, args)
        assert self._penalty is not None
        assert self._loss is not None
        metrics, groups = self._metrics, self._groups
        window = Window(args.accum_freq, self._keep)
        windows = train.dataloader.num_batches // args.accum_freq
        config = self._config
        weight = config.weight if config.ratio is None else config.ratio.ratio
        assert weight is not None

        def number(of: int) -> int:
            return int(epoch.number * windows + of)

        def told(window: Window, step: Step) -> None:
            at = number(window.number)
            if groups is not None and groups.wanted(at):
                groups.step(at, window, self._aligned, step)
            if metrics is not None:
                log = window.number % args.log_every_n_steps == 0 or window.number + 1 == windows
                metrics.step(at, epoch.number, step, self._aligned, log=log, writer=epoch.writer)

        self._loss.begin(
            window, lambda of: weight * config.schedule.factor(number(of), args.epochs * windows), told,
            lambda of: groups is not None and groups.wanted(number(of)),
        )  # fmt: skip
        info = copy.copy(train)  # shares sampler and epoch counter; only its loader is another
        info.dataloader = Loader(train.dataloader, window)
        started = time.monotonic()
        with WithRows(train.dataloader) if self._rows else contextlib.nullcontext():
            result = epoch.run(self._loss, {**epoch.data, "train": info})
        if metrics is not None:
            metrics.epoch(epoch.number, time.monotonic() - started)
        _resume.save(self._penalty, epoch.number + 1, config, args)
        return result

    def _begin(self, epoch: _loop.Epoch, train: Any, args: Any) -> None:
        """Look at model and data, and say what will be done, before the first step."""
        config, model = self._config, _loop.unwrapped(epoch.model)
        if args.distributed:
            alike(config)
        if getattr(args, "use_naflex", False):
            raise InputError("specalign: --use-naflex is not supported: its batches have images of many shapes")
        for side in config.sides:
            if not trainable(model, side):
                raise InputError(FROZEN[side])
        for aligned in self._aligned:
            aligned.source.prepare(model, train, args)
        if any(a.source.keyed for a in self._aligned) or config.samples is not None:
            if hasattr(getattr(train.dataloader, "dataset", None), "images"):
                self._rows = True
            elif any(a.source.keyed for a in self._aligned) or hasattr(train.dataloader, "pipeline"):
                _wds.add_keys(train.dataloader)
        ranks: Ranks = Alone()
        if args.distributed:
            ranks = (Group if config.scope == "global" else Apart)(torch.device(args.device))
        balance = None if config.ratio is None else Balance(config.ratio)
        self._penalty = Penalty(self._aligned, config.max_failures, ranks, balance)
        _resume.load(self._penalty, config, args)
        factor = scale(config, args)
        anchor = None
        if config.anchor is not None:
            anchor = Anchored(config.anchor, factor / ranks.size, model, args)
        self._loss = Loss(
            epoch.loss, self._penalty, factor, counts=epoch.counts, anchor=anchor,
            amplify=lambda: 1.0 if self._scaler is None else float(self._scaler.get_scale()),
        )  # fmt: skip
        if config.samples is not None:
            self._groups = Groups(config.samples, train, args, ranks)
        if args.rank != 0:  # one of them tells
            return
        self._metrics = Metrics(args)
        self._tell(args, factor)

    def _tell(self, args: Any, factor: float) -> None:
        config = self._config
        if config.ratio is None:
            weight = f"weight {config.weight:g}"
        else:
            weight = f"gradient at {config.ratio.ratio:g} of the task's, smoothing {config.ratio.smoothing:g}"
        _log.info("specalign: %s, schedule %s", weight, config.schedule)
        for aligned in self._aligned:
            assert aligned.session is not None
            target = aligned.target
            share = "" if target.weight == 1 else f"{target.weight:g} times "
            _log.info("specalign: %s%s, on %s features", share, describe(aligned.session.settings), target.features)
            _log.info("specalign: reference: %s", aligned.source.describe())
        if config.anchor is not None:
            _log.info("specalign: anchor %g on %s features", config.anchor.weight, " and ".join(config.anchor.features))
        if args.distributed:
            _log.info(
                "specalign: %d ranks, scope %s, grad_scale %s: each rank's gradient of the penalty is multiplied by %g "
                "before the ranks' mean is taken", args.world_size, config.scope, config.grad_scale, factor,
            )  # fmt: skip
        if config.weight == 0:
            _log.info("specalign: the weight is 0: the penalty is watched and changes nothing")


def alike(config: Config) -> None:
    """Raise `InputError`, on every rank, where one has other settings: it would wait for what the others never say.

    Paths may be each machine's own.
    """
    names = [f.name for f in dataclasses.fields(config) if f.name not in ("path", "targets", "isolation", "places")]
    mine = {name: str(getattr(config, name)) for name in names}
    mine["references"] = str([(t.kind, t.features, t.weight, t.penalty) for t in config.targets])
    ranks: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(ranks, mine)
    for rank, other in enumerate(ranks):
        for name, value in other.items():
            if value != ranks[0][name]:
                raise InputError(
                    f"specalign: {name} is {ranks[0][name]} on rank 0 and {value} on rank {rank}; "
                    "give all ranks the same settings"
                )


def trainable(model: Any, side: str) -> bool:
    """Return whether a tower of the model has something to train: ``visual``, or what is not of it."""
    ours = [
        p for name, p in model.named_parameters()
        if name.startswith("visual.") == (side == "image") and not name.startswith("logit_")
    ]  # fmt: skip
    return not ours or any(p.requires_grad for p in ours)


def scale(config: Config, args: Any) -> float:
    """Return the factor of each rank's gradient, so that what remains after the mean over ranks is as asked for.

    ``exact`` is the gradient of the penalty as it is logged: of the whole batch, which each rank has some rows of, or
    (``scope: local``) of the mean of the ranks' own. OpenCLIP's contrastive gradient is exact in this sense only with
    ``--local-loss --gather-with-grad`` or ``--siglip``, and one over the number of ranks otherwise; ``openclip``
    shrinks the penalty's with it, so that the two stay in the ratio of a run of one process.
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
