"""Takes along, through OpenCLIP's own loader, what the penalty needs to know of each sample."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

KEY = "specalign_key"  # in batches that are dictionaries; in tuples it is the third field
NAME = "specalign_name"  # and the fourth, where names are wanted


class KeyedDataset(Dataset):  # type: ignore[type-arg]
    """OpenCLIP's dataset with one field more, the sample's row in the CSV. It can be pickled, as workers need."""

    def __init__(self, dataset: Any) -> None:
        """`dataset` yields (image, text) or a dictionary."""
        self._dataset = dataset

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self._dataset)

    def __getitem__(self, index: int) -> Any:
        """Return the sample and its row."""
        sample = self._dataset[index]
        return {**sample, KEY: index} if isinstance(sample, dict) else (*sample, index)


class Window:
    """The batches that one optimizer step sees: as many as OpenCLIP accumulates.

    Attributes:
        number: how many windows were begun before this one.
        images: the pixels of each batch, where they are kept; empty otherwise.
        texts: the tokens of each batch, likewise.
        inputs: the loss's arguments, of the call under way.
        value: what the loss keeps of this window: it is asked once a batch for the same features.
    """

    def __init__(self, size: int, keep: bool) -> None:
        """Hold `size` batches, with pixels and tokens if `keep`."""
        self._size = size
        self._keep = keep
        self._keys: list[torch.Tensor] = []
        self._names: list[str] = []
        self._held = 0
        self.images: list[torch.Tensor] = []
        self.texts: list[torch.Tensor] = []
        self.number = -1
        self.inputs: dict[str, Any] = {}
        self.value: Any = None

    def add(self, keys: Any, images: torch.Tensor, texts: torch.Tensor, names: list[str] | None = None) -> None:
        """Take in a batch; the first after a full window begins another one."""
        if self.number < 0 or self._held == self._size:
            self._keys, self._names, self.images, self.texts = [], [], [], []
            self._held = 0
            self.number += 1
            self.inputs = {}
            self.value = None
        self._held += 1
        if keys is not None:
            self._keys.append(torch.as_tensor(keys))
        self._names += names or []
        if self._keep:
            self.images.append(images)
            self.texts.append(texts)

    @property
    def keys(self) -> torch.Tensor:
        """What the loader says of the samples, (n,) int64: rows of the CSV, or ids."""
        if not self._keys:
            return torch.empty(0, dtype=torch.int64)
        if len(self._keys) > 1:
            self._keys = [torch.cat(self._keys)]
        return self._keys[0]

    @property
    def names(self) -> list[str]:
        """The samples' names and captions, where the loader gives them."""
        return self._names


class Loader:
    """Stands in for OpenCLIP's training loader: all attributes are the loader's own, and so are the batches."""

    def __init__(self, loader: Any, window: Window) -> None:
        """Fill `window` from the batches of `loader`."""
        self._loader = loader
        self._window = window

    def __iter__(self) -> Iterator[Any]:
        """Yield what OpenCLIP's loop expects; the rest stays in the window."""
        for batch in self._loader:
            if isinstance(batch, dict):
                batch = dict(batch)
                keys, names = batch.pop(KEY, None), batch.pop(NAME, None)
                self._window.add(keys, batch["image"], batch["text"], names)
                yield batch
            else:
                images, texts, *rest = batch
                self._window.add(rest[0] if rest else None, images, texts, rest[1] if len(rest) > 1 else None)
                yield images, texts

    def __len__(self) -> int:
        """Return the number of batches."""
        return len(self._loader)

    def __getattr__(self, name: str) -> Any:
        """Return the loader's attribute."""
        return getattr(self._loader, name)


class WithRows:
    """While it lasts, `loader` yields rows as a third field.

    `DataLoader` refuses the assignment of another dataset, because its samplers know the old one; ours has the same
    length and order.
    """

    def __init__(self, loader: DataLoader[Any]) -> None:
        """Hold the loader."""
        self._loader = loader
        self._dataset = loader.dataset

    def __enter__(self) -> None:
        """Put our dataset in."""
        self._loader.__dict__["dataset"] = KeyedDataset(self._dataset)

    def __exit__(self, *_: object) -> None:
        """Put the loader's own back."""
        self._loader.__dict__["dataset"] = self._dataset
