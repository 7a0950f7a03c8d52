"""A run of OpenCLIP's training program with the penalty attached."""

from __future__ import annotations

import contextlib
import logging
from typing import Any

from .._errors import InputError
from .._sidecar import Sidecar
from . import _config, _loop, _wds
from ._attach import FROZEN, Attachment
from ._csv import column
from ._penalty import Aligned
from ._source import DistillSource, Source, StoreSource

_log = logging.getLogger("specalign.openclip")


def train(config: _config.Config, arguments: list[str]) -> int:
    """Train with the penalty, and return the exit code. Raises `InputError` for what can be known to be wrong."""
    module = _loop.trainer()
    # First everything that can be known to be wrong: OpenCLIP makes the run's folder as soon as it starts.
    args = _parsed(config, arguments)
    sources: dict[tuple[str, str], Source] = {}  # two targets with the same reference share it
    for target in config.targets:
        key = target.kind, target.features if target.kind == "distill" else target.name
        if key not in sources:
            sources[key] = _source(config, target, args)
    with contextlib.ExitStack() as stack:
        sidecar = None
        if _rank() == 0 or config.scope == "local":
            sidecar = stack.enter_context(Sidecar(isolation=config.isolation))
            if config.isolation == "none":
                _log.warning(
                    "specalign: isolation is none: a fault in a kernel ends the run, where a sidecar is replaced"
                )
        aligned = []
        for target in config.targets:
            try:
                session = None if sidecar is None else sidecar.session(**target.penalty)
            except InputError as e:
                raise config.error(str(e), target) from None
            key = target.kind, target.features if target.kind == "distill" else target.name
            aligned.append(Aligned(target, sources[key], session))
        stack.enter_context(Attachment(config, aligned).installed(module))
        status = module.main(arguments)
    return 1 if isinstance(status, int) and status != 0 else 0


def _rank() -> int:
    """Return this process's rank, found as OpenCLIP will find it."""
    from open_clip_train.distributed import world_info_from_env

    return int(world_info_from_env()[1])


def _parsed(config: _config.Config, arguments: list[str]) -> Any:
    """Return OpenCLIP's arguments as it will read them, if they are of a run that can be aligned."""
    from open_clip_train.params import parse_args

    args = parse_args(arguments)
    if not args.train_data and args.dataset_type != "synthetic":
        raise InputError("specalign: OpenCLIP's arguments have no --train-data, so there is nothing to train")
    if getattr(args, "horovod", False):
        raise InputError("specalign: --horovod is not supported")
    if "image" in config.sides and args.lock_image and not args.lock_image_unlocked_groups:
        raise InputError(FROZEN["image"])
    if "text" in config.sides and args.lock_text and not args.lock_text_unlocked_layers:
        raise InputError(FROZEN["text"])
    if _wds.is_webdataset(args):
        _wds.check_readable()
    return args


def _source(config: _config.Config, target: _config.Target, args: Any) -> Source:
    if target.kind == "live":
        from ._live import LiveSource

        return LiveSource(target.name, args.device)
    if target.kind == "distill":
        if not (args.distill_model and args.distill_pretrained):
            raise InputError("specalign: reference: distill needs OpenCLIP's --distill-model and --distill-pretrained")
        return DistillSource(target.features)
    source = StoreSource(target.name, config.missing)
    if _wds.is_webdataset(args):
        source.check_shards([_wds.shard_name(url) for url in _wds.shards(args.train_data)])
        return source
    data = args.train_data or "not given"
    if args.dataset_type == "csv" or (args.dataset_type == "auto" and data.endswith((".csv", ".tsv"))):
        source.check(column(args.train_data, args.csv_img_key, args.csv_separator))
    else:
        raise InputError(
            f"specalign: a store knows images by the paths of a CSV or by shards, and --train-data is "
            f"{data} (--dataset-type {args.dataset_type}); use one of these, or reference: {{live: MODEL}}"
        )
    return source
