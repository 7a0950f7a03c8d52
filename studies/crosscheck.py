"""Is every quantity what float64 NumPy and scikit-learn say it is?

Random embeddings with groups in them, in float32; L formed as a matrix in float64 and its eigenvalues by LAPACK; K-means,
AMI and NMI, neighbours and medians by scikit-learn. Prints the largest deviations.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import hypergeom
from sklearn.metrics.pairwise import (
    cosine_similarity,
    euclidean_distances,
    laplacian_kernel,
    rbf_kernel,
)
from sklearn.neighbors import NearestNeighbors

from .command import save, specalign, table

Doubles = npt.NDArray[np.float64]

SETTINGS: tuple[tuple[str, ...], ...] = (
    ("--kernel", "cosine"),
    ("--kernel", "linear"),
    ("--kernel", "cosine", "--center"),
    ("--kernel", "cosine", "--eta", "0.5"),
    ("--kernel", "gaussian", "--approximation", "exact"),
    ("--kernel", "gaussian", "--approximation", "exact", "--center"),
    ("--kernel", "laplacian", "--approximation", "exact", "--sigma", "20"),
)


def embeddings(n: int, seed: int = 3) -> tuple[Doubles, Doubles]:
    """Two embeddings with groups of their own and a few in common."""
    rng = np.random.default_rng(seed)
    shared, own, other = (rng.integers(0, k, n) for k in (3, 5, 4))
    sides = []
    for d, groups in ((40, own), (25, other)):
        x = (
            rng.normal(size=(3, d))[shared]
            + 1.5 * rng.normal(size=(6, d))[groups]
            + 0.7 * rng.normal(size=(n, d))
        )
        sides.append(x.astype(np.float32))
    return sides[0], sides[1]


def kernel(x: Doubles, name: str, sigma: float) -> Doubles:
    """The kernel matrix in float64."""
    x = x.astype(np.float64)
    if name == "gaussian":
        return rbf_kernel(x, gamma=1 / (2 * sigma**2))
    if name == "laplacian":
        return laplacian_kernel(x, gamma=1 / sigma)
    return cosine_similarity(x) if name == "cosine" else x @ x.T


def difference(a: Doubles, b: Doubles, settings: dict[str, Any]) -> Doubles:
    """L as the settings, resolved, say."""
    n = len(a)
    sides = []
    for x, side in ((a, "student"), (b, "reference")):
        k = kernel(x, settings["kernel"], settings.get(f"{side}_sigma") or 1)
        if settings["center"]:
            k = k - k.mean(0) - k.mean(1)[:, None] + k.mean()
        sides.append(k)
    return (sides[0] - settings["eta"] * sides[1]) / n


def compare(
    paths: tuple[Any, Any], a: Doubles, b: Doubles, args: tuple[str, ...]
) -> list[object]:
    """Largest relative error of an eigenvalue, and how many of the fifty strongest samples of a group differ."""
    top, listed = 5, 50
    found = specalign(
        "compare",
        *paths,
        *args,
        "--top",
        top,
        "--samples",
        listed,
        "--permutations",
        0,
        "--koda",
        0,
    )
    values, vectors = np.linalg.eigh(difference(a, b, found["settings"]))
    scale = np.abs(values).max()
    worst, missed = abs(found["spec_diff"] - scale) / scale, 0
    for side, order in (
        ("positive", range(len(values) - 1, -1, -1)),
        ("negative", range(len(values))),
    ):
        for group, i in zip(found[side], order, strict=False):
            worst = max(worst, abs(group["eigenvalue"] - values[i]) / scale)
            v = vectors[:, i]
            if abs(v.sum()) > 1e-6 * np.sqrt(len(v)):
                v = v * np.sign(v.sum())
            elif v[np.abs(v).argmax()] < 0:
                v = -v
            missed += listed - len(
                {s["index"] for s in group["samples"]}
                & set(np.argsort(-v)[:listed].tolist())
            )
    return [" ".join(args), found["route"], f"{worst:.1e}", missed]


def nngs(a: Doubles, b: Doubles, k: int, metric: str) -> tuple[float, float]:
    """Score and level of chance by scikit-learn and SciPy."""
    sides = []
    for x in (a.astype(np.float64), b.astype(np.float64)):
        near = (
            NearestNeighbors(n_neighbors=k, metric=metric, algorithm="brute")
            .fit(x)
            .kneighbors(return_distance=False)
        )
        sides.append(near)
    common = np.array([len(set(x) & set(y)) for x, y in zip(*sides, strict=True)])
    m = np.arange(k + 1)
    chance = (hypergeom(len(a) - 1, k, k).pmf(m) * m / (2 * k - m)).sum()
    return float((common / (2 * k - common)).mean()), float(chance)


def cka(ka: Doubles, kb: Doubles) -> float:
    """Centred kernel alignment of two matrices."""
    h = np.eye(len(ka)) - 1 / len(ka)
    a, b = h @ ka @ h, h @ kb @ h
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))


def metrics(paths: tuple[Any, Any], a: Doubles, b: Doubles) -> list[list[object]]:
    """Deviations of `specalign metrics`."""
    ks = (1, 5, 50)
    found = specalign(
        "metrics",
        *paths,
        "--nngs-k",
        ",".join(map(str, ks)),
        "--nngs-metric",
        "cosine,euclidean",
    )
    values = np.linalg.eigvalsh(difference(a, b, found["settings"]))
    rows: list[list[object]] = [
        [
            "lambda_max, lambda_min, relative",
            max(
                abs(found["lambda_max"] / values[-1] - 1),
                abs(found["lambda_min"] / values[0] - 1),
            ),
        ]
    ]
    score, level = 0.0, 0.0
    for entry in found["nngs"]:
        value, chance = nngs(a, b, entry["k"], entry["metric"])
        score, level = (
            max(score, abs(value - entry["value"])),
            max(level, abs(chance - entry["chance"])),
        )
    sigma = [
        np.median(euclidean_distances(x.astype(np.float64))[np.triu_indices(len(x), 1)])
        for x in (a, b)
    ]
    x, y = a.astype(np.float64), b.astype(np.float64)
    rows += [
        ["NNGS", score],
        ["its chance", level],
        ["linear CKA", abs(cka(x @ x.T, y @ y.T) - found["cka"]["linear"])],
        [
            "sigma, relative",
            float(np.abs(np.array(found["cka"]["sigma"]) / sigma - 1).max()),
        ],
        [
            "Gaussian CKA",
            abs(
                cka(
                    *(
                        rbf_kernel(v, gamma=1 / (2 * s**2))
                        for v, s in zip((x, y), sigma, strict=True)
                    )
                )
                - found["cka"]["rbf"]
            ),
        ],
    ]
    return [[name, f"{v:.1e}"] for name, v in rows]


def main() -> None:
    """Print the tables."""
    a, b = embeddings(1000)
    paths = (save("crosscheck", "student", a), save("crosscheck", "reference", b))
    rows = [compare(paths, a, b, args) for args in SETTINGS]
    table(
        [
            "specalign compare",
            "route",
            "eigenvalues, relative to the largest",
            "samples of 10 x 50 that differ",
        ],
        rows,
    )
    print()
    table(["specalign metrics", "deviation"], metrics(paths, a, b))


if __name__ == "__main__":
    main()
