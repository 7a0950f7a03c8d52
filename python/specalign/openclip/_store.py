"""A reference's features on disk: a folder of memory-mapped arrays and a description."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from .._errors import InputError
from .._version import __version__
from . import _folder
from ._csv import column
from ._ids import sample_ids

SCHEMA = 1
_META = "meta.json"
_CHECKED_FILES = 1000
_AGAIN = "run `python -m specalign.openclip features` again"


class StoreError(InputError):
    """A store that is none, is damaged, or does not fit what is asked of it."""


class Store:
    """Features of images by the images' paths.

    A folder with ``meta.json``, ``ids.npy`` (n,) int64 ascending, ``features.npy`` (n, d) float32 as the model gave
    them, ``mean.npy`` (d,) float32, which `rows` subtracts and which is zero in a store that is not centred, and
    ``sizes.npy`` (n,) int64, the images' sizes in bytes.

    Attributes:
        path: the folder; None for one that was not saved.
        meta: what made it: ``model``, ``model_fingerprint``, ``preprocessing``, ``data``, ``centred``, ``version``.
    """

    def __init__(
        self, meta: dict[str, Any], ids: np.ndarray, features: np.ndarray, mean: np.ndarray, sizes: np.ndarray,
        path: str | None = None,
    ) -> None:  # fmt: skip
        """Hold the arrays, sorted by id. Users call `open`; `make` sorts."""
        self.path = path
        self.meta = meta
        self.ids = ids
        self.features = features
        self.mean = mean
        self.sizes = sizes

    @classmethod
    def make(
        cls, meta: dict[str, Any], ids: np.ndarray, features: np.ndarray, sizes: np.ndarray, *, center: bool
    ) -> Store:
        """Make a store of features in any order.

        Args:
            meta: what made them.
            ids: (n,) int64, each once.
            features: (n, d) float32.
            sizes: (n,) int64, the images' sizes in bytes.
            center: whether `rows` subtracts the features' mean.

        Raises:
            StoreError: two images have the same id, or a feature is not finite.
        """
        order = np.argsort(ids, kind="stable")
        ids, features, sizes = ids[order], np.ascontiguousarray(features[order], dtype=np.float32), sizes[order]
        if (ids[1:] == ids[:-1]).any():
            raise StoreError("specalign: two images have the same 64-bit id; name one of them differently")
        mean = features.mean(0, dtype=np.float64) if center else np.zeros(features.shape[1])
        fingerprint = hashlib.sha256()
        for part in (ids, features, meta["model_fingerprint"].encode()):
            fingerprint.update(np.ascontiguousarray(part).data if isinstance(part, np.ndarray) else part)
        meta = {
            "schema_version": SCHEMA, "version": __version__, **meta, "centred": center,
            "fingerprint": fingerprint.hexdigest(),
        }  # fmt: skip
        return cls(meta, ids, features, mean.astype(np.float32), sizes)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Store:
        """Map the store at `path`.

        Raises:
            StoreError: there is none, or it is damaged; the message says what is wrong.
        """
        path = os.fspath(path)
        meta = _meta(path)
        ids, features, mean, sizes = (_array(path, name) for name in ("ids", "features", "mean", "sizes"))
        n, d = features.shape if features.ndim == 2 else (-1, -1)
        for name, array, shape, kind in (
            ("features", features, (n, d), np.float32), ("ids", ids, (n,), np.int64),
            ("sizes", sizes, (n,), np.int64), ("mean", mean, (d,), np.float32),
        ):  # fmt: skip
            if array.shape != shape or array.dtype != kind or n < 1 or d < 1:
                raise StoreError(
                    f"specalign: the store {path} is damaged: {name}.npy is {array.dtype} {array.shape}; {_AGAIN}"
                )
        if (ids[1:] <= ids[:-1]).any():
            raise StoreError(f"specalign: the store {path} is damaged: ids.npy is not in ascending order; {_AGAIN}")
        return cls(meta, ids, features, mean, sizes, path)

    @property
    def dim(self) -> int:
        """The number of features."""
        return int(self.features.shape[1])

    @property
    def fingerprint(self) -> str:
        """The SHA-256 hash of ids, features and model, in hexadecimal digits."""
        return str(self.meta["fingerprint"])

    def has(self, ids: np.ndarray) -> np.ndarray:
        """Return which of the ids (m,) int64 are here, (m,) bool."""
        at = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
        known: np.ndarray = self.ids[at] == ids
        return known

    def rows(self, ids: np.ndarray) -> np.ndarray:
        """Return the features of samples, (m, d) float32, centred if the store is.

        Args:
            ids: (m,) int64, see `sample_id`.

        Raises:
            StoreError: some are not in the store.
        """
        ids = np.asarray(ids, dtype=np.int64)
        at = np.searchsorted(self.ids, ids)
        np.minimum(at, len(self.ids) - 1, out=at)
        known = self.ids[at] == ids
        if not known.all():
            raise StoreError(
                f"specalign: {int((~known).sum()):,} of {len(ids):,} samples are not in the store {self.path}, "
                f"the first has the id {ids[np.argmin(known)]}; {_AGAIN} for this run's CSV"
            )
        rows: np.ndarray = np.asarray(self.features)[at]
        rows -= self.mean
        return rows

    def rows_of_csv(self, csv: str | os.PathLike[str], img_key: str = "filepath", separator: str = ",") -> np.ndarray:
        """Return the features of the images of a CSV in its order, (m, d) float32. Raises as `rows`."""
        return self.rows(sample_ids(column(csv, img_key, separator)))

    def permuted(self, seed: int) -> Store:
        """Return a store whose rows belong to other samples: the same features with none of their meaning."""
        order = np.random.default_rng(seed).permutation(len(self.ids))
        meta = {k: v for k, v in self.meta.items() if k not in ("fingerprint", "centred")}
        made = Store.make(
            {**meta, "permuted_seed": seed}, np.array(self.ids), self.features[order], np.array(self.sizes),
            center=False,
        )  # fmt: skip
        made.mean = np.array(self.mean)
        made.meta["centred"] = self.meta["centred"]
        return made

    def check_files(self, paths: Sequence[str]) -> None:
        """Look whether images are still those that the features are of: sizes of up to 1,000, evenly spread.

        Raises:
            StoreError: one is missing, or has another size.
        """
        step = -(-len(paths) // _CHECKED_FILES) or 1  # rounded up
        sample = list(paths[::step])
        sizes = self.sizes[np.searchsorted(self.ids, sample_ids(sample))]
        for path, size in zip(sample, sizes, strict=True):
            try:
                now = os.stat(path).st_size
            except OSError as e:
                raise StoreError(f"specalign: {path}: {e.strerror}") from None
            if now != size:
                raise StoreError(
                    f"specalign: {path} has {now:,} bytes and had {size:,} when the store {self.path} "
                    f"was made; {_AGAIN}"
                )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the store to the folder `path`, whole or not at all; an older store there is replaced.

        Raises:
            StoreError: something that is no store is there, or it cannot be written.
        """
        path = os.path.abspath(path)
        check_place(path)
        try:
            _folder.replace(path, self._write)
        except OSError as e:
            raise _unwritable(path, e) from None

    def _write(self, folder: str) -> None:
        for name in ("ids", "features", "mean", "sizes"):
            np.save(os.path.join(folder, f"{name}.npy"), getattr(self, name))
        with open(os.path.join(folder, _META), "w", encoding="utf-8") as file:
            json.dump(self.meta, file, indent=2)
            file.write("\n")


