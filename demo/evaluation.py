"""What the trained models know about images that they have never seen."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from PIL import Image

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.integer]

NEIGHBOURS = 10
_BLOCK = 1024  # rows of a similarity matrix at a time


@dataclass(frozen=True)
class Scores:
    """One model's results on the held-out images.

    Attributes:
        knn: accuracy of the 10-nearest-neighbour vote on the ten fine classes.
        probe: accuracy of a linear probe on the ten fine classes.
        zero_shot: accuracy of the coarse captions' zero-shot classifier; None for a model without a text tower.
        spec_diff: SPEC-diff to the reference (the largest |eigenvalue| of the difference kernel), in [0, 1].
    """

    knn: float
    probe: float
    zero_shot: float | None
    spec_diff: float

    def as_dict(self) -> dict[str, float | None]:
        """Return the scores by name."""
        return asdict(self)


def unit(rows: Floats) -> Floats:
    """Scale rows (n, d) to length 1; a row of zeros stays."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1)


def knn_accuracy(gallery: Floats, known: Labels, queries: Floats, truth: Labels, k: int = NEIGHBOURS) -> float:
    """Classify queries (m, d) by the k rows of the gallery (n, d) with the highest cosine, and return the accuracy.

    Every neighbour has one vote; among classes with equally many, the one whose neighbours are nearer in sum wins.
    """
    classes = int(max(known.max(), truth.max())) + 1
    k = min(k, len(gallery))
    gallery, queries = unit(gallery), unit(queries)
    right = 0
    for start in range(0, len(queries), _BLOCK):
        similarity = queries[start : start + _BLOCK] @ gallery.T
        nearest = np.argpartition(-similarity, k - 1, axis=1)[:, :k]
        near = np.take_along_axis(similarity, nearest, axis=1)
        rows = np.arange(len(near))[:, None]
        votes = np.zeros((len(near), classes))
        # |cosine| <= 1, so the sum of k of them over 4 k is below half a vote: it only breaks ties.
        np.add.at(votes, (rows, known[nearest]), 1 + near / (4 * k))
        right += int((votes.argmax(axis=1) == truth[start : start + _BLOCK]).sum())
    return right / len(queries)


def probe_accuracy(train: Floats, known: Labels, test: Floats, truth: Labels, decay: float = 1e-3) -> float:
    """Fit multinomial logistic regression on train (n, d), standardised by its own statistics; accuracy on test (m, d).

    Minimises mean cross-entropy + decay/2 * |W|^2 by L-BFGS from zero, so there is no randomness in it.
    """
    mean, spread = train.mean(axis=0), train.std(axis=0)
    spread = np.where(spread > 1e-6 * max(1e-30, float(spread.max())), spread, 1)  # a constant column says nothing
    x = torch.from_numpy(((train - mean) / spread).astype(np.float32))
    z = torch.from_numpy(((test - mean) / spread).astype(np.float32))
    y = torch.from_numpy(known.astype(np.int64))
    classes = int(max(known.max(), truth.max())) + 1
    weight = torch.zeros(classes, x.shape[1], requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=200, tolerance_change=1e-7, line_search_fn="strong_wolfe")

    def objective() -> torch.Tensor:
        optimiser.zero_grad()
        loss = F.cross_entropy(F.linear(x, weight, bias), y) + decay / 2 * weight.square().sum()
        loss.backward()
        return loss

    optimiser.step(objective)
    with torch.no_grad():
        guess = F.linear(z, weight, bias).argmax(dim=1).numpy()
    return float((guess == truth).mean())


def zero_shot_accuracy(images: Floats, prompts: Floats, truth: Labels) -> float:
    """Classify images (n, d) by their nearest class prompt (c, d) under the cosine, and return the accuracy."""
    return float(((unit(images) @ unit(prompts).T).argmax(axis=1) == truth).mean())


def load_pixels(preprocess: Callable[[Image.Image], torch.Tensor], pairs: Path, root: Path) -> torch.Tensor:
    """Return a CSV's images (n, 3, h, w) in its order, preprocessed: once for all the models that see them."""
    with pairs.open(newline="", encoding="utf-8") as file:
        paths = [root / row["filepath"] for row in csv.DictReader(file)]
    return torch.stack([preprocess(Image.open(path)) for path in paths])


def embed(encode: Callable[[torch.Tensor], torch.Tensor], pixels: torch.Tensor, batch: int = 500) -> Floats:
    """Return the features (n, d) of pixels (n, 3, h, w); `encode` maps (b, 3, h, w) to (b, d)."""
    with torch.inference_mode():
        return torch.cat([encode(part).float() for part in pixels.split(batch)]).numpy()
