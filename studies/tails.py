"""What schatten p = 1, the nuclear norm, adds to ky_fan 30, by the reference: the directions behind the thirty strongest.

Students that were trained without a penalty and with ky_fan 30, and the references of configs/rivals.yaml and
configs/glosses.yaml, in batches of 256 test rows. L is the difference of their cosine kernels, divided by the rows; both objectives push its eigenvectors v with
the same force, ky_fan 30 the thirty strongest and the nuclear norm all of them, and the student's rows Z take the share
|vᵀ Z|² of that. A direction is worth following where it tells the classes apart: the share of the classes' variance that
a set of eigenvectors explains, over that of as many random ones. The students' features are those of

    bin/specalign train configs/rivals.yaml --set sweep={} --set seeds=[1] --set evaluation.features=true \
        --set 'penalty={weight: 0}' --out runs/alone
    bin/specalign train configs/rivals.yaml --set sweep={} --set seeds=[1] --set evaluation.features=true \
        --set 'penalty={objective: ky_fan, k: 30, weight: {ratio: 0.5}, schedule: cosine}' --out runs/aligned-reference

the last one again for runs/aligned-imagenet, towards the other reference, and both with configs/glosses.yaml for
runs/glosses-alone and runs/glosses-aligned.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from demo import evaluation

from .command import OUT, table
from .packages import ROOT
from .second_reference import rank

BATCH, BATCHES, STRONGEST = 256, 15, 30
# The study whose rows they are, the reference's file, that of the labels, and the runs.
REFERENCES = {
    "network of labels": (
        "weak_student",
        "reference",
        "labels",
        "alone",
        "aligned-reference",
    ),
    "EfficientNet": ("weak_student", "imagenet", "labels", "alone", "aligned-imagenet"),
    "MiniLM": ("glosses", "reference", "topics", "glosses-alone", "glosses-aligned"),
}

Floats = npt.NDArray[np.float64]


def tail(student: Floats, reference: Floats, classes: Floats) -> list[float]:
    """Measure a batch's eigenvectors: unit rows (n, d), (n, d2) and centred indicators of classes (n, c).

    Returns the tail's share of the nuclear norm and of the gradient that reaches the student, and how many times more of the
    classes than random directions the strongest and the tail's explain, of the tail those that only the reference sees.
    """
    n = len(student)
    values, vectors = np.linalg.eigh(
        (student @ student.T - reference @ reference.T) / n
    )
    there = np.abs(values) > 1e-7
    values, vectors = values[there], vectors[:, there]
    order = np.argsort(-np.abs(values))
    values, vectors = values[order], vectors[:, order]
    pushed = ((vectors.T @ student) ** 2).sum(1)
    told = ((vectors.T @ classes) ** 2).sum(1) / (classes**2).sum()
    behind = np.arange(len(values)) >= STRONGEST
    missed = behind & (values < 0)

    def times(which: npt.NDArray[np.bool_]) -> float:
        return float(told[which].sum() / (max(int(which.sum()), 1) / (n - 1)))

    return [
        float(np.abs(values[behind]).sum() / np.abs(values).sum()),
        float(pushed[behind].sum() / pushed.sum()),
        times(~behind),
        times(missed),
        times(behind & (values > 0)),
    ]


def main() -> None:
    """Print the table."""
    rows = []
    for name, (study, file, listed, *runs) in REFERENCES.items():
        labels = (OUT / study / f"test-{listed}.txt").read_text().splitlines()
        names, which = np.unique(labels, return_inverse=True)
        indicators = np.eye(len(names))[which]
        order = np.random.default_rng(0).permutation(len(labels))
        parts = order[: BATCH * BATCHES].reshape(BATCHES, BATCH)
        reference = np.load(OUT / study / f"test-{file}.npy")
        for trained, run in zip(("alone", "ky_fan 30"), runs, strict=True):
            student = np.load(ROOT / "runs" / run / "seed-1" / "features.npy")
            sides = [evaluation.unit(x).astype(float) for x in (student, reference)]
            found = []
            for part in parts:
                classes = indicators[part] - indicators[part].mean(0)
                found.append(tail(*(x[part] for x in sides), classes))
            ranks = f"{rank(reference):.1f}", f"{rank(student):.1f}"
            rows.append([name, trained, *ranks, *np.mean(found, 0).tolist()])
    table(
        [
            "reference",
            "student",
            "effective rank, reference",
            "student",
            "tail's share of the nuclear norm",
            "of the gradient",
            "classes told, strongest",
            "tail, reference's",
            "tail, student's",
        ],
        rows,
    )


if __name__ == "__main__":
    main()