def check_place(path: str) -> None:
    """Look whether `Store.save` can write to `path`. Raises `StoreError` where something that is no store is there."""
    if os.path.lexists(path) and not os.path.isfile(os.path.join(path, _META)):
        raise StoreError(f"specalign: {path} is there and is no store; choose another place")
    try:
        _folder.check_writable(path)
    except OSError as e:
        raise _unwritable(path, e) from None


def _unwritable(path: str, e: OSError) -> StoreError:
    return StoreError(f"specalign: the store {path} cannot be written: {e.strerror or e}")


def _meta(path: str) -> dict[str, Any]:
    try:
        with open(os.path.join(path, _META), encoding="utf-8") as file:
            meta = json.load(file)
    except OSError as e:
        raise StoreError(
            f"specalign: {path} is no store of reference features ({_META}: {e.strerror}); "
            "`python -m specalign.openclip features` makes one"
        ) from None
    except (ValueError, RecursionError):
        raise StoreError(f"specalign: the store {path} is damaged: {_META} is not JSON; {_AGAIN}") from None
    if not isinstance(meta, dict) or meta.get("schema_version") != SCHEMA:
        found = meta.get("schema_version") if isinstance(meta, dict) else None
        raise StoreError(f"specalign: the store {path} is of schema {found}, this version reads {SCHEMA}; {_AGAIN}")
    wanted = {"model": str, "model_fingerprint": str, "centred": bool, "fingerprint": str}
    for key, kind in wanted.items():
        if not isinstance(meta.get(key), kind):
            raise StoreError(f"specalign: the store {path} is damaged: {_META} has no {key}; {_AGAIN}")
    return meta


def _array(path: str, name: str) -> np.ndarray:
    file = os.path.join(path, f"{name}.npy")
    try:
        return np.load(file, mmap_mode="r", allow_pickle=False)  # type: ignore[no-any-return]
    except OSError as e:
        raise StoreError(f"specalign: the store {path} is damaged: {name}.npy: {e.strerror or e}; {_AGAIN}") from None
    except (ValueError, EOFError, TypeError, SyntaxError, OverflowError) as e:
        what = " ".join(str(e).split())[:100]
        raise StoreError(f"specalign: the store {path} is damaged: {name}.npy: {what}; {_AGAIN}") from None
