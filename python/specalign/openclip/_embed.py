"""Runs a frozen model over a CSV's images or over shards, piece by piece."""

from __future__ import annotations

import argparse
import hashlib
import io
import os
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

from .._errors import InputError
from . import _wds
from ._draft import Draft, Progress
from ._ids import sample_id, sample_ids
from ._models import Reference

PIECE = 4096  # images of a CSV
_IMAGES = ("jpg", "png", "jpeg", "webp")  # as OpenCLIP looks for them

Pieces = list[tuple[str, str]]  # of a store: the name in the draft, and what it is of


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


def of_csv(
    reference: Reference, paths: list[str], captions: list[str], options: argparse.Namespace, draft: Draft,
    rank: int, size: int,
) -> Pieces:  # fmt: skip
    """Put this rank's pieces of a CSV into the draft, and return all there are.

    Args:
        reference: the model; of `captions` where it has no preprocessing, averaged over an image's.
        paths: of the CSV's rows.
        captions: likewise; empty for a model of images.
        options: batch size, workers and device.
        draft: of the store.
        rank: of this process, which takes every `size`-th piece.
        size: how many processes there are.
    """
    images = list(dict.fromkeys(paths))  # each once, in the CSV's order
    sizes = {path: _size(path) for path in images}
    chunks = [images[at : at + PIECE] for at in range(0, len(images), PIECE)]
    pieces = [(f"{i:06}", chunk[0]) for i, chunk in enumerate(chunks)]
    todo = [i for i in range(rank, len(chunks), size) if not draft.done(pieces[i][0])]
    progress = Progress(sum(len(chunks[i]) for i in todo), "images")

    def keep(at: int, rows: np.ndarray) -> None:
        bad = ~np.isfinite(rows).all(axis=1)
        if bad.any():
            name = chunks[at][int(bad.argmax())]
            raise InputError(f"specalign: {options.model} gives features of {name} that are not finite")
        of = np.fromiter((sizes[p] for p in chunks[at]), dtype=np.int64)
        draft.put(pieces[at][0], sample_ids(chunks[at]), rows, of)

    if reference.preprocess is None:
        of_path: dict[str, list[str]] = {}
        for path, caption in zip(paths, captions, strict=True):
            of_path.setdefault(path, []).append(caption)
        for at in todo:
            keep(at, of_captions(reference, [of_path[p] for p in chunks[at]], options.batch_size))
            progress.add(len(chunks[at]))
        return pieces
    held: list[np.ndarray] = []
    waiting = list(todo)
    for rows in _batches(reference, [p for i in todo for p in chunks[i]], options):
        progress.add(len(rows))
        held.append(rows)
        while waiting and sum(map(len, held)) >= len(chunks[waiting[0]]):
            at, have = waiting.pop(0), np.concatenate(held)
            keep(at, have[: len(chunks[at])])
            held = [have[len(chunks[at]) :]]
    return pieces


def _batches(reference: Reference, images: list[str], options: argparse.Namespace) -> Iterator[np.ndarray]:
    loader = DataLoader(
        Images(images, reference.preprocess), options.batch_size, num_workers=options.workers, collate_fn=collate
    )
    with torch.inference_mode():
        for batch in loader:
            if isinstance(batch, str):
                raise InputError(f"specalign: {batch}")
            yield rows_of(reference, reference.model(batch.to(options.device)), len(batch))


def of_captions(reference: Reference, captions: list[list[str]], batch: int) -> np.ndarray:
    """Return the mean features of each item's captions, (len(captions), d) float32."""
    flat = [c for item in captions for c in item]
    at = np.repeat(np.arange(len(captions)), [len(item) for item in captions])
    rows = []
    with torch.inference_mode():
        for start in range(0, len(flat), batch):
            part = flat[start : start + batch]
            rows.append(rows_of(reference, reference.model(part), len(part)))
    features = np.concatenate(rows)
    sums = np.zeros((len(captions), features.shape[1]))
    np.add.at(sums, at, features)
    return (sums / np.bincount(at, minlength=len(captions))[:, None]).astype(np.float32)


