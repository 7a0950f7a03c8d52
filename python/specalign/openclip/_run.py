"""``python -m specalign.openclip --config align.yaml -- <open_clip_train arguments>``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from .._errors import Error, InputError
from .._version import __version__
from . import _config, _loop

_PROGRAM = "python -m specalign.openclip"
_DESCRIPTION = "OpenCLIP's own training command with the penalty added."
_EPILOG = f"""\
settings of align.yaml (those of the penalty have the same names as on specalign's command line):
  reference:      the folder that `{_PROGRAM} features` wrote, {{live: MODEL}}, distill, or a list
  features:       what is aligned: image, text or both
  weight:         of the penalty in the loss (1); 0 only watches it; {{ratio: 0.4}} holds its gradient at that
                  ratio of the task's
  schedule:       constant, or {{kind: warmup, warmup: STEPS}}, or {{kind: cosine, warmup: STEPS, steps: N, final: 0}}
  objective, k, p, temperature, terms, kernel, sigma, approximation, solver, center, eta, fast, device, ...
  anchor:         weight of a term that keeps features near what they were when the run began
  missing:        a sample that the store lacks: stop, or skip its row
  scope:          global, one penalty of all ranks' rows, or local, each rank its own
  grad_scale:     exact, or openclip: shrunk as OpenCLIP's own gradient is over several ranks
  samples:        {{every: STEPS}} logs the samples of the groups that the student still misses
  max_failures:   failed steps in a row after which the run stops (10)
  isolation:      process, a sidecar, or none: the engine in the trainer's own process

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
        config = _config.load(options.config, options.set)
        return _trainer()(config, theirs)
    except InputError as e:
        return _fail(e, 2)
    except Error as e:
        return _fail(e, 1)
    except KeyboardInterrupt:
        print("specalign: interrupted", file=sys.stderr)
        return 130


def _trainer() -> Callable[[_config.Config, list[str]], int]:
    """Import PyTorch and OpenCLIP, which takes seconds: what is wrong without them was said before."""
    try:
        from ._train import train
    except ModuleNotFoundError as e:
        raise InputError(_loop.absent(e)) from None
    return train


def _split(argv: list[str]) -> tuple[list[str], list[str] | None]:
    if "--" not in argv:
        return argv, None
    at = argv.index("--")
    return argv[:at], argv[at + 1 :]


def _fail(error: Error, code: int) -> int:
    text = str(error).removeprefix("specalign: ")
    print(f"specalign: {text}", file=sys.stderr)
    return code
