"""``python -m specalign.openclip features``: a frozen model's features of a data set's images."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from .._errors import Error, InputError
from ._csv import column
from ._ids import sample_ids
from ._models import FORMS, Reference, load_model
from ._store import Store, StoreError, check_place

_PROGRAM = "python -m specalign.openclip features"


def main(argv: list[str]) -> int:
    """Make a store, and return the exit code."""
    parser = argparse.ArgumentParser(
        prog=_PROGRAM, description="Compute a frozen reference model's features of a data set's images, once.",
        epilog=f"models:\n{FORMS}\nexample:\n  {_PROGRAM} --model timm:vit_small_patch14_dinov2.lvd142m \\\n"
        "      --csv train.csv --center --output reference-store",
        formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
    )  # fmt: skip
    add = parser.add_argument
    add("--model", metavar="SPEC", required=True, help="the reference; see below")
    add("--csv", metavar="FILE", required=True, help="the CSV that OpenCLIP will train on")
    add("--csv-separator", default="\t", metavar="C", help="as for OpenCLIP; a tab")
    add("--csv-img-key", default="filepath", metavar="NAME", help="column of the images' paths (filepath)")
    add("--csv-caption-key", default="title", metavar="NAME", help="column of the captions (title)")
    add("--center", action="store_true", help="subtract the features' mean from them when they are read")
    add("--batch-size", type=_positive, default=64, metavar="N", help="images at once (64)")
    add("--workers", type=int, default=0, metavar="N", help="processes that load images (0: none but this one)")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="where the model runs (%(default)s)")
    add("--output", metavar="FOLDER", required=True, help="the store to write")
    add("--force", action="store_true", help="replace a store that is there")
    options = parser.parse_args(argv)
    try:
        _make(options)
    except InputError as e:
        print(f"specalign: {str(e).removeprefix('specalign: ')}", file=sys.stderr)
        return 2
    except Error as e:
        print(f"specalign: {str(e).removeprefix('specalign: ')}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("specalign: interrupted; nothing was written", file=sys.stderr)
        return 130
    return 0


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


def _make(options: argparse.Namespace) -> None:
    started = time.monotonic()
    if os.path.lexists(options.output) and not options.force:
        raise StoreError(f"specalign: {options.output} is there; choose another place, or say --force to replace it")
    check_place(options.output)
    paths = column(options.csv, options.csv_img_key, options.csv_separator)
    images = list(dict.fromkeys(paths))  # each once, in the CSV's order
    sizes = np.fromiter((_size(p) for p in images), dtype=np.int64)
    reference = load_model(options.model, options.device)
    if reference.preprocess is None:
        captions = column(options.csv, options.csv_caption_key, options.csv_separator)
        features = _of_captions(reference, paths, captions, images, options.batch_size)
    else:
        features = _of_images(reference, images, options)
    bad = ~np.isfinite(features).all(axis=1)
    if bad.any():
        raise InputError(
            f"specalign: {options.model} gives features of {images[int(bad.argmax())]} that are not finite"
        )
    store = Store.make(
        {
            "model": reference.name,
            "model_fingerprint": reference.fingerprint,
            "preprocessing": " ".join(str(reference.preprocess or "captions, averaged over an image's").split()),
            "data": {"csv": os.path.abspath(options.csv), "img_key": options.csv_img_key, "rows": len(paths)},
        },
        sample_ids(images), features, sizes, center=options.center,
    )  # fmt: skip
    store.save(options.output)
    print(
        f"{options.output}: {features.shape[1]} features of {len(images):,} images by {reference.name}"
        f"{', centred' if options.center else ''}, in {time.monotonic() - started:.0f} s "
        f"({store.fingerprint[:12]})"
    )


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError as e:
        raise InputError(f"specalign: {path}: {e.strerror}") from None


class Images(Dataset):  # type: ignore[type-arg]
    """Images as a model wants them; what cannot be read comes back as the reason."""

    def __init__(self, paths: list[str], preprocess: Any) -> None:
        """Hold paths and preprocessing."""
        self._paths = paths
        self._preprocess = preprocess

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._paths)

    def __getitem__(self, index: int) -> Tensor | str:
        """Return the pixels, or why there are none."""
        from PIL import Image

        try:
            with Image.open(self._paths[index]) as image:
                pixels: Tensor = self._preprocess(rgb(image))
                return pixels
        except Exception as e:
            return f"{self._paths[index]}: {type(e).__name__}: {' '.join(str(e).split())[:200]}"


def rgb(image: Any) -> Any:
    """Return a PIL image as RGB, which most models' preprocessing takes for granted; transparency shows white."""
    from PIL import Image

    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def collate(items: list[Tensor | str]) -> Tensor | str:
    """Make a batch, or say what the first image that has none lacks."""
    pixels = [item for item in items if isinstance(item, Tensor)]
    for item in items:
        if isinstance(item, str):
            return item
    try:
        return torch.stack(pixels)
    except RuntimeError as e:
        return f"the preprocessing gives images of different shapes: {' '.join(str(e).split())[:200]}"


def _of_images(reference: Reference, images: list[str], options: argparse.Namespace) -> np.ndarray:
    loader = DataLoader(
        Images(images, reference.preprocess), options.batch_size, num_workers=options.workers, collate_fn=collate
    )

    def batches() -> Iterator[np.ndarray]:
        with torch.inference_mode():
            for batch in loader:
                if isinstance(batch, str):
                    raise InputError(f"specalign: {batch}")
                yield _rows(reference, reference.model(batch.to(options.device)), len(batch))

    return _gather(batches(), len(images), "images")


def _of_captions(
    reference: Reference, paths: list[str], captions: list[str], images: list[str], batch: int
) -> np.ndarray:
    def batches() -> Iterator[np.ndarray]:
        with torch.inference_mode():
            for start in range(0, len(captions), batch):
                part = captions[start : start + batch]
                yield _rows(reference, reference.model(part), len(part))

    features = _gather(batches(), len(captions), "captions")
    where = {path: i for i, path in enumerate(images)}
    at = np.fromiter((where[p] for p in paths), dtype=np.int64)
    sums = np.zeros((len(images), features.shape[1]))
    np.add.at(sums, at, features)
    return (sums / np.bincount(at, minlength=len(images))[:, None]).astype(np.float32)


def _rows(reference: Reference, features: Any, n: int) -> np.ndarray:
    if not isinstance(features, Tensor) or features.ndim != 2 or len(features) != n:
        shape = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise InputError(f"specalign: {reference.name} gives {shape} for {n} samples, not ({n}, d) features")
    rows: np.ndarray = features.detach().float().cpu().numpy()
    return rows


def _gather(batches: Iterator[np.ndarray], n: int, what: str) -> np.ndarray:
    features: np.ndarray | None = None
    done, said = 0, 0
    started = time.monotonic()
    for rows in batches:
        if features is None:
            features = np.empty((n, rows.shape[1]), dtype=np.float32)
        features[done : done + len(rows)] = rows
        done += len(rows)
        tenth = done * 10 // n
        left = (time.monotonic() - started) / done * (n - done)
        if sys.stderr.isatty():
            print(f"\r{done:,} of {n:,} {what}, {left:.0f} s left ", end="", file=sys.stderr, flush=True)
        elif tenth > said:
            said = tenth
            print(f"{done:,} of {n:,} {what}, {left:.0f} s left", file=sys.stderr, flush=True)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    assert features is not None
    return features
