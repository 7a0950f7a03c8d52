"""Takes along, through OpenCLIP's own loader, what the reference needs to know of each sample."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset


class IdDataset(Dataset):  # type: ignore[type-arg]
    """OpenCLIP's dataset with a third field, the sample's id. It can be pickled, as workers need."""

    def __init__(self, dataset: Any, ids: np.ndarray) -> None:
        """`ids` (n,) int64 are those of the dataset's samples, in its order."""
        self._dataset = dataset
        self._ids = ids

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self._dataset)

    def __getitem__(self, index: int) -> tuple[Any, Any, int]:
        """Return image, text and id."""
        image, text = self._dataset[index]
        return image, text, int(self._ids[index])


class Window:
    """The batches that one optimizer step sees: as many as OpenCLIP accumulates.

    Attributes:
        batches: what the reference needs of each, in order.
        images: the pixels of each, where the reference is a live model; empty otherwise.
        number: how many windows were begun before this one.
        value: what the loss keeps of this window: it is asked once a batch for the same features.
    """

    def __init__(self, size: int, keep_images: bool) -> None:
        self._size = size
        self._keep_images = keep_images
        self.batches: list[torch.Tensor] = []
        self.images: list[torch.Tensor] = []
        self.number = -1
        self.value: Any = None

    def add(self, ids: torch.Tensor | None, images: torch.Tensor) -> None:
        """Take in a batch; the first after a full window begins another one."""
        if self.number < 0 or max(len(self.batches), len(self.images)) == self._size:
            self.batches, self.images = [], []
            self.number += 1
            self.value = None
        if ids is not None:
            self.batches.append(ids)
        if self._keep_images:
            self.images.append(images)


class Loader:
    """Stands in for OpenCLIP's training loader: all attributes are the loader's own, and batches are pairs again."""

    def __init__(self, loader: Any, window: Window) -> None:
        self._loader = loader
        self._window = window

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield images and texts; ids stay in the window."""
        for batch in self._loader:
            images, texts, *rest = batch
            self._window.add(rest[0] if rest else None, images)
            yield images, texts

    def __len__(self) -> int:
        """Return the number of batches."""
        return len(self._loader)

    def __getattr__(self, name: str) -> Any:
        """Return the loader's attribute."""
        return getattr(self._loader, name)


class WithIds:
    """While it lasts, `loader` yields ids as a third field.

    `DataLoader` refuses the assignment of another dataset, because its samplers know the old one; ours has the same
    length and order.
    """

    def __init__(self, loader: DataLoader[Any], ids: np.ndarray) -> None:
        self._loader = loader
        self._dataset = loader.dataset
        self._ids = ids

    def __enter__(self) -> None:
        """Put our dataset in."""
        self._loader.__dict__["dataset"] = IdDataset(self._dataset, self._ids)

    def __exit__(self, *_: object) -> None:
        """Put the loader's own back."""
        self._loader.__dict__["dataset"] = self._dataset
