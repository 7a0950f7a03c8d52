"""How often a group is called clear, where the truth is known: `make study STUDY=verdict`.

3,000 samples in eight classes. Two embeddings place the classes alike, up to a rotation, each with noise of its own. In the
planted case B mixes three of the classes up, which takes two directions on each side. Beside the verdict of `compare` stand
two others that could take its place: the permutation null's, and the same verdict on samples that the directions were not
found on.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .command import specalign, table

SAMPLES, DIM, TOP, LISTED, SEEDS = 3000, 16, 5, 48, 3
JUDGED, PAIRS = 300, 100_000
Floats = npt.NDArray[np.float64]


def embeddings(seed: int, planted: bool, noise: float) -> tuple[Floats, Floats]:
    """A and B, rows of unit norm."""
    r = np.random.default_rng(seed)
    classes, centres = r.integers(0, 8, SAMPLES), r.normal(size=(8, DIM))
    rotation = np.linalg.qr(r.normal(size=(DIM, DIM)))[0]
    seen = (
        np.where(classes < 3, r.integers(0, 3, SAMPLES), classes)
        if planted
        else classes
    )
    a = centres[classes] + noise * r.normal(size=(SAMPLES, DIM))
    b = (centres[seen] + noise * r.normal(size=(SAMPLES, DIM))) @ rotation
    return a / np.linalg.norm(a, axis=1)[:, None], b / np.linalg.norm(b, axis=1)[:, None]  # fmt: skip


def directions(a: Floats, b: Floats) -> Floats:
    """The top vectors u of both sides, (DIM + DIM, TOP + TOP): scores of samples are rows of both times u."""
    both = np.hstack([a, b])
    sign = np.repeat([1.0, -1.0], DIM)
    values, vectors = np.linalg.eigh(both.T @ both)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    found, w = np.linalg.eigh((root * sign) @ root)
    order = np.argsort(-found)
    u: Floats = sign[:, None] * (root @ w[:, np.r_[order[:TOP], order[::-1][:TOP]]])
    return u


def held_out(a: Floats, b: Floats) -> list[int]:
    """The number of clear groups of A and of B: directions of the even samples, distances of the odd ones."""
    u = directions(a[::2], b[::2])
    a, b = a[1::2], b[1::2]
    r, count = np.random.default_rng(0), [0, 0]
    pairs = r.integers(0, len(a), (2, PAIRS))
    random = [np.sort(1 - (x[pairs[0]] * x[pairs[1]]).sum(1)) for x in (a, b)]
    for k, v in enumerate((np.hstack([a, b]) @ u).T):
        v = v * np.sign(v.sum())
        members = np.flatnonzero(v >= np.sort(v)[::-1][LISTED // 2] / 2)
        judged = r.choice(members, min(JUDGED, len(members)), replace=False)
        inside = np.triu_indices(len(judged), 1)
        nearer = [
            np.searchsorted(base, np.median((1 - x[judged] @ x[judged].T)[inside]))
            / PAIRS
            for x, base in zip((a, b), random, strict=True)
        ]
        own, other = nearer if k < TOP else nearer[::-1]
        count[k >= TOP] += bool(own < 0.5 and 2 * own <= other)
    return count


def verdicts(folder: Path, a: Floats, b: Floats) -> list[list[int]]:
    """For each way to judge, the numbers of groups of A and of B."""
    names = [folder / name for name in ("a.npy", "b.npy")]
    for name, x in zip(names, (a, b), strict=True):
        np.save(name, x.astype("f4"))
    found = specalign("compare", *names, "--top", TOP, "--samples", LISTED)
    sides: list[list[dict[str, Any]]] = [found["positive"], found["negative"]]
    null = found["permutation_null"]
    return [
        [sum(g["closeness"]["clear"] for g in groups) for groups in sides],
        [null["beyond_positive"], null["beyond_negative"]],
        [sum(g["certainty"]["p_value"] > 0.05 for g in groups) for groups in sides],
        held_out(a, b),
    ]


def main() -> None:
    """Print the table."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for noise in (0.3, 1.0):
            for planted in (False, True):
                found = np.array(
                    [
                        verdicts(Path(folder), *embeddings(seed, planted, noise))
                        for seed in range(SEEDS)
                    ]
                ).sum(0)
                rows.append(
                    [
                        f"{noise}, {'planted' if planted else 'alike'}",
                        *(f"{a} and {b}" for a, b in found),
                    ]
                )
    print(f"Groups of A and of B, of {SEEDS * TOP} each:\n")
    table(
        [
            "noise, classes",
            "clear",
            "eigenvalue beyond the shuffles'",
            "no more of it in the other than in the shuffles (p > .05)",
            "clear on held-out samples",
        ],
        rows,
    )


if __name__ == "__main__":
    main()
