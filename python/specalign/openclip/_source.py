"""Where a reference's rows come from: a store made before the run, or OpenCLIP's teacher."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from torch import Tensor

from .._errors import InputError
from ._ids import sample_ids
from ._loader import Window
from ._store import Store


class MissingError(InputError):
    """A sample that the store does not have, in a run that was not told to skip such."""


class Source(Protocol):
    """Gives a reference's rows of a window."""

    keyed: bool  # whether the loader has to say which samples a batch holds
    keeps_images: bool  # whether the window has to hold the pixels

    def prepare(self, model: Any, data: Any, args: Any) -> None:
        """Look at the run before its first step.

        Raises:
            InputError: the source does not fit the run.
        """
        ...

    def keys(self, window: Window, student: Tensor) -> Tensor:
        """Return what stands for the window's samples, (n, ...): what ranks hand to the one that computes."""
        ...

    def rows(self, keys: Tensor) -> tuple[Any, np.ndarray | None]:
        """Return the reference's rows of the samples that `keys` stands for.

        Returns:
            (m, d2), an array or a tensor, and (n,) bool, which of the samples these are; None if all.
        """
        ...

    def describe(self) -> str:
        """Say what it is, in half a line."""
        ...


class StoreSource:
    """Features that ``python -m specalign.openclip features`` wrote."""

    keyed = True
    keeps_images = False

    def __init__(self, path: str, missing: str = "stop") -> None:
        """Open the store. Raises `StoreError` where it is none."""
        self._store = Store.open(path)
        self._skip = missing == "skip"
        self._ids: np.ndarray | None = None  # of the CSV's rows; None: keys are ids
        self.unknown = 0  # samples of the data that it does not have, where that is known

    def prepare(self, model: Any, data: Any, args: Any) -> None:  # noqa: ARG002 the protocol's
        """See `Source.prepare`: every training image has to be in the store, unchanged, unless rows are skipped."""
        images = getattr(getattr(data.dataloader, "dataset", None), "images", None)
        if images is not None:  # else shards, whose names were looked at before the run
            self.check([str(path) for path in images])

    def check(self, paths: list[str]) -> None:
        """Look whether images are all in the store and unchanged; raises `InputError` otherwise."""
        ids = sample_ids(paths)
        if self._ids is not None and np.array_equal(ids, self._ids):
            return
        known = np.isin(ids, self._store.ids)
        self.unknown = int((~known).sum())
        if self.unknown and not (self._skip and known.any()):
            first = int(np.argmin(known))
            raise InputError(
                f"specalign: the store {self._store.path} does not fit this run: {self.unknown:,} of "
                f"{len(ids):,} training images are not in it, the first is {paths[first]} (row {first}); run "
                "`python -m specalign.openclip features` for this CSV, with the same paths, or say missing: skip"
            )
        self._store.check_files([p for p, k in zip(paths, known, strict=True) if k])
        self._ids = ids

    def check_shards(self, names: list[str]) -> None:
        """Look whether the store was made of these shards, by base name; raises `InputError` otherwise."""
        have = self._store.meta.get("data", {}).get("shards")
        if not isinstance(have, dict):
            raise InputError(
                f"specalign: the store {self._store.path} was made from a CSV, and this run reads shards; make "
                "one with `python -m specalign.openclip features --shards`"
            )
        lacking = [name for name in names if name not in have]
        if lacking and not (self._skip and len(lacking) < len(names)):
            raise InputError(
                f"specalign: the store {self._store.path} does not fit this run: it was not made of {len(lacking):,} "
                f"of the {len(names):,} shards, the first is {lacking[0]}; run `python -m specalign.openclip features` "
                "for them, or say missing: skip"
            )

    def keys(self, window: Window, student: Tensor) -> Tensor:  # noqa: ARG002 the protocol's
        """See `Source.keys`: rows of the CSV or samples' ids, (n,) int64. Raises `MissingError`."""
        if not self._skip and self._ids is None:  # a CSV's rows are all there
            known = self._store.has(window.keys.numpy())
            if not known.all():
                first = int(np.argmin(known))
                name = window.names[first].splitlines()[0] if window.names else f"with id {int(window.keys[first])}"
                raise MissingError(
                    f"specalign: the store {self._store.path} lacks {int((~known).sum())} of this batch's samples, the "
                    f"first is {name}; run `python -m specalign.openclip features` again, or say missing: skip"
                )
        return window.keys

    def rows(self, keys: Tensor) -> tuple[np.ndarray, np.ndarray | None]:
        """See `Source.rows`."""
        ids = keys.cpu().numpy()
        if self._ids is not None:
            ids = self._ids[ids]
        if not self._skip:
            return self._store.rows(ids), None
        known = self._store.has(ids)
        return self._store.rows(ids[known]), None if known.all() else known

    def describe(self) -> str:
        """See `Source.describe`."""
        store = self._store
        return (
            f"{store.meta['model']}, {len(store.ids):,} images, {store.dim} features"
            f"{', centred' if store.meta['centred'] else ''} (store {store.path}, {store.fingerprint[:12]})"
            + (f"; {self.unknown:,} rows of the data are not in it and will be skipped" if self.unknown else "")
        )


class DistillSource:
    """The features of the teacher that OpenCLIP distils from, which reach the loss anyway."""

    keyed = False
    keeps_images = False

    def __init__(self, side: str) -> None:
        """`side` is ``image`` or ``text``."""
        self._field = f"dist_{side}_features"

    def prepare(self, model: Any, data: Any, args: Any) -> None:
        """See `Source.prepare`."""

    def keys(self, window: Window, student: Tensor) -> Tensor:  # noqa: ARG002 the protocol's
        """See `Source.keys`: the features themselves, (n, d2) float32."""
        features = window.inputs.get(self._field)
        if not isinstance(features, Tensor):
            raise InputError(f"OpenCLIP's loss was called without {self._field}: this is no distillation")
        return features.detach().float()

    def rows(self, keys: Tensor) -> tuple[Tensor, None]:
        """See `Source.rows`."""
        return keys, None

    def describe(self) -> str:
        """See `Source.describe`."""
        return "OpenCLIP's teacher (--distill-model)"
