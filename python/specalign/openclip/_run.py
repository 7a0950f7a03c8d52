"""``python -m specalign.openclip --config align.yaml -- <open_clip_train arguments>``."""

from __future__ import annotations

import argparse
import contextlib
import sys
from typing import Any

from .._errors import Error, InputError
from .._sidecar import Sidecar
from .._version import __version__
from . import _config, _loop, _wds
from ._attach import FROZEN, Attachment
from ._csv import column
from ._penalty import Aligned
from ._source import DistillSource, Source, StoreSource

_PROGRAM = "python -m specalign.openclip"
_DESCRIPTION = "OpenCLIP's own training command with the penalty added."
_EPILOG = f"""\
settings of align.yaml (those of the penalty have the same names as on specalign's command line):
  reference:      the folder that `{_PROGRAM} features` wrote, {{live: MODEL}}, distill, or a list
  features:       what is aligned: image, text or both
  weight:         of the penalty in the loss (1); 0 only watches it; {{ratio: 0.4}} holds its gradient at that
                  ratio of the task's
  schedule:       constant, or {{kind: warmup, warmup: STEPS}}, or {{kind: cosine, warmup: STEPS, steps: N, final: 0}}
  objective, k, p, temperature, terms, kernel, sigma, approximation, solver, center, eta, device, threads, ...
  anchor:         weight of a term that keeps features near what they were when the run began
  missing:        a sample that the store lacks: stop, or skip its row
  scope:          global, one penalty of all ranks' rows, or local, each rank its own
  grad_scale:     exact, or openclip: shrunk as OpenCLIP's own gradient is over several ranks
  samples:        {{every: STEPS}} logs the samples of the groups that the student still misses
  max_failures:   failed steps in a row after which the run stops (10)

examples:
  {_PROGRAM} features --model timm:vit_small_patch14_dinov2.lvd142m --csv train.csv --center --output store
  {_PROGRAM} --config align.yaml -- --model ViT-B-32 --pretrained openai --train-data train.csv --batch-size 256
  {_PROGRAM} --config align.yaml --set weight=0 -- --model ...

exit code: 0 done, 1 the run failed, 2 bad input
"""


def main(argv: list[str]) -> int:
    """Train, and return the exit code."""
    ours, theirs = _split(argv)
    parser = argparse.ArgumentParser(
        prog=_PROGRAM, description=_DESCRIPTION, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter,
        usage=f"{_PROGRAM} --config align.yaml [--set NAME=VALUE ...] -- <open_clip_train arguments>",
        allow_abbrev=False,
    )  # fmt: skip
    parser.add_argument("--config", metavar="FILE", required=True, help="the penalty's settings")
    parser.add_argument(
        "--set", metavar="NAME=VALUE", action="append", default=[], help="a setting in place of the file's; repeatable"
    )
    parser.add_argument("--version", action="version", version=f"specalign {__version__}")
    options = parser.parse_args(ours)
    if theirs is None:
        parser.error("OpenCLIP's own arguments are missing; they come after --")
    try:
        return _train(_config.load(options.config, options.set), theirs)
    except InputError as e:
        return _fail(e, 2)
    except Error as e:
        return _fail(e, 1)
    except KeyboardInterrupt:
        print("specalign: interrupted", file=sys.stderr)
        return 130


def _split(argv: list[str]) -> tuple[list[str], list[str] | None]:
    if "--" not in argv:
        return argv, None
    at = argv.index("--")
    return argv[:at], argv[at + 1 :]


def _fail(error: Error, code: int) -> int:
    text = str(error).removeprefix("specalign: ")
    print(f"specalign: {text}", file=sys.stderr)
    return code


def _train(config: _config.Config, arguments: list[str]) -> int:
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
            sidecar = stack.enter_context(Sidecar())
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
