"""Where the reference's rows come from: a store made before the run."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from .._errors import InputError
from ._ids import sample_ids
from ._loader import Window
from ._store import Store


class Source(Protocol):
    """Gives the reference's rows of a window."""

    keeps_images: bool

    def prepare(self, model: Any, data: Any, args: Any) -> np.ndarray | None:
        """Look at the run before its first step.

        Returns:
            (n,) int64, the ids of the training data's samples, for a source that goes by them.

        Raises:
            InputError: the source does not fit the run.
        """
        ...

    def keys(self, window: Window, student: Tensor) -> Tensor:
        """Return what stands for the window's samples, (n, ...): what ranks hand to the one that computes."""
        ...

    def rows(self, keys: Tensor) -> Any:
        """Return the (n, d2) reference rows of the samples that `keys` stands for, an array or a tensor."""
        ...

    def describe(self) -> str:
        """Say what it is, in half a line."""
        ...


class StoreSource:
    """Features that ``python -m specalign.openclip features`` wrote."""

    keeps_images = False

    def __init__(self, path: str) -> None:
        """Open the store. Raises `StoreError` where it is none."""
        self._store = Store.open(path)
        self._fits: np.ndarray | None = None

    def prepare(self, model: Any, data: Any, args: Any) -> np.ndarray:  # noqa: ARG002 the protocol's
        """See `Source.prepare`: every training image has to be in the store, unchanged."""
        dataset = data.dataloader.dataset
        paths = getattr(dataset, "images", None)
        if not isinstance(paths, list):
            raise InputError(
                f"specalign: a store knows images by the paths of a CSV, and this run's training data is a "
                f"{type(dataset).__name__}: train with --dataset-type csv, or with reference: {{live: MODEL}}"
            )
        return self.check([str(p) for p in paths])

    def check(self, paths: list[str]) -> np.ndarray:
        """Return the ids of `paths`, images that are all in the store and unchanged; raises `InputError` otherwise."""
        ids = sample_ids(paths)
        if self._fits is not None and np.array_equal(ids, self._fits):
            return ids
        known = np.isin(ids, self._store.ids)
        if not known.all():
            first = int(np.argmin(known))
            raise InputError(
                f"specalign: the store {self._store.path} does not fit this run: {int((~known).sum()):,} of "
                f"{len(ids):,} training images are not in it, the first is {paths[first]} (row {first}); run "
                "`python -m specalign.openclip features` for this CSV, with the same paths"
            )
        self._store.check_files(paths)
        self._fits = ids
        return ids

    def keys(self, window: Window, student: Tensor) -> Tensor:  # noqa: ARG002 the protocol's
        """See `Source.keys`: the samples' ids, (n,) int64."""
        return torch.cat(window.batches)

    def rows(self, keys: Tensor) -> np.ndarray:
        """See `Source.rows`."""
        return self._store.rows(keys.cpu().numpy())

    def describe(self) -> str:
        """See `Source.describe`."""
        store = self._store
        return (
            f"{store.meta['model']}, {len(store.ids):,} images, {store.dim} features"
            f"{', centred' if store.meta['centred'] else ''} (store {store.path}, {store.fingerprint[:12]})"
        )