class Shards(IterableDataset):  # type: ignore[type-arg]
    """The samples of shards, a batch at a time; each worker reads shards of its own.

    Yields (shard, ids, sizes, unreadable, inputs): the inputs are pixels (b, 3, h, w), a list of captions, or None
    where the shard ends. An image that cannot be decoded is counted and left out, as OpenCLIP leaves it out.
    """

    def __init__(self, urls: list[str], preprocess: Any, batch: int) -> None:
        """`preprocess` is None for a model of captions."""
        self._urls = urls
        self._preprocess = preprocess
        self._batch = batch

    def __iter__(self) -> Iterator[tuple[int, list[int], list[int], int, Any]]:
        """Yield batches."""
        from open_clip_train.data import tarfile_to_samples_nothrow

        worker = get_worker_info()
        first, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for shard in range(first, len(self._urls), step):
            ids: list[int] = []
            sizes: list[int] = []
            inputs: list[Any] = []
            unreadable = 0
            for sample in tarfile_to_samples_nothrow([{"url": self._urls[shard]}]):
                image = next((sample[k] for k in _IMAGES if k in sample), None)
                if image is None:
                    continue
                try:
                    inputs.append(self._input(sample, image))
                except Exception:
                    unreadable += 1
                    continue
                ids.append(sample_id(_wds.sample_name(sample)))
                sizes.append(len(image))
                if len(ids) == self._batch:
                    yield shard, ids, sizes, unreadable, self._stacked(inputs)
                    ids, sizes, inputs, unreadable = [], [], [], 0
            if ids:
                yield shard, ids, sizes, unreadable, self._stacked(inputs)
                unreadable = 0
            yield shard, [], [], unreadable, None

    def _input(self, sample: dict[str, Any], image: bytes) -> Any:
        if self._preprocess is None:
            return _wds.caption(sample)
        from PIL import Image

        with Image.open(io.BytesIO(image)) as opened:
            return self._preprocess(rgb(opened))

    def _stacked(self, inputs: list[Any]) -> Any:
        return inputs if self._preprocess is None else torch.stack(inputs)


def of_shards(
    reference: Reference, urls: list[str], options: argparse.Namespace, draft: Draft, rank: int, size: int
) -> Pieces:
    """Put this rank's shards into the draft, and return all there are; arguments as for `of_csv`."""
    names = [_wds.shard_name(url) for url in urls]
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise InputError(
            f"specalign: {count} shards are called {name}; samples are known by their shard's base name, so it has to "
            "be the only one of its name"
        )
    pieces = [(hashlib.sha256(name.encode()).hexdigest()[:16], name) for name in names]
    todo = [i for i in range(rank, len(urls), size) if not draft.done(pieces[i][0])]
    progress = Progress(len(todo), "shards")
    found: dict[int, list[tuple[list[int], list[int], np.ndarray]]] = {}
    unreadable = 0
    loader = DataLoader(
        Shards([urls[i] for i in todo], reference.preprocess, options.batch_size),
        batch_size=None, num_workers=min(options.workers, len(todo)),
    )  # fmt: skip
    with torch.inference_mode():
        for shard, ids, sizes, lost, inputs in loader:
            unreadable += lost
            parts = found.setdefault(shard, [])
            if inputs is not None:
                if isinstance(inputs, Tensor):
                    inputs = inputs.to(options.device)
                parts.append((ids, sizes, rows_of(reference, reference.model(inputs), len(ids))))
                continue
            if not parts:
                raise InputError(f"specalign: {urls[todo[shard]]} cannot be read, or holds no images")
            draft.put(
                pieces[todo[shard]][0], np.array([i for p in parts for i in p[0]], dtype=np.int64),
                np.concatenate([p[2] for p in parts]), np.array([s for p in parts for s in p[1]], dtype=np.int64),
            )  # fmt: skip
            del found[shard]
            progress.add(1, f", {unreadable:,} images unreadable" if unreadable else "")
    return pieces


def rows_of(reference: Reference, features: Any, n: int) -> np.ndarray:
    """Return what a model gave for `n` samples as (n, d) float32; raises `InputError` where it is anything else."""
    if not isinstance(features, Tensor) or features.ndim != 2 or len(features) != n:
        shape = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise InputError(f"specalign: {reference.name} gives {shape} for {n} samples, not ({n}, d) features")
    rows: np.ndarray = features.detach().float().cpu().numpy()
    return rows


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError as e:
        raise InputError(f"specalign: {path}: {e.strerror}") from None
