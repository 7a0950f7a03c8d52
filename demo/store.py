"""The reference's features: a store for the training images, made by the launcher, and those of the held-out ones."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from specalign.openclip import Store

from . import evaluation, reference
from .console import Console, DemoError
from .evaluation import Floats
from .files import digest, fingerprint, read_json, write_json, written
from .pairs import Part

_SHUFFLE_SEED = 7


@dataclass(frozen=True)
class Made:
    """The reference's features.

    Attributes:
        train: path of the store that the penalty reads.
        of_train: (n, 1280) its rows in the CSV's order, centred by their own mean.
        held_out: (m, 1280) features of the held-out images, centred by the training images' mean.
        fingerprint: changes whenever an image, the weights or the code that makes features does.
    """

    train: Path
    of_train: Floats
    held_out: Floats
    fingerprint: str

    def shuffled(self, console: Console) -> Path:
        """Return a store whose rows belong to other images: the same features, and none of their meaning."""
        path = self.train.with_name("reference-shuffled")
        marker = path.with_name("reference-shuffled.json")
        if path.exists() and read_json(marker) == {"of": self.fingerprint, "seed": _SHUFFLE_SEED}:
            return path
        marker.unlink(missing_ok=True)
        Store.open(self.train).permuted(_SHUFFLE_SEED).save(path)
        write_json(marker, {"of": self.fingerprint, "seed": _SHUFFLE_SEED})
        console.line(f"the reference's rows were handed to the wrong images: {path}")
        return path


def obtain(train: Part, held_out: Part, cache: Path, root: Path, console: Console) -> Made:
    """Return the features, computed once: 12,000 images in about half a minute on two cores."""
    path = cache / "reference-train"
    made = fingerprint(
        {
            "train": train.fingerprint, "held_out": held_out.fingerprint, "weights": reference.WEIGHTS_SHA256,
            "code": digest(Path(reference.__file__)),
        }
    )  # fmt: skip
    marker = cache / "reference.json"
    kept = cache / "reference-held-out.npy"
    if read_json(marker) == {"fingerprint": made} and path.exists() and kept.exists():
        console.line(f"{train.csv.parent.name} and {held_out.csv.parent.name}: from the cache")
    else:
        marker.unlink(missing_ok=True)
        _make_store(train, path, root)
        with written(kept) as file:
            np.save(file, _held_out(held_out, root, console))
        write_json(marker, {"fingerprint": made})
    store = Store.open(path)
    return Made(path, store.rows_of_csv(train.csv), np.load(kept) - store.mean, made)


def _make_store(train: Part, path: Path, root: Path) -> None:
    command = [
        sys.executable, "-m", "specalign.openclip", "features",
        "--model", "python:demo.reference:efficientnet_lite0", "--center",
        "--csv", os.path.relpath(train.csv, root), "--csv-separator", ",",
        "--batch-size", "64", "--output", str(path), "--force",
    ]  # fmt: skip
    status = subprocess.run(command, cwd=root, stdin=subprocess.DEVNULL, check=False).returncode
    if status != 0:
        raise DemoError(f"specalign.openclip features ended with status {status}; it said why above")


def _held_out(held_out: Part, root: Path, console: Console) -> Floats:
    model, preprocess = reference.efficientnet_lite0()
    pixels = evaluation.load_pixels(preprocess, held_out.csv, root)
    parts = []
    for start in range(0, len(pixels), 512):
        parts.append(evaluation.embed(model, pixels[start : start + 512], batch=64))
        done = min(start + 512, len(pixels))
        console.progress(f"held-out: {done:,} of {len(pixels):,} images", final=done == len(pixels))
    return np.concatenate(parts)
