"""``python -m specalign.openclip features``: a frozen model's features of a data set's images."""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import sys
import time
from typing import Any

import numpy as np
import torch

from .._errors import Error, InputError
from . import _wds
from ._csv import column
from ._draft import Draft
from ._embed import Pieces, of_csv, of_shards
from ._models import FORMS, Reference, load_model
from ._store import Store, StoreError, check_place

_PROGRAM = "python -m specalign.openclip features"
_EPILOG = f"""\
models:
{FORMS}
examples:
  {_PROGRAM} --model timm:vit_small_patch14_dinov2.lvd142m \\
      --csv train.csv --center --output reference-store
  torchrun --nproc-per-node 8 -m specalign.openclip features --model timm:vit_small_patch14_dinov2.lvd142m \\
      --shards 'cc12m/{{00000..01242}}.tar' --workers 6 --output reference-store

One that is interrupted goes on where it stopped, when the same command is given again.
"""


def main(argv: list[str]) -> int:
    """Make a store, and return the exit code."""
    try:
        rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        said = make(parse(argv), rank, size, collect=rank == 0)
    except InputError as e:
        print(f"specalign: {str(e).removeprefix('specalign: ')}", file=sys.stderr)
        return 2
    except Error as e:
        print(f"specalign: {str(e).removeprefix('specalign: ')}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("specalign: interrupted; the same command goes on with what is done", file=sys.stderr)
        return 130
    if said:
        print(said)
    return 0


def parse(
    argv: list[str], program: str = _PROGRAM, more: dict[str, dict[str, Any]] | None = None
) -> argparse.Namespace:
    """Read the command line, with `more` flags: the arguments of each for argparse."""
    parser = argparse.ArgumentParser(
        prog=program, description="Compute a frozen reference model's features of a data set's images, once.",
        epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
    )  # fmt: skip
    local = os.environ.get("LOCAL_RANK", "0")
    add = parser.add_argument
    add("--model", metavar="SPEC", required=True, help="the reference; see below")
    data = parser.add_mutually_exclusive_group(required=True)
    data.add_argument("--csv", metavar="FILE", help="the CSV that OpenCLIP will train on")
    data.add_argument("--shards", metavar="URLS", help="the WebDataset shards, as OpenCLIP's --train-data")
    add("--csv-separator", default="\t", metavar="C", help="as for OpenCLIP; a tab")
    add("--csv-img-key", default="filepath", metavar="NAME", help="column of the images' paths (filepath)")
    add("--csv-caption-key", default="title", metavar="NAME", help="column of the captions (title)")
    add("--center", action="store_true", help="subtract the features' mean from them when they are read")
    add("--batch-size", type=_positive, default=64, metavar="N", help="images at once (64)")
    add("--workers", type=int, default=0, metavar="N", help="processes that load images (0: none but this one)")
    add("--device", default=f"cuda:{local}" if torch.cuda.is_available() else "cpu", help="of the model (%(default)s)")
    add("--output", metavar="FOLDER", required=True, help="the store to write")
    add("--force", action="store_true", help="replace a store that is there, or pieces of another one")
    for name, arguments in (more or {}).items():
        add(name, **arguments)
    return parser.parse_args(argv)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


def check(options: argparse.Namespace) -> None:
    """Refuse a place that a store cannot be written to."""
    if os.path.lexists(options.output) and not options.force:
        raise StoreError(f"specalign: {options.output} is there; choose another place, or say --force to replace it")
    check_place(options.output)


def make(options: argparse.Namespace, rank: int, size: int, *, collect: bool) -> str:
    """Make the pieces of a rank, every `size`-th, and where it is to collect the store of all; return what to say."""
    started = time.monotonic()
    check(options)
    if options.csv is not None:
        paths = column(options.csv, options.csv_img_key, options.csv_separator)
        data: dict[str, Any] = {
            "csv": os.path.abspath(options.csv), "img_key": options.csv_img_key, "rows": len(paths)
        }  # fmt: skip
        digest = hashlib.sha256("\n".join(paths).encode("utf-8", "surrogateescape")).hexdigest()
    else:
        _wds.check_readable()
        urls = _wds.shards(options.shards)
        data, digest = {"urls": options.shards}, hashlib.sha256("\n".join(urls).encode()).hexdigest()
    reference = load_model(options.model, options.device)
    steps = re.sub(r" at 0x[0-9a-f]+", "", str(reference.preprocess or "captions, averaged over an image's"))
    made = {
        "model": reference.name,
        "model_fingerprint": reference.fingerprint,
        "preprocessing": " ".join(steps.split()),
    }
    draft = Draft(options.output, {**made, "data": digest}, force=options.force)
    try:
        if options.csv is not None:
            captions = []
            if reference.preprocess is None:
                captions = column(options.csv, options.csv_caption_key, options.csv_separator)
            pieces = of_csv(reference, paths, captions, options, draft, rank, size)
        else:
            pieces = of_shards(reference, urls, options, draft, rank, size)
        if not collect:
            return ""
        draft.wait([name for name, _ in pieces])
        store = _store(reference, made, data, pieces, draft, options)
    except Error as e:
        raise type(e)(f"{e}; {draft.leave()}") if type(e) in (InputError, StoreError) else e from None
    store.save(options.output)
    draft.remove()
    return (
        f"{options.output}: {store.dim} features of {len(store.ids):,} images by {reference.name}"
        f"{', centred' if options.center else ''}, in {time.monotonic() - started:.0f} s "
        f"({store.fingerprint[:12]})"
    )


def _store(
    reference: Reference, made: dict[str, Any], data: dict[str, Any], pieces: Pieces, draft: Draft,
    options: argparse.Namespace,
) -> Store:  # fmt: skip
    parts = [draft.get(name) for name, _ in pieces]
    ids, features, sizes = (np.concatenate([p[i] for p in parts if len(p[0])]) for i in range(3))
    bad = ~np.isfinite(features).all(axis=1)
    if bad.any():
        raise InputError(
            f"specalign: {reference.name} gives features of sample {int(bad.argmax())} that are not finite"
        )
    if options.csv is None:
        data = {**data, "shards": {shard: len(p[0]) for (_, shard), p in zip(pieces, parts, strict=True)}}
    return Store.make({**made, "data": data}, ids, features, sizes, center=options.center)
