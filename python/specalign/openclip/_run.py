"""``python -m specalign.openclip --config align.yaml -- <open_clip_train arguments>``."""

from __future__ import annotations

import argparse
import contextlib
import sys
from typing import Any

from .._errors import Error, InputError
from .._sidecar import Sidecar
from .._version import __version__
from . import _config, _loop
from ._attach import FROZEN, Attachment
from ._csv import column
from ._source import Source, StoreSource

_PROGRAM = "python -m specalign.openclip"
_DESCRIPTION = "OpenCLIP's own training command with the penalty added."
_EPILOG = f"""\
settings of align.yaml (those of the penalty have the same names as on specalign's command line):
  reference:      the folder that `{_PROGRAM} features` wrote, or {{live: MODEL}}
  weight:         of the penalty in the loss (1); 0 only watches it
  schedule:       constant, or {{kind: warmup, warmup: STEPS}}, or {{kind: cosine, warmup: STEPS, steps: N, final: 0}}
  objective, k, p, temperature, terms, kernel, sigma, approximation, solver, center, eta, device, threads, ...
  scope:          global, one penalty of all ranks' rows, or local, each rank its own
  grad_scale:     exact, or match: shrunk as OpenCLIP's own gradient is over several ranks
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
    args = _parsed(arguments)
    source = _source(config, args)
    with contextlib.ExitStack() as stack:
        session = None
        if _rank() == 0 or config.scope == "local":
            sidecar = stack.enter_context(Sidecar())
            try:
                session = sidecar.session(**config.penalty)
            except InputError as e:
                raise config.error(str(e)) from None
        stack.enter_context(Attachment(config, session, source).installed(module))
        status = module.main(arguments)
    return 1 if isinstance(status, int) and status != 0 else 0


def _rank() -> int:
    """Return this process's rank, found as OpenCLIP will find it."""
    from open_clip_train.distributed import world_info_from_env

    return int(world_info_from_env()[1])


def _parsed(arguments: list[str]) -> Any:
    """Return OpenCLIP's arguments as it will read them, if they are of a run that can be aligned."""
    from open_clip_train.params import parse_args

    args = parse_args(arguments)
    if not args.train_data and args.dataset_type != "synthetic":
        raise InputError("specalign: OpenCLIP's arguments have no --train-data, so there is nothing to train")
    if getattr(args, "horovod", False):
        raise InputError("specalign: --horovod is not supported")
    if args.lock_image and not args.lock_image_unlocked_groups:
        raise InputError(FROZEN)
    return args


def _source(config: _config.Config, args: Any) -> Source:
    if config.live is not None:
        from ._live import LiveSource

        return LiveSource(config.live, args.device)
    assert config.reference is not None
    source = StoreSource(config.reference)
    data = args.train_data or "not given"
    if args.dataset_type != "csv" and not (args.dataset_type == "auto" and data.endswith((".csv", ".tsv"))):
        raise InputError(
            f"specalign: a store knows images by the paths of a CSV, and --train-data is {data} "
            f"(--dataset-type {args.dataset_type}); train with a CSV, or with reference: {{live: MODEL}}"
        )
    source.check(column(args.train_data, args.csv_img_key, args.csv_separator))
    return source
