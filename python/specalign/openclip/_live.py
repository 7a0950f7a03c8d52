"""Where the reference's rows come from: a frozen model that sees the very pixels of the batch."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .._errors import InputError
from ._loader import Window
from ._models import load_model


class LiveSource:
    """A frozen reference model, run on each batch's own images, augmented as the student sees them."""

    keyed = False
    keeps_images = True

    def __init__(self, spec: str, device: str) -> None:
        """Load the model `spec` names (see `load_model`) to OpenCLIP's `device`."""
        if spec.startswith("sentence:"):
            raise InputError(f"specalign: {spec} reads captions; a live reference sees images. Make a store of it")
        self._loaded = load_model(spec, device)
        # In a list: what OpenCLIP does to the modules it can reach, `train()` before all, must not reach this one.
        self._model = [self._loaded.model]
        self._size, self._mean, self._std = geometry(self._loaded.preprocess, spec)
        self._student: tuple[Tensor, Tensor] | None = None

    def prepare(self, model: Any, data: Any, args: Any) -> None:  # noqa: ARG002 the protocol's
        """See `Source.prepare`: the student's own normalisation has to be known, because it is undone."""
        visual = getattr(model, "visual", None)
        mean = args.image_mean or getattr(visual, "image_mean", None)
        std = args.image_std or getattr(visual, "image_std", None)
        if mean is None or std is None:
            raise InputError(
                "specalign: a live reference needs the mean and standard deviation that OpenCLIP normalises images "
                "with, and this model has none; give --image-mean and --image-std"
            )
        self._student = _channels(mean), _channels(std)

    def keys(self, window: Window, student: Tensor) -> Tensor:
        """See `Source.keys`: the features themselves, (n, d2) float32."""
        with torch.no_grad(), torch.autocast(student.device.type, enabled=False):
            return torch.cat([self._embed(images.to(student.device)) for images in window.images])

    def rows(self, keys: Tensor) -> tuple[Tensor, None]:
        """See `Source.rows`."""
        return keys, None

    def _embed(self, images: Tensor) -> Tensor:
        assert self._student is not None
        pixels = images.float() * self._student[1].to(images.device) + self._student[0].to(images.device)
        if pixels.shape[-2:] != self._size:
            pixels = torch.nn.functional.interpolate(
                pixels, self._size, mode="bicubic", align_corners=False, antialias=True
            ).clamp_(0, 1)
        pixels = (pixels - self._mean.to(images.device)) / self._std.to(images.device)
        features: Tensor = self._model[0](pixels)
        return features.float()

    def describe(self) -> str:
        """See `Source.describe`."""
        return f"{self._loaded.name}, live at {self._size[0]} x {self._size[1]}"


def geometry(preprocess: Any, spec: str) -> tuple[tuple[int, int], Tensor, Tensor]:
    """Read what a model expects from its preprocessing, a torchvision ``Compose``.

    Returns:
        (height, width), and mean and standard deviation as (3, 1, 1) tensors.

    Raises:
        InputError: it does not say.
    """
    size: tuple[int, int] | None = None
    mean = std = None
    for step in getattr(preprocess, "transforms", []):
        given = getattr(step, "size", None)
        if given is not None:
            pair = (given, given) if isinstance(given, int) else tuple(given)
            size = (int(pair[0]), int(pair[-1]))
        if getattr(step, "mean", None) is not None and getattr(step, "std", None) is not None:
            mean, std = step.mean, step.std
    if size is None or mean is None or not math.isfinite(float(sum(mean))):
        raise InputError(
            f"specalign: the preprocessing of {spec} does not say size, mean and standard deviation, which a live "
            "reference needs: give one that is a torchvision Compose with Resize or CenterCrop, and Normalize"
        )
    return size, _channels(mean), _channels(std)


def _channels(values: Any) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float32).reshape(-1, 1, 1)
