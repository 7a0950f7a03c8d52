"""Is every quantity what float64 NumPy and scikit-learn say it is?

Random embeddings with groups in them, in float32; L formed as a matrix in float64 and its eigenvalues by LAPACK; K-means,
AMI and NMI, neighbours and medians by scikit-learn. Prints the largest deviations.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import hypergeom
from sklearn.cluster import KMeans
from sklearn.metrics import (
    adjusted_mutual_info_score,
    normalized_mutual_info_score,
    roc_auc_score,
)
from sklearn.metrics.pairwise import (
    cosine_similarity,
    euclidean_distances,
    laplacian_kernel,
    rbf_kernel,
)
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits

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

VALIDATED: tuple[tuple[str, ...], ...] = (
    ("--kernel", "cosine"),
    ("--kernel", "gaussian", "--approximation", "exact"),
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


def validation(
    paths: tuple[Any, Any],
    a: Doubles,
    b: Doubles,
    args: tuple[str, ...],
    runs: int = 50,
) -> list[list[object]]:
    """Deviations of the validation of groups: the samples listed, and members drawn. The rows may be 500 at most: then
    the background is all of them. runs are those of scikit-learn's K-means; the command makes 50."""
    listed, made = 30, 50
    found = specalign(
        "compare",
        *paths,
        *args,
        "--top",
        4,
        "--samples",
        listed,
        "--permutations",
        0,
        "--koda",
        0,
    )
    settings = found["settings"]
    worst: dict[str, float] = dict.fromkeys(
        ("AMI", "NMI", "their deviation", "distance", "AUC", "PCA", "members"), 0.0
    )

    def note(name: str, deviation: float) -> None:
        worst[name] = max(worst[name], float(deviation))

    values, vectors = np.linalg.eigh(difference(a, b, settings))
    for end, order in (
        ("positive", range(len(values) - 1, -1, -1)),
        ("negative", range(len(values))),
    ):
        for group, i in zip(found[end], order, strict=False):
            v = vectors[:, i] * np.sign(vectors[:, i].sum())
            level = np.sort(v)[::-1][listed // 2] / 2
            note("members", abs(group["size"] - (v >= level).sum()))
            inside = {i for i, x in enumerate(v) if x >= level * (1 - 1e-5)}
            drawn = {
                m["index"]
                for m in found["validate"][f"{end}_drawn"]["members"]
                if abs(v[m["index"]] - m["score"]) < 1e-6
            }
            note("members", len(drawn - inside))
        for part in (found["validate"][end], found["validate"][f"{end}_drawn"]):
            members = [m["index"] for m in part["members"]]
            labels = np.array([m["group"] for m in part["members"]])
            for x, side in ((a, "student"), (b, "reference")):
                sigma = settings.get(f"{side}_sigma") or 1
                rows = x.astype(np.float64)
                if settings["kernel"] == "cosine":
                    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
                got = part[side]
                with threadpool_limits(1):  # threads that wait for each other cost more
                    clusters = [
                        KMeans(
                            part["groups"], n_init=1, random_state=run, tol=0
                        ).fit_predict(rows[members])
                        for run in range(runs)
                    ]
                for name, score in (
                    ("AMI", adjusted_mutual_info_score),
                    ("NMI", normalized_mutual_info_score),
                ):
                    scores = np.array([score(labels, c) for c in clusters])
                    mean, std = got[name.lower()]["mean"], got[name.lower()]["std"]
                    error = np.hypot(
                        std / np.sqrt(made), scores.std(ddof=1) / np.sqrt(runs)
                    )
                    note(name, abs(mean - scores.mean()) / max(error, 1e-3))
                    note("their deviation", abs(std - scores.std(ddof=1)))
                far = euclidean_distances(rows)
                unit = far[np.triu_indices(len(rows), 1)].mean()
                note("distance", abs(got["unit"] / unit - 1))
                far = far[np.ix_(members, members)] / unit
                other = labels[:, None] != labels
                note("distance", abs(got["between"] / far[other].mean() - 1))
                near = kernel(x, settings["kernel"], sigma)
                for entry in got["distances"]:
                    mine = np.flatnonzero(labels == entry["group"])
                    pairs = far[np.ix_(mine, mine)][np.triu_indices(len(mine), 1)]
                    note("distance", abs(entry["mean"] / pairs.mean() - 1))
                    at = np.array((0.05, 0.25, 0.5, 0.75, 0.95)) * (len(pairs) - 1)
                    quantiles = np.sort(pairs)[(at + 0.5).astype(int)]
                    note("distance", np.abs(entry["quantiles"] / quantiles - 1).max())
                for entry in got["ranking"]:
                    first = [
                        members[i] for i in np.flatnonzero(labels == entry["group"])
                    ]
                    assert entry["members"] == first[4:8]
                    both = np.vstack((rows[first[:4]].mean(0), rows))
                    like = (
                        both[1:] @ both[0]
                        if settings["kernel"] == "cosine"
                        else rbf_kernel(both[1:], both[:1], 1 / (2 * sigma**2))[:, 0]
                    )
                    auc = roc_auc_score(
                        [1] * 4 + [0] * len(rows), np.r_[like[first[4:8]], like]
                    )
                    note("AUC", abs(auc - entry["auc"]))
                tops, components = np.linalg.eigh(near / len(near))
                for entry, i in zip(
                    got["kernel_pca"], range(len(tops) - 1, -1, -1), strict=False
                ):
                    note("PCA", abs(entry["eigenvalue"] / tops[i] - 1))
                    v = components[:, i] * np.sign(components[:, i].sum())
                    scores = [m["score"] for m in entry["members"]]
                    note("PCA", np.abs(np.sort(v)[::-1][: len(scores)] - scores).max())
    return [
        [
            " ".join(args),
            *(f"{worst[name]:.1f}" for name in ("AMI", "NMI")),
            *(
                f"{worst[name]:.1e}"
                for name in ("their deviation", "distance", "AUC", "PCA")
            ),
            int(worst["members"]),
        ]
    ]


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
    print()
    a, b = embeddings(500)
    paths = (save("crosscheck", "student", a), save("crosscheck", "reference", b))
    table(
        [
            "validation of groups with",
            "AMI, in standard errors",
            "NMI, in standard errors",
            "their standard deviations",
            "distances, relative",
            "ranking",
            "kernel PCA",
            "members that differ",
        ],
        [row for args in VALIDATED for row in validation(paths, a, b, args)],
    )


if __name__ == "__main__":
    main()
