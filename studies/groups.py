"""What the groups of a comparison consist of, and whether they are groups in either embedding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_mutual_info_score

RUNS = 50


def consists_of(attributes: dict[str, Sequence[str]], indices: list[int]) -> str:
    """Name the attribute that these samples agree on most, and its values with a fifth of them or more."""
    best, most = "", 0.0
    for name, values in attributes.items():
        found, counts = np.unique([values[i] for i in indices], return_counts=True)
        agreement = float(((counts / len(indices)) ** 2).sum()) * len(
            set(values)
        )  # 1 where it says nothing
        if agreement > most:
            order = [i for i in np.argsort(-counts) if counts[i] >= len(indices) / 5]
            best, most = (
                f"{name}: " + ", ".join(f"{found[i]} {counts[i]}" for i in order),
                agreement,
            )
    return best


def explained(scores: npt.NDArray[np.float64], values: Sequence[str]) -> float:
    """The share of the variance of a group's scores over all samples that one attribute explains."""
    _, which = np.unique(values, return_inverse=True)
    means = np.bincount(which, scores) / np.bincount(which)
    return float(means[which].var() / scores.var())


def ami(rows: npt.NDArray[Any], labels: list[int]) -> tuple[float, float]:
    """Adjusted mutual information of K-means' clusters with the groups, on rows of unit norm: mean and deviation."""
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    scores = [
        adjusted_mutual_info_score(
            labels,
            KMeans(max(labels) + 1, n_init=1, random_state=run).fit_predict(unit),
        )
        for run in range(RUNS)
    ]
    return float(np.mean(scores)), float(np.std(scores, ddof=1))
